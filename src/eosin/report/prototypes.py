"""What the prototypes of a class are worth, by the maps that a learner showed of them: coverage and overlap."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

VIEW = re.compile(r"prototype \d+")


@dataclass(frozen=True, slots=True)
class Looks:
    """What the prototypes of one class look at in one image.

    Attributes:
        covered: share of the class's pixels at which at least one of its maps is in its upper half.
        each: the same of a single map, the mean over them.
        overlap: mean over pairs of maps of the IoU of their upper halves in the whole image; NaN for one alone.
    """

    covered: float
    each: float
    overlap: float


def looks(maps: NDArray[Any], truth: NDArray[np.bool_]) -> Looks:
    """Measure the maps of the prototypes of a class in an image.

    A map is scaled from its minimum to its maximum; its upper half is where it is at least 1/2. A map that is the same
    everywhere has none: it shows nothing.

    Args:
        maps: signed, ``[k, h, w]``.
        truth: where the class is, bool ``[h, w]``, at one pixel at least.
    """
    values = np.asarray(maps, np.float32)
    low, high = values.min((1, 2), keepdims=True), values.max((1, 2), keepdims=True)
    upper = (values >= (low + high) / 2) & (high > low)
    shares = [float((a & b).sum() / max(1, (a | b).sum())) for a, b in combinations(upper, 2)]
    return Looks(
        covered=float(upper.any(0)[truth].mean()),
        each=float(upper[:, truth].mean()),
        overlap=float(np.mean(shares)) if shares else float("nan"),
    )


def looks_at(views: Mapping[str, NDArray[Any]], mask: NDArray[np.uint8]) -> dict[int, Looks]:
    """What the prototypes among the kept views of an item look at, for each class that its mask ``[H, W]`` holds.

    Truth is taken at the middle of each cell of the maps.
    """
    maps = prototypes_of(views)
    rows, columns = (
        (2 * np.arange(cells) + 1) * side // (2 * cells) for cells, side in zip(maps.shape[2:], mask.shape, strict=True)
    )
    here = mask[rows[:, None], columns]
    return {k: looks(own, here == k) for k, own in enumerate(maps) if (here == k).any()}


def prototypes_of(views: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """The maps of all prototypes, ``[K, k, h, w]``, among the kept views of an item; ``k = 0`` if there is none."""
    found = [view for name, view in views.items() if VIEW.fullmatch(name)]
    return np.stack(found, 1) if found else np.zeros((0, 0, 1, 1), np.float32)
