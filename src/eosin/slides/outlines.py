"""Drawn outlines and the pixels in them, on any grid. No torch, no geometry library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eosin.core.classes import Colour

Ring = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """One annotation of a class.

    Attributes:
        name: of the class.
        colour: of the class as 8-bit RGB, or None where the file has none.
        polygons: each one ring or more, float64 ``[N, 2]`` of (x, y) in full-resolution pixels from the slide's top
            left; the first ring is the outer one, the others are holes. Rings close themselves.
        box: left, top, right, bottom.
        area: in full-resolution pixels, without the holes.
    """

    name: str
    colour: Colour | None
    polygons: tuple[tuple[Ring, ...], ...]
    box: tuple[float, float, float, float] = field(init=False)
    area: float = field(init=False)
    _edges: tuple[NDArray[np.float64], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        corners = np.concatenate([rings[0] for rings in self.polygons])
        low, high = corners.min(0), corners.max(0)
        object.__setattr__(self, "box", (float(low[0]), float(low[1]), float(high[0]), float(high[1])))
        area = sum(2 * _area(rings[0]) - sum(_area(ring) for ring in rings) for rings in self.polygons)
        object.__setattr__(self, "area", float(area))
        object.__setattr__(self, "_edges", tuple(_downward(rings) for rings in self.polygons))

    def pixels(self, top: int, left: int, height: int, width: int, scale: float) -> NDArray[np.bool_]:
        """Which pixels of a rectangle lie inside: those whose centre does.

        A centre on a left or upper edge is inside, one on a right or lower edge is not, so that neighbours share no
        pixel and leave none out.

        Args:
            top: first row, in pixels of ``scale``.
            left: first column, likewise.
            height: rows.
            width: columns.
            scale: full-resolution pixels per pixel.

        Returns:
            bool ``[height, width]``.
        """
        inside = np.zeros((height, width), np.bool_)
        for edges in self._edges:
            near = edges[:, (edges[1] < (top + height) * scale) & (edges[3] > top * scale)]
            if near.size:
                inside |= _inside(near, top, left, height, width, scale)
        return inside


def _downward(rings: Sequence[Ring]) -> NDArray[np.float64]:
    """The edges of rings, ``[4, E]``: x and y of the upper end and of the lower one.

    All are told from above, so that two outlines with a common edge agree on which pixels it parts.
    """
    begins = np.concatenate(rings)
    ends = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    down = (begins[:, 1] < ends[:, 1])[:, None]
    upper, lower = np.where(down, begins, ends), np.where(down, ends, begins)
    return np.ascontiguousarray(np.concatenate([upper.T, lower.T]))


def _inside(
    edges: NDArray[np.float64], top: int, left: int, height: int, width: int, scale: float
) -> NDArray[np.bool_]:
    """The even-odd rule along each row of pixel centres: every edge that is crossed turns outside into inside."""
    corner = np.array([left + 0.5, top + 0.5, left + 0.5, top + 0.5])[:, None]
    x0, y0, x1, y1 = edges / scale - corner  # in pixels; centres are whole numbers
    first = np.clip(np.ceil(y0), 0, height).astype(np.int64)
    counts = np.clip(np.ceil(y1), 0, height).astype(np.int64) - first
    edge = np.repeat(np.arange(len(counts)), counts)
    rows = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    with np.errstate(invalid="ignore", divide="ignore"):  # level edges, which cross no row
        slope = (x1 - x0) / (y1 - y0)
    x = x0[edge] + (rows - y0[edge]) * slope[edge]
    columns = np.clip(np.ceil(x), 0, width).astype(np.int64)
    turns = np.bincount(rows * (width + 1) + columns, minlength=height * (width + 1)).reshape(height, width + 1)
    return np.asarray(np.cumsum(turns[:, :width], axis=1) % 2 == 1, np.bool_)


def _area(ring: Ring) -> float:
    """The shoelace formula."""
    x, y = (ring - ring[0]).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
