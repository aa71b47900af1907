"""ResNet-38, the wide network of the weakly supervised field, which no library has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from eosin.core.errors import WrongUse

_PLAIN = {  # stage: blocks of two 3x3 convolutions, channels between these, channels, stride, dilation
    2: (3, 128, 128, 2, 1),
    3: (3, 256, 256, 2, 1),
    4: (6, 512, 512, 2, 1),
    5: (3, 512, 1024, 1, 2),
}
_CHANNELS = {1: 64, 2: 128, 3: 256, 4: 512, 5: 1024, 6: 4096}
_STRIDES = {1: 1, 2: 2, 3: 4, 4: 8, 5: 8, 6: 8}
_NORMS = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_var": "running_var"}
_MXNET = re.compile(
    r"(?:arg|aux):(?:(conv1a)|(res|bn)(\d)(?:a|b(\d))_(branch\w+?)|(bn7))_(weight|" + "|".join(_NORMS) + ")"
)


class Activated(nn.Module):
    """What a block sees of its input: batch norm and ReLU. A cut network ends in that of the next stage."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(channels)

    def activate(self, x: Tensor) -> Tensor:
        """BN-ReLU of the raw input, of the same shape."""
        return F.relu(self.bn_branch2a(x), inplace=True)

    def forward(self, x: Tensor, active: Tensor) -> Tensor:
        """Raw input and activated input to the block's raw output; there is no block here, so nothing is changed."""
        return x


class Plain(Activated):
    """BN-ReLU-3x3-BN-ReLU-3x3 beside a shortcut, which is a 1x1 convolution of the activated input if shapes change.

    Args:
        channels: of the input.
        middle: channels between the convolutions.
        out: channels of the output.
        stride: of the first convolution and of the shortcut.
        dilations: of the two convolutions.
    """

    def __init__(self, channels: int, middle: int, out: int, stride: int, dilations: tuple[int, int]) -> None:
        super().__init__(channels)
        first, second = dilations
        self.conv_branch2a = nn.Conv2d(channels, middle, 3, stride, padding=first, dilation=first, bias=False)
        self.bn_branch2b1 = nn.BatchNorm2d(middle)
        self.conv_branch2b1 = nn.Conv2d(middle, out, 3, padding=second, dilation=second, bias=False)
        self.keeps_shape = channels == out and stride == 1
        if not self.keeps_shape:
            self.conv_branch1 = nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, x: Tensor, active: Tensor) -> Tensor:
        """Raw input and activated input to raw output."""
        branch = F.relu(self.bn_branch2b1(self.conv_branch2a(active)), inplace=True)
        sum_: Tensor = self.conv_branch2b1(branch) + (x if self.keeps_shape else self.conv_branch1(active))
        return sum_


class Bottleneck(Activated):
    """BN-ReLU-1x1-BN-ReLU-dropout-3x3-BN-ReLU-dropout-1x1 beside a 1x1 shortcut, dilated by 4.

    Args:
        channels: of the input.
        out: channels of the output; a quarter and a half of them lie between.
        dropout: share of the channels dropped before the second and the third convolution.
    """

    def __init__(self, channels: int, out: int, dropout: float) -> None:
        super().__init__(channels)
        self.conv_branch2a = nn.Conv2d(channels, out // 4, 1, bias=False)
        self.bn_branch2b1 = nn.BatchNorm2d(out // 4)
        self.conv_branch2b1 = nn.Conv2d(out // 4, out // 2, 3, padding=4, dilation=4, bias=False)
        self.bn_branch2b2 = nn.BatchNorm2d(out // 2)
        self.conv_branch2b2 = nn.Conv2d(out // 2, out, 1, bias=False)
        self.conv_branch1 = nn.Conv2d(channels, out, 1, bias=False)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor, active: Tensor) -> Tensor:
        """Raw input and activated input to raw output; the raw input is not used."""
        branch = F.relu(self.bn_branch2b1(self.conv_branch2a(active)), inplace=True)
        branch = F.relu(self.bn_branch2b2(self.conv_branch2b1(self.dropout(branch))), inplace=True)
        sum_: Tensor = self.conv_branch2b2(self.dropout(branch)) + self.conv_branch1(active)
        return sum_


class ResNet38(nn.Module):
    """ResNet-38 (model A1 of "Wider or Deeper", Wu et al. 2016) at stride 8, up to its last tap.

    Its entries are named as in ``res38d.pth``; :func:`torch_name` translates those of the authors' MXNet file.

    Args:
        taps: stages by the numbers of the papers, in rising order: 1 the stem, 2 to 5, and 6 for the features after
            both bottlenecks (``b7``, ``bn7``). A tap is what the next convolution sees: after batch norm and ReLU.

    Shapes:
        ``[B, 3, H, W]`` to ``[B, 64, H, W]``, ``[B, 128, H/2, W/2]``, ``[B, 256, H/4, W/4]``, ``[B, 512, H/8, W/8]``,
        ``[B, 1024, H/8, W/8]``, ``[B, 4096, H/8, W/8]``; odd sizes are rounded up at each halving.

    Raises:
        WrongUse: for a tap that it does not have.
    """

    def __init__(self, taps: Sequence[int] = (6,)) -> None:
        super().__init__()
        if not set(taps) <= set(_CHANNELS):
            raise WrongUse(f"encoder 'resnet38' has no taps {tuple(taps)}; it has 1 to 6")
        self.taps = tuple(taps)
        self.channels = [_CHANNELS[tap] for tap in taps]
        self.strides = [_STRIDES[tap] for tap in taps]
        self.conv1a = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self._attended: list[int] = []
        self._blocks: list[tuple[str, int]] = []  # in order, each with the tap before it; 0 for none
        channels, last = 64, taps[-1]
        for stage, (blocks, middle, out, stride, dilation) in _PLAIN.items():
            if stage > last:
                break
            self._add(f"b{stage}", stage - 1, Plain(channels, middle, out, stride, (1, dilation)))
            for block in range(1, blocks):
                self._add(f"b{stage}_{block}", 0, Plain(out, middle, out, 1, (dilation, dilation)))
            channels = out
        if last < 6:
            self._add(f"b{last + 1}", last, Activated(channels))
            return
        self._add("b6", 5, Bottleneck(1024, 2048, dropout=0.3))
        self._add("b7", 0, Bottleneck(2048, 4096, dropout=0.5))
        self.bn7 = nn.BatchNorm2d(4096)

    def _add(self, name: str, tap: int, block: Activated) -> None:
        self.add_module(name, block)
        self._blocks.append((name, tap))

    def attend(self, tap: int, module: nn.Module) -> None:
        """Put a module between the last block of a stage and the norm behind it, called ``attention`` and the tap."""
        self.add_module(f"attention{tap}", module)
        self._attended.append(tap)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Activated features at the taps."""
        x: Tensor = self.conv1a(image)
        found = []
        for name, tap in self._blocks:
            block: Any = self.get_submodule(name)
            x = self._seen(tap, x)
            active = block.activate(x)
            if tap in self.taps:
                found.append(active)
            x = block(x, active)
        if 6 in self.taps:
            found.append(F.relu(self.bn7(self._seen(6, x)), inplace=True))
        return found

    def _seen(self, tap: int, x: Tensor) -> Tensor:
        """The raw output of a stage as later ones see it."""
        seen: Tensor = self.get_submodule(f"attention{tap}")(x) if tap in self._attended else x
        return seen


def torch_name(name: str) -> str:
    """The entry of :class:`ResNet38` that an entry of the authors' MXNet file is; others keep their name.

    ``arg:res2b1_branch2a_weight`` is ``b2_1.conv_branch2a.weight``, ``aux:bn7_moving_mean`` is ``bn7.running_mean``.
    """
    match = _MXNET.fullmatch(name)
    if match is None:
        return name
    stem, kind, stage, block, branch, last, value = match.groups()
    value = _NORMS.get(value, value)
    if stem or last:
        return f"{stem or last}.{value}"
    layer = "conv" if kind == "res" else "bn"
    return f"b{stage}{f'_{block}' if block else ''}.{layer}_{branch}.{value}"
