"""Multi-scale pooling of class maps, signed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MPFP(nn.Module):
    """A pyramid of pooled class maps, fused, says where the maps count (the gland method, Feng et al. 2025).

    Level ``P_t`` is the maps ``F`` averaged to ``t x t`` cells and resized back, and ``P'`` is what the levels are
    fused to, the coarsest first. The score of a class is (equation 9), with ``r = relu`` and means over all pixels,

    ``x = mean r(P') r(F) - mean r(-P') r(-F)``.

    A pixel counts as far as the regions around it are of its sign, and what speaks against a class counts, too.

    Args:
        classes: K.
        scales: cells a side of each level, from coarse to fine.
        fusion: ``fused``: two levels at a time by :class:`Fusion`; ``average``: the mean of all levels.
        score: ``products``: equation 9; ``mean``: of ``P'`` over all pixels, as the first released code had it.

    Shapes:
        maps ``[B, K, h, w]`` of any size to ``[B, K]``.
    """

    def __init__(
        self,
        classes: int,
        scales: Sequence[int] = (2, 4, 8, 16),
        fusion: Literal["fused", "average"] = "fused",
        score: Literal["products", "mean"] = "products",
    ) -> None:
        super().__init__()
        self.score = score
        self.scales = tuple(scales)
        count = len(self.scales) - 1 if fusion == "fused" else 0
        self.fusions = nn.ModuleList(Fusion(classes) for _ in range(count))

    def forward(self, maps: Tensor) -> Tensor:
        """Scores float32 ``[B, K]``."""
        with torch.autocast(maps.device.type, enabled=False):
            maps = maps.float()
            fused = self.fused(maps)
            if self.score == "mean":
                return fused.mean((2, 3))
            return (fused.relu() * maps.relu() - (-fused).relu() * (-maps).relu()).mean((2, 3))

    def levels(self, maps: Tensor) -> list[Tensor]:
        """The levels of the pyramid, from coarse to fine, float32 ``[B, K, h, w]`` each."""
        height, width = maps.shape[2:]
        with torch.autocast(maps.device.type, enabled=False):
            maps = maps.float()
            return [_pooling(height, cells, maps).T @ maps @ _pooling(width, cells, maps) for cells in self.scales]

    def fused(self, maps: Tensor) -> Tensor:
        """The pyramid as one map per class, float32 ``[B, K, h, w]``."""
        with torch.autocast(maps.device.type, enabled=False):
            levels = self.levels(maps)
            if not self.fusions:
                return torch.stack(levels).mean(0)
            fused = levels[0]
            for fusion, finer in zip(self.fusions, levels[1:], strict=True):
                fused = fusion(fused, finer)
            return fused


class Fusion(nn.Module):
    """Joins a coarse and a fine map, what is positive and what is negative each by weights of its own.

    ``(r(x) p_1 + r(y) p_2) / 2 - (r(-x) n_1 + r(-y) n_2) / 2`` with ``p = sigmoid(Conv3x3([r(x), r(y)]))`` and ``n =
    sigmoid(Conv3x3([r(-x), r(-y)]))``, one map of weights for each input, the same for all classes; ``72 K``
    parameters.

    Args:
        classes: K.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.positive = nn.Conv2d(2 * classes, 2, 3, padding=1, bias=False)
        self.negative = nn.Conv2d(2 * classes, 2, 3, padding=1, bias=False)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """A map ``[B, K, h, w]`` of two such."""
        return self._half(self.positive, coarse, fine) - self._half(self.negative, -coarse, -fine)

    def _half(self, conv: nn.Module, coarse: Tensor, fine: Tensor) -> Tensor:
        coarse, fine = coarse.relu(), fine.relu()
        weights: Tensor = conv(torch.cat([coarse, fine], 1)).sigmoid()
        return (coarse * weights[:, :1] + fine * weights[:, 1:]) / 2


def _pooling(length: int, cells: int, like: Tensor) -> Tensor:
    """The matrix ``[length, length]`` by which an axis is averaged adaptively to cells and resized back linearly.

    Both are linear and separable, so that two products do what pooling and bilinear resizing do, and on a GPU they add
    up in the same order every time.
    """
    pooled = F.adaptive_avg_pool1d(torch.eye(length, device=like.device)[None], cells)
    return F.interpolate(pooled, size=length, mode="linear", align_corners=False)[0]
