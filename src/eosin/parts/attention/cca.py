"""The cascaded attention of the gland method."""

from __future__ import annotations

from torch import nn

from eosin.parts.attention.criss_cross import CrissCross
from eosin.parts.attention.position import PositionAttention


class CCA(nn.Sequential):
    """Criss-cross attention, position attention, criss-cross attention (the gland method, Feng et al. 2025).

    Each has weights and a gate of its own; together ``4 C^2 + 4 C + 3`` parameters.

    Args:
        channels: C.

    Shapes:
        ``[B, C, H, W]`` to the same, of any size.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(CrissCross(channels), PositionAttention(channels), CrissCross(channels))
