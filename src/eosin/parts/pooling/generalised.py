"""Generalised-mean pooling: between the mean of all pixels and their maximum."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEAST = 1e-6  # below it ``f^r`` vanishes in float32, and with it the root's derivative is infinite


class GeneralisedMean(nn.Module):
    """``(mean f^r)^(1/r)`` over the pixels: the score of a bag from the probabilities of its pixels (SA-MIL, Swin-MIL).

    Args:
        r: 1 is the mean; the larger, the nearer to the maximum. The papers have 4.
    """

    def __init__(self, r: float = 4.0) -> None:
        super().__init__()
        self.r = r

    def forward(self, maps: Tensor) -> Tensor:
        """Pool maps ``[..., H, W]`` in 0..1 to float32 ``[...]`` in 0..1, also under autocast."""
        with torch.autocast(maps.device.type, enabled=False):
            powers: Tensor = maps.float().clamp_min(LEAST) ** self.r
            return powers.mean((-2, -1)) ** (1 / self.r)
