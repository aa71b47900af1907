"""What is made of the maps of prototypes: one map a class, scaled, halved, and a first guess at a mask."""

from __future__ import annotations

import torch
from torch import Tensor

NOWHERE = 255  # in a mask


def averaged(maps: Tensor) -> Tensor:
    """The mean over the k prototypes of a class: ``[B, K, k, ...]`` to ``[B, K, ...]``."""
    return maps.mean(2)


def weighted(maps: Tensor) -> Tensor:
    """The sum over the k prototypes of a class, each weighed by its softmax among them: near the maximum.

    ``[B, K, k, ...]`` to ``[B, K, ...]``; (1, 2, 3) gives 2.575210.
    """
    return (maps.softmax(2) * maps).sum(2)


def stretched(maps: Tensor) -> Tensor:
    """Each map ``[..., h, w]`` from its minimum to its maximum, in 0..1; one that is the same everywhere is 0."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, 1.0)


def upper(maps: Tensor) -> Tensor:
    """Where each map ``[..., h, w]`` has at least half of its own maximum, bool."""
    return maps >= maps.amax((-2, -1), keepdim=True) / 2


def located(maps: Tensor, tags: Tensor, floor: float) -> Tensor:
    """The class of each pixel among those that its image is known to hold.

    Args:
        maps: ``[B, K, h, w]`` in 0..1.
        tags: ``[B, K]``, 1 present, 0 absent, NaN unknown.
        floor: a pixel at which no such map is above it has no class.

    Returns:
        int64 ``[B, h, w]``, 255 where there is none.
    """
    best, mask = maps.masked_fill((tags != 1)[:, :, None, None], -torch.inf).max(1)
    return mask.masked_fill(best <= floor, NOWHERE)
