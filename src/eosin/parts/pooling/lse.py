"""Log-sum-exp pooling."""

from __future__ import annotations

import math

from torch import Tensor, nn


class LogSumExp(nn.Module):
    """A smooth way between mean and maximum: log(mean(exp(r x))) / r (Pinheiro and Collobert, CVPR 2015).

    Args:
        sharpness: r > 0; towards 0 it is the mean, towards infinity the maximum.

    Raises:
        ValueError: if ``sharpness`` is not a positive number.
    """

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        if not (sharpness > 0 and math.isfinite(sharpness)):
            raise ValueError(f"sharpness {sharpness} must be positive")
        self.sharpness = sharpness

    def forward(self, maps: Tensor) -> Tensor:
        """Pool class maps ``[B, K, h, w]`` to float32 ``[B, K]``, without overflow."""
        scaled = self.sharpness * maps.float().flatten(2)
        return (scaled.logsumexp(2) - math.log(scaled.shape[2])) / self.sharpness
