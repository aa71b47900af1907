"""Global average pooling."""

from __future__ import annotations

from torch import Tensor, nn


class GAP(nn.Module):
    """Mean over all pixels: every pixel has the same say, so a small tissue is outvoted (Zhou et al., CVPR 2016)."""

    def forward(self, maps: Tensor) -> Tensor:
        """Pool class maps ``[B, K, h, w]`` to float32 ``[B, K]``."""
        return maps.float().mean((2, 3))
