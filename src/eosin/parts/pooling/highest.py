"""Pooling over the strongest pixels only."""

from __future__ import annotations

from torch import Tensor, nn

from eosin.core.learner import highest_mean


class HighestMean(nn.Module):
    """Mean over the highest share of the pixels of each map, at least one pixel.

    Args:
        share: in (0, 1]; 1 is global average pooling, close to 0 is the maximum.

    Raises:
        ValueError: if ``share`` is outside (0, 1].
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise ValueError(f"share {share} must be in (0, 1]")
        self.share = share

    def forward(self, maps: Tensor) -> Tensor:
        """Pool class maps ``[B, K, h, w]`` to float32 ``[B, K]``."""
        return highest_mean(maps.float(), self.share)
