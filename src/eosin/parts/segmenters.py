"""Segmentation networks from segmentation-models-pytorch, trained on masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eosin.core.errors import EosinError, WrongUse, nearest
from eosin.core.learner import Learner, Normalise, resized
from eosin.core.values import Batch, Clock


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015) with an encoder from SMP; any image size.

    Args:
        classes: K.
        encoder: SMP's encoder name; ``tu-`` and a timm name takes that network.
        depth: levels of the encoder, 3 to 5; the coarsest has stride ``2**depth``.
        width: channels of the finest decoder level; each coarser one doubles it.
        pretrained: ``none`` or ``imagenet`` (downloaded by SMP).

    Shapes:
        ``[B, 3, H, W]`` to logits ``[B, K, H, W]``.

    Raises:
        WrongUse: for an unknown encoder.
        EosinError: if weights cannot be had.
    """

    def __init__(
        self,
        classes: int,
        encoder: str = "resnet18",
        depth: int = 5,
        width: int = 16,
        pretrained: Literal["none", "imagenet"] = "none",
    ) -> None:
        super().__init__()
        known = smp.encoders.get_encoder_names()
        if encoder not in known and not encoder.startswith("tu-"):
            raise WrongUse(f"encoder {encoder!r} is not known to SMP{nearest(encoder, known)}")
        try:
            self.net = smp.Unet(
                encoder,
                encoder_depth=depth,
                encoder_weights=None if pretrained == "none" else pretrained,
                decoder_channels=tuple(width * 2**level for level in reversed(range(depth))),
                classes=classes,
            )
        except RuntimeError as error:  # a "tu-" name that timm does not know
            raise WrongUse(f"encoder {encoder!r}: {str(error).splitlines()[0]}") from None
        except OSError as error:
            raise EosinError(
                f"{pretrained} weights of {encoder} cannot be fetched: set pretrained to 'none' or go online "
                f"({type(error).__name__})"
            ) from error
        self.stride = 2**depth
        if depth < 5:
            _drop_idle(self.net.encoder)

    def forward(self, image: Tensor) -> Tensor:
        """Logits; sizes that the stride does not divide are padded by repeating the border and cut again."""
        height, width = image.shape[-2:]
        below, right = -height % self.stride, -width % self.stride
        logits: Tensor = self.net(F.pad(image, (0, right, 0, below), mode="replicate"))
        return logits[..., :height, :width]


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
        logits, mask = self.logits(batch.image), batch.masks[self.mask]
        if mask.shape[1:] != logits.shape[2:]:
            mask = F.interpolate(mask[:, None].float(), size=logits.shape[2:], mode="nearest-exact")[:, 0].long()
        return {"pixels": self.loss(logits, mask)}

    def predict(self, image: Tensor) -> Tensor:
        """Class probabilities, float32 ``[B, K, H, W]``."""
        logits = self.logits(image).float()
        return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False).softmax(1)
