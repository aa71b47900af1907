"""Which tiles of a slide are predicted: those of the grid over the whole slide that touch tissue.

Since every tile over a pixel of tissue is predicted, the blending weights over such a pixel add up to 1 as they do
where all tiles are predicted, and its probabilities do not depend on what tissue lies elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from eosin.core.tiling import mirrored, origins, stride

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]


class Source(Protocol):
    """A slide seen at one pixel size, as ``eosin.slides.scaled`` gives it.

    Attributes:
        size: rows and columns.
        scale: full-resolution pixels per pixel.
    """

    @property
    def size(self) -> tuple[int, int]: ...  # noqa: D102

    @property
    def scale(self) -> float: ...  # noqa: D102

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        """uint8 ``[height, width, 3]`` of a rectangle that lies inside; may be called from several threads."""
        ...


class Area(Protocol):
    """Where tissue is, as ``eosin.slides.tissue`` finds it.

    Attributes:
        mask: bool ``[H, W]``, a coarse map of the whole slide.
        size: rows and columns of the slide at full resolution.
    """

    @property
    def mask(self) -> Mask: ...  # noqa: D102

    @property
    def size(self) -> tuple[int, int]: ...  # noqa: D102

    def at(self, top: int, left: int, height: int, width: int, scale: float) -> Mask:
        """Bool ``[height, width]`` of a rectangle whose pixels span ``scale`` full-resolution pixels.

        What is tissue lies on the map, or within a pixel of it.
        """
        ...


@dataclass(frozen=True, slots=True)
class Grid:
    """Tiles over a slide, at the scale of the prediction.

    Attributes:
        size: rows and columns of the slide.
        tile: side of a tile; a side of the slide that is shorter is mirrored to it.
        margin: pixels at a tile's border that are trusted less.
        tops: first rows of the rows of tiles.
        lefts: first columns of the columns of tiles.
        places: int32 ``[N, 2]``, row and column in the grid of each tile that is predicted, left to right, top to
            bottom.
    """

    size: tuple[int, int]
    tile: int
    margin: int
    tops: list[int]
    lefts: list[int]
    places: NDArray[np.int32]

    @property
    def padded(self) -> tuple[int, int]:
        """Rows and columns with what is mirrored."""
        return max(self.size[0], self.tile), max(self.size[1], self.tile)

    @property
    def before(self) -> tuple[int, int]:
        """Rows and columns that are mirrored before the first."""
        return max(0, self.tile - self.size[0]) // 2, max(0, self.tile - self.size[1]) // 2

    def __len__(self) -> int:
        return len(self.places)

    def tiles(self, source: Source, start: int, stop: int) -> Pixels:
        """Read tiles, neighbours in one piece.

        Args:
            source: the slide, of this grid's size.
            start: index into ``places`` of the first.
            stop: that after the last.

        Returns:
            uint8 ``[stop - start, tile, tile, 3]``.
        """
        out = np.empty((stop - start, self.tile, self.tile, 3), np.uint8)
        for first, last in self._neighbours(start, stop):
            row, column = self.places[first]
            top, left = self.tops[row], self.lefts[column]
            right = self.lefts[self.places[last - 1, 1]] + self.tile
            height, width = min(self.tile, self.size[0]), min(right, self.size[1]) - left
            pixels = _filled(source.read(top, left, height, width), self.tile)
            for index in range(first, last):
                x = self.lefts[self.places[index, 1]] - left
                out[index - start] = pixels[:, x : x + self.tile]
        return out

    def _neighbours(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Parts of ``places[start:stop]`` that follow each other in a row of tiles."""
        part = self.places[start:stop]
        breaks = np.flatnonzero((np.diff(part[:, 0]) != 0) | (np.diff(part[:, 1]) != 1)) + 1
        ends = [0, *breaks.tolist(), stop - start]
        return ((start + a, start + b) for a, b in pairwise(ends))


def grid(size: tuple[int, int], scale: float, area: Area, tile: int, margin: int) -> Grid:
    """Lay tiles over a slide and keep those that touch a pixel of tissue.

    Args:
        size: rows and columns of the slide at the scale of the prediction.
        scale: full-resolution pixels per pixel of the prediction.
        area: where tissue is.
        tile: side of a tile.
        margin: as in ``eosin.core.tiling``.
    """
    step = stride(tile, margin)
    height, width = size
    tops, lefts = origins(height, tile, step), origins(width, tile, step)
    rows, columns = min(tile, height), min(tile, width)
    kept = []
    for row, top in enumerate(tops):
        for column in _near(area, scale, top, rows, lefts, columns):
            if area.at(top, lefts[column], rows, columns, scale).any():
                kept.append((row, column))
    return Grid(size, tile, margin, tops, lefts, np.array(kept, np.int32).reshape(-1, 2))


def _near(area: Area, scale: float, top: int, rows: int, lefts: list[int], columns: int) -> list[int]:
    """Those columns of a row of tiles that have tissue on the coarse map, or within a pixel of it."""
    height, width = area.mask.shape
    first, last = _span(np.array([top]), rows, scale * height / area.size[0], height)
    tissue = area.mask[first[0] : last[0]].any(axis=0)
    count = np.concatenate([[0], np.cumsum(tissue)])
    first, last = _span(np.array(lefts), columns, scale * width / area.size[1], width)
    near: list[int] = np.flatnonzero(count[last] > count[first]).tolist()
    return near


def _span(starts: NDArray[np.int64], length: int, factor: float, most: int) -> tuple[NDArray[np.int64], ...]:
    first, last = np.floor(starts * factor) - 1, np.ceil((starts + length) * factor) + 1
    return first.clip(0, most).astype(np.int64), last.clip(0, most).astype(np.int64)


def _filled(pixels: Pixels, tile: int) -> Pixels:
    """Mirror sides that are shorter than a tile."""
    for axis in (0, 1):
        if pixels.shape[axis] < tile:
            pixels = pixels.take(mirrored(pixels.shape[axis], tile)[1].numpy(), axis)
    return pixels
