"""Segmentation networks from segmentation-models-pytorch (SMP), and the learner that trains one on masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, Protocol

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eosin.core.errors import EosinError, WrongUse, nearest
from eosin.core.learner import Learner, Normalise, resized, resized_masks
from eosin.core.values import Batch, Clock

TIMM = "tu-"  # before a timm name, in SMP's names of encoders
REFUSALS = (RuntimeError, ValueError, LookupError, TypeError, AssertionError)  # by which SMP and timm refuse an encoder


class Weights(Protocol):
    """Weights on disk, as a method hands them."""

    def fill(self, net: nn.Module, whole: Callable[[], nn.Module]) -> None:
        """Load them into a network that may be cut from ``whole``; EosinError if they are not of that network."""
        ...


class SmpNet(nn.Module):
    """What the networks of SMP have in common: an encoder by its name, its weights, any image size.

    Args:
        kind: SMP's class.
        classes: K.
        encoder: SMP's encoder name; ``tu-`` and a timm name takes that network.
        depth: levels of the encoder, 3 to 5.
        pretrained: ``none``, ``imagenet`` (downloaded by SMP or timm) or weights on disk, for the encoder.
        settings: what else SMP's class takes.

    Shapes:
        ``[B, 3, H, W]`` to logits ``[B, K, H, W]``.

    Raises:
        WrongUse: for an unknown encoder, or one that the network cannot have.
        EosinError: if weights cannot be had or do not match.
    """

    def __init__(
        self,
        kind: Callable[..., Any],
        classes: int,
        encoder: str,
        depth: int,
        pretrained: str | Weights,
        **settings: Any,
    ) -> None:
        super().__init__()
        known_encoder(encoder)
        if isinstance(pretrained, str) and pretrained not in ("none", "imagenet"):
            raise WrongUse(f"pretrained = {pretrained!r}: give none, imagenet or weights on disk")
        named = encoder.startswith(TIMM)
        fetched = (True if named else "imagenet") if pretrained == "imagenet" else None
        try:
            self.net = kind(encoder, encoder_depth=depth, encoder_weights=fetched, classes=classes, **settings)
        except OSError as error:
            raise EosinError(
                f"{pretrained} weights of {encoder} cannot be fetched: set pretrained to a local file or to 'none', "
                f"or go online ({type(error).__name__})"
            ) from error
        except REFUSALS as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            fault = f"encoder {encoder!r} does not fit {type(self).__name__}: {reason:.200}; take another"
            raise WrongUse(fault) from error
        self.stride: int = self.net.encoder.output_stride
        # The attention of MiT joins 8 x 8 cells of stride 4 into one key; an image must hold one.
        self.least = 32 if encoder.startswith("mit_") else self.stride
        if depth < 5:
            _drop_idle(self.net.encoder)
        if not isinstance(pretrained, str):
            pretrained.fill(*_as_stored(self.net.encoder, encoder))

    def forward(self, image: Tensor) -> Tensor:
        """Logits; sizes that the stride does not divide are padded by repeating the border and cut again."""
        height, width = image.shape[-2:]
        below, right = (max(side + -side % self.stride, self.least) - side for side in (height, width))
        logits: Tensor = self.net(F.pad(image, (0, right, 0, below), mode="replicate"))
        return logits[..., :height, :width]


class UNet(SmpNet):
    """U-Net (Ronneberger et al. 2015): skips from every level of the encoder.

    Args:
        classes: K.
        encoder: as in :class:`SmpNet`.
        depth: levels of the encoder, 3 to 5; the coarsest has stride ``2**depth``.
        width: channels of the finest decoder level; each coarser one doubles it.
        pretrained: as in :class:`SmpNet`.
    """

    attention: ClassVar[str | None] = None  # of the decoder

    def __init__(
        self,
        classes: int,
        encoder: str = "resnet18",
        depth: int = 5,
        width: int = 16,
        pretrained: str | Weights = "none",
    ) -> None:
        settings = {"decoder_channels": _doubled(width, depth), "decoder_attention_type": self.attention}
        super().__init__(smp.Unet, classes, encoder, depth, pretrained, **settings)


class UNetScse(UNet):
    """U-Net whose decoder weighs its channels and its pixels (scSE, Roy et al. 2018), as that of CAC-UNet does."""

    attention = "scse"


class UNetPlusPlus(SmpNet):
    """U-Net++ (Zhou et al. 2018): a U-Net whose skips are dense blocks. It has no MiT encoder.

    Args:
        classes: K.
        encoder: as in :class:`SmpNet`.
        depth: levels of the encoder, 3 to 5; the coarsest has stride ``2**depth``.
        width: channels of the finest decoder level; each coarser one doubles it.
        pretrained: as in :class:`SmpNet`.
    """

    def __init__(
        self,
        classes: int,
        encoder: str = "resnet18",
        depth: int = 5,
        width: int = 16,
        pretrained: str | Weights = "none",
    ) -> None:
        super().__init__(smp.UnetPlusPlus, classes, encoder, depth, pretrained, decoder_channels=_doubled(width, depth))


class PSPNet(SmpNet):
    """PSPNet (Zhao et al. 2017): the last features, pooled to 1, 2, 3 and 6 cells a side and joined again.

    ARML and the gland method use three levels of ResNeSt-101 and ResNeSt-200 (2.5 and 8.6 million parameters): depth
    3 leaves layers 3 and 4 out.

    Args:
        classes: K.
        encoder: as in :class:`SmpNet`.
        depth: levels of the encoder, 3 to 5; logits come at stride ``2**depth`` and are resized bilinearly.
        width: channels after the pyramid.
        pretrained: as in :class:`SmpNet`.
    """

    def __init__(
        self,
        classes: int,
        encoder: str = "resnet18",
        depth: int = 3,
        width: int = 512,
        pretrained: str | Weights = "none",
    ) -> None:
        super().__init__(smp.PSPNet, classes, encoder, depth, pretrained, psp_out_channels=width, upsampling=2**depth)


class DeepLabV3Plus(SmpNet):
    """DeepLabV3+ (Chen et al. 2018): dilated convolutions side by side, joined with features of stride 4.

    Args:
        classes: K.
        encoder: as in :class:`SmpNet`; one that can be dilated.
        depth: levels of the encoder, 3 to 5.
        width: channels of the decoder.
        pretrained: as in :class:`SmpNet`.
        output_stride: 8 or 16; deeper levels are dilated instead of strided.
    """

    def __init__(
        self,
        classes: int,
        encoder: str = "resnet18",
        depth: int = 5,
        width: int = 256,
        pretrained: str | Weights = "none",
        output_stride: Literal[8, 16] = 16,
    ) -> None:
        settings = {"decoder_channels": width, "encoder_output_stride": output_stride}
        super().__init__(smp.DeepLabV3Plus, classes, encoder, depth, pretrained, **settings)


class SegFormer(SmpNet):
    """SegFormer (Xie et al. 2021): every level projected by one linear layer, resized to stride 4 and joined.

    Its encoders are ``mit_b0`` to ``mit_b5``, whose ImageNet weights are for non-commercial use only; any other does.

    Args:
        classes: K.
        encoder: as in :class:`SmpNet`.
        depth: levels of the encoder, 3 to 5.
        width: channels of the decoder.
        pretrained: as in :class:`SmpNet`.
    """

    def __init__(
        self,
        classes: int,
        encoder: str = "mit_b1",
        depth: int = 5,
        width: int = 256,
        pretrained: str | Weights = "none",
    ) -> None:
        super().__init__(smp.Segformer, classes, encoder, depth, pretrained, decoder_segmentation_channels=width)


class Features(Protocol):
    """An encoder whose last features are used, with the channels and strides of each."""

    channels: list[int]
    strides: list[int]

    def __call__(self, image: Tensor) -> list[Tensor]:
        """Feature maps, the deepest last."""
        ...


class Pyramid(nn.Module):
    """The decoder of PSPNet behind an encoder that SMP does not have, such as ResNet-38 (OEEM's second stage).

    Args:
        encoder: makes the encoder.
        classes: K.
        width: channels of each level of the pyramid, and after it.
        cells: a side, of the levels.
        dropout: share of channels dropped before the last convolution.

    Shapes:
        ``[B, 3, H, W]`` to logits ``[B, K, H, W]``.
    """

    def __init__(
        self,
        encoder: Callable[[], Features],
        classes: int,
        width: int = 512,
        cells: tuple[int, ...] = (1, 2, 3, 6),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.encoder = encoder()
        deep = self.encoder.channels[-1]
        self.levels = nn.ModuleList(_level(deep, width, side) for side in cells)
        self.join = nn.Sequential(*_normed(deep + len(cells) * width, width, 3), nn.Dropout2d(dropout))
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits, resized bilinearly from the stride of the encoder."""
        features = self.encoder(image)[-1]
        seen = [_resized(level(features), features.shape) for level in self.levels]
        return _resized(self.head(self.join(torch.cat([features, *seen], 1))), image.shape)


def _level(channels: int, width: int, side: int) -> nn.Sequential:
    """A level of the pyramid; a single cell has no norm, which could not learn from a batch of one."""
    one = [nn.Conv2d(channels, width, 1), nn.ReLU()] if side == 1 else _normed(channels, width, 1)
    return nn.Sequential(nn.AdaptiveAvgPool2d(side), *one)


def _normed(channels: int, width: int, side: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, side, padding=side // 2, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


def _resized(maps: Tensor, shape: Sequence[int]) -> Tensor:
    return F.interpolate(maps, size=list(shape[-2:]), mode="bilinear", align_corners=False)


Net = Literal["unet", "unet-scse", "unetplusplus", "pspnet", "deeplabv3plus", "segformer"]
# What an option of a method names. All take (classes, encoder, depth, width, pretrained).
NETS: Mapping[Net, Callable[..., nn.Module]] = {
    "unet": UNet,
    "unet-scse": UNetScse,
    "unetplusplus": UNetPlusPlus,
    "pspnet": PSPNet,
    "deeplabv3plus": DeepLabV3Plus,
    "segformer": SegFormer,
}


def known_encoder(encoder: str) -> None:
    """Refuse what neither SMP nor timm knows.

    Raises:
        WrongUse: with the nearest name.
    """
    named, known = encoder.startswith(TIMM), smp.encoders.get_encoder_names()
    if not (timm.is_model(encoder.removeprefix(TIMM)) if named else encoder in known):
        near = nearest(encoder, [*known, *(TIMM + name for name in timm.list_models())])
        raise WrongUse(f"encoder {encoder!r} is not known to {'timm' if named else 'SMP'}{near}")


def _as_stored(net: Any, encoder: str) -> tuple[nn.Module, Callable[[], nn.Module]]:
    """The part of an encoder whose entries are named as in files of its weights, and the uncut network."""
    if encoder.startswith(TIMM):
        return net.model, partial(timm.create_model, encoder.removeprefix(TIMM))
    return net, partial(smp.encoders.get_encoder, encoder, weights=None)


def _doubled(width: int, depth: int) -> tuple[int, ...]:
    """Channels of the decoder levels of a U-Net, the coarsest first."""
    return tuple(width * 2**level for level in reversed(range(depth)))


def _drop_idle(encoder: nn.Module) -> None:
    """Drop the levels that SMP builds below the chosen depth: they would be counted and stored, and never used."""
    used: set[nn.Module] = set()
    hooks = [module.register_forward_pre_hook(lambda m, _: used.add(m)) for module in encoder.modules()]
    with torch.no_grad():
        encoder.eval()(torch.zeros(1, 3, 32, 32))
    encoder.train()
    for hook in hooks:
        hook.remove()
    for name, child in list(encoder.named_children()):
        if used.isdisjoint(child.modules()):
            setattr(encoder, name, nn.Identity())


class Segmenter(Learner):
    """A network trained on one named mask per image.

    Args:
        net: makes the network, ``[B, 3, H, W]`` to logits ``[B, K, H, W]``.
        loss: makes the pixel loss, ``(logits, mask)`` to a scalar.
        mask: which of the batch's masks is learnt.
        scale: images are resized by this factor before the network, masks likewise in training; probabilities come
            back at the image's size.
    """

    def __init__(
        self, net: Callable[[], nn.Module], loss: Callable[[], nn.Module], mask: str, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.net = net()
        self.loss = loss()
        self.mask = mask
        self.scale = scale

    def logits(self, image: Tensor) -> Tensor:
        """Class logits at the network's resolution, ``[B, K, scale * H, scale * W]``."""
        return self.net(resized(self.normalise(image), self.scale))  # type: ignore[no-any-return]

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """``pixels``: the pixel loss against the named mask."""
        return {"pixels": self.against(self.logits(batch.image), batch.masks[self.mask])}

    def against(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The pixel loss of logits against a mask ``[B, H, W]``, which is resized to them."""
        loss: Tensor = self.loss(logits, resized_masks(mask, logits))
        return loss

    def predict(self, image: Tensor) -> Tensor:
        """Class probabilities, float32 ``[B, K, H, W]``."""
        logits = self.logits(image).float()
        return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False).softmax(1)


class ManyMasksSegmenter(Segmenter):
    """A segmenter trained on several masks of each image at once (MLPS, Han et al. 2022).

    Args:
        net: makes the network, ``[B, 3, H, W]`` to logits ``[B, K, H, W]``.
        loss: makes the pixel loss, ``(logits, mask)`` to a scalar.
        weights: which of the batch's masks are learnt, and what the loss against each counts.
        scale: as in :class:`Segmenter`.
    """

    def __init__(
        self,
        net: Callable[[], nn.Module],
        loss: Callable[[], nn.Module],
        weights: Mapping[str, float],
        scale: float = 1.0,
    ) -> None:
        super().__init__(net, loss, next(iter(weights)), scale)
        self.weights = dict(weights)

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """By the name of each mask, the weighted pixel loss against it."""
        logits = self.logits(batch.image)
        return {name: weight * self.against(logits, batch.masks[name]) for name, weight in self.weights.items()}
