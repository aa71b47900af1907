"""Encoders by name as a list of feature maps, with taps, output stride and an honest weight report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from eosin.core.errors import EosinError, WrongUse
from eosin.core.fingerprint import file_digest
from eosin.parts.backbones.known import promised
from eosin.parts.backbones.networks import Cut, Named, cut, imagenet_weights, undilated
from eosin.parts.backbones.weights import load_weights, read_weights

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WeightFile:
    """Weights on disk (``.pth``, ``.safetensors``, ``.params``); a step's digest holds its content, not its path."""

    path: Path
    digest: str

    def fill(self, net: nn.Module, whole: Callable[[], nn.Module], renamed: Callable[[Named], Named] = dict) -> None:
        """Load them into a network; nothing of it may be missing.

        Args:
            net: whose entries are named as in the file.
            whole: makes the network that ``net`` may be cut from; asked only for its names.
            renamed: gives entries of other releases the names and shapes of the network's.

        Raises:
            EosinError: if the file is damaged, or of another network.
        """
        log.info("%s: sha256 %s", self.path, self.digest)
        load_weights(net, renamed(read_weights(self.path)), str(self.path), whole)


def pretrained_from(source: str) -> str | WeightFile:
    """What a recipe means by ``none``, ``imagenet`` or a path.

    Raises:
        WrongUse: if there is no such file.
        EosinError: if the file has the name of a known one, and another digest.
    """
    if source in ("none", "imagenet"):
        return source
    path = Path(source)
    if not path.is_file():
        raise WrongUse(f"pretrained = {source!r}: no such weight file; give a path, 'imagenet' or 'none'")
    file = WeightFile(path, file_digest(path))
    if not file.digest.startswith(begins := promised(path.name)):
        raise EosinError(f"{path}: its SHA-256 begins with {file.digest[:8]}, not {begins}; download it again")
    return file


def fill(made: Cut, name: str, pretrained: str | WeightFile) -> None:
    """Load the weights that a network by its name begins with: ``none``, ``imagenet`` or a file.

    Raises:
        WrongUse: for anything else.
        EosinError: if they cannot be had or do not match.
    """
    if isinstance(pretrained, WeightFile):
        pretrained.fill(made.body, made.whole, made.renamed)
    elif pretrained == "imagenet":
        fetched = made.renamed(imagenet_weights(name))
        load_weights(made.body, fetched, f"ImageNet weights of {name}", made.whole)
    elif pretrained != "none":
        raise WrongUse(f"pretrained = {pretrained!r}: give none, imagenet or a WeightFile")


class Encoder(nn.Module):
    """A network cut at ``taps``: any that timm can cut, ``mit_b0`` to ``mit_b5``, ``resnet38``, ``vgg16_blocks``.

    Args:
        name: timm's name, e.g. ``resnet18``, or one of the above.
        taps: indices of feature levels, in rising order. Level ``i`` of a ResNet has stride ``2**(i+1)``, of a VGG
            ``2**i`` (before the next pool), of ``vgg16_blocks`` ``2**(i+1)`` (behind it), of Swin and MiT ``4 * 2**i``;
            of a ViT it is block ``i``, of ``resnet38`` the stage of that number in the papers, 1 to 6.
        output_stride: 8, 16 or 32: no level is coarser. Where one would be, CNNs are dilated instead of strided, and
            MiT embeds patches at stride 1. ViT and Swin cannot: tap earlier. ``resnet38`` has 8 at most by itself.
        stem_pool: keep a ResNet's max-pool after the stem. Without it every level past the stem is twice as fine.
        pretrained: ``none``, ``imagenet`` (the library's own weights) or weights on disk.
        attention: makes a module that keeps the shape of features of so many channels; None for none.
        slots: the levels that one is put behind, so that they and all later ones see what it makes of them; of
            ``resnet38`` before the norm that a tap ends in. They need not be taps. None: the last tap and the two
            levels before it. Its parameters are named ``net.attention`` and the level.

    Shapes:
        ``[B, 3, H, W]`` to a list of ``[B, channels[i], about H / strides[i], about W / strides[i]]``, for any size:
        most networks round up where a stride does not divide it, VGG rounds down. Where a network takes whole patches
        only (ViT, Swin) or 32 pixels at least (MiT), the right and lower border is repeated, and maps are cut again.

    Raises:
        WrongUse: for an unknown network, or a tap, an output stride, a max-pool or a place for attention that it does
            not have.
        EosinError: if weights cannot be had or do not match.
    """

    def __init__(
        self,
        name: str = "resnet18",
        taps: Sequence[int] = (4,),
        output_stride: Literal[8, 16, 32] = 32,
        stem_pool: bool = True,
        pretrained: str | WeightFile = "none",
        attention: Callable[[int], nn.Module] | None = None,
        slots: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        taps = tuple(taps)
        last = max(taps, default=0)
        slots = range(max(last - 2, 0), last + 1) if slots is None else slots
        levels = taps if attention is None else _with_slots(name, taps, slots)
        made = self._cut(name, levels, output_stride)
        self.net = made.net
        self._shown = [levels.index(tap) for tap in taps]
        self.channels: list[int] = [made.channels[at] for at in self._shown]
        self.strides: list[int] = [made.strides[at] for at in self._shown]
        self._multiple, self._least, self._channels_last = made.multiple, made.least, made.last
        fill(made, name, pretrained)
        if not stem_pool:
            if not isinstance(getattr(self.net, "maxpool", None), nn.MaxPool2d):
                raise WrongUse(f"encoder {name!r} has no max-pool after its stem; leave stem_pool true")
            self.net.maxpool = nn.Identity()
            self.strides = [s if s == 2 else s // 2 for s in self.strides]
        if attention is not None:
            for slot in sorted({*slots}):
                if made.attend is None:
                    raise WrongUse(
                        f"encoder {name!r} has no stages to put attention behind; take a ResNet, or no attention"
                    )
                made.attend(slot, attention(made.channels[levels.index(slot)]))

    def _cut(self, name: str, taps: tuple[int, ...], output_stride: int) -> Cut:
        return cut(name, taps, output_stride)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Feature maps at the taps."""
        height, width = image.shape[-2:]
        below, right = (max(side + -side % self._multiple, self._least) - side for side in (height, width))
        if not below and not right:
            return self._features(image)
        features = self._features(F.pad(image, (0, right, 0, below), mode="replicate"))
        return [f[..., : -(-height // s), : -(-width // s)] for f, s in zip(features, self.strides, strict=True)]

    def _features(self, image: Tensor) -> list[Tensor]:
        levels: list[Tensor] = self.net(image)
        features = [levels[at] for at in self._shown]
        return [f.permute(0, 3, 1, 2).contiguous() for f in features] if self._channels_last else features


def _with_slots(name: str, taps: tuple[int, ...], slots: Sequence[int]) -> tuple[int, ...]:
    """All levels that are taps or slots, in rising order."""
    if not taps or max(slots, default=0) > max(taps):
        raise WrongUse(
            f"encoder {name!r}: attention at {tuple(slots)} lies behind the last tap of {taps}, where none sees it; "
            "set attention_at to levels up to that tap"
        )
    return tuple(sorted({*taps, *slots}))


class Undilated(Encoder):
    """A ResNet whose late stages keep their resolution at stride 1 without dilation, e.g. the teacher of PDSeg.

    An ``Encoder`` of the same output stride has the same shapes and weights and is another network: what its late
    stages see is spread as far as it was before.
    """

    def _cut(self, name: str, taps: tuple[int, ...], output_stride: int) -> Cut:
        return undilated(name, taps, output_stride)
