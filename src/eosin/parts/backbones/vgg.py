"""The first blocks of VGG-16 with batch norms, cut behind their pools: the trunk of the MIL methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from eosin.core.errors import WrongUse

_WIDTHS = ((64, 64), (128, 128), (256, 256, 256))
_NORM = ("weight", "bias", "running_mean", "running_var")  # in files, and so are they called here


class VggBlocks(nn.Module):
    """3x3 convolutions with bias, each with a batch norm and ReLU behind it; a 2x2 max-pool ends each block (IKD-MIL).

    Args:
        taps: blocks, 0 to 2, in rising order. A tap is behind the pool, so the stride of block ``i`` is ``2**(i+1)``.

    Shapes:
        ``[B, 3, H, W]`` to ``[B, 64, H/2, W/2]``, ``[B, 128, H/4, W/4]``, ``[B, 256, H/8, W/8]``, rounded down.

    Raises:
        WrongUse: for a tap that it does not have.
    """

    def __init__(self, taps: Sequence[int] = (0, 1, 2)) -> None:
        super().__init__()
        if not set(taps) <= set(range(len(_WIDTHS))):
            raise WrongUse(f"encoder 'vgg16_blocks' has no taps {tuple(taps)}; it has 0 to {len(_WIDTHS) - 1}")
        self.taps = tuple(taps)
        self.channels = [_WIDTHS[tap][-1] for tap in taps]
        self.strides = [2 ** (tap + 1) for tap in taps]
        channels = 3
        self.blocks = nn.ModuleList()
        for widths in _WIDTHS[: max(taps) + 1]:
            block = nn.ModuleList()
            for width in widths:
                block.append(nn.ModuleDict({"conv": nn.Conv2d(channels, width, 3, padding=1), "norm": _norm(width)}))
                channels = width
            self.blocks.append(block)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        self._attended: set[int] = set()

    def attend(self, tap: int, module: nn.Module) -> None:
        """Put a module between the convolutions of a block and its pool, called ``attention`` and the block."""
        self.add_module(f"attention{tap}", module)
        self._attended.add(tap)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Pooled features of the tapped blocks."""
        x, found = image, []
        for tap, block in enumerate(self.blocks):
            for layer in block:  # type: ignore[attr-defined]
                x = torch.relu(layer["norm"](layer["conv"](x)))
            if tap in self._attended:
                x = self.get_submodule(f"attention{tap}")(x)
            x = nn.functional.max_pool2d(x, 2)
            if tap in self.taps:
                found.append(x)
        return found


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width)


def named_as_blocks(blocks: int, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The entries of a VGG-16 (``features.0.weight``) by the names of :class:`VggBlocks`; others keep theirs.

    A VGG-16 without batch norms gives the kernels; the norms then begin as new ones, which IKD-MIL does.

    Args:
        blocks: how many of its blocks were built.
        weights: by the names of a VGG-16.
    """
    normed = "features.1.running_mean" in weights
    found, at = dict(weights), 0
    for number, widths in enumerate(_WIDTHS[:blocks]):
        for layer, width in enumerate(widths):
            here = f"blocks.{number}.{layer}"
            if f"features.{at}.weight" not in weights:
                return weights
            for entry in ("weight", "bias"):
                found[f"{here}.conv.{entry}"] = found.pop(f"features.{at}.{entry}")
            fresh = _norm(width).state_dict()
            for entry in _NORM:
                found[f"{here}.norm.{entry}"] = found.pop(f"features.{at + 1}.{entry}") if normed else fresh[entry]
            at += 3 if normed else 2
        at += 1  # the pool
    return found
