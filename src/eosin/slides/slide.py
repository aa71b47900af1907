"""What a slide is to everything that reads one: pixels of its levels, its size, and how large a pixel is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from eosin.core.errors import EosinError

Pixels = NDArray[np.uint8]

ENDINGS = (".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".czi", ".dcm", ".qptiff")
"""Endings of files that are slides and nothing else; TIFF files are looked into."""


class BadSlide(EosinError):
    """A slide that cannot be read, or of which it is not known how large its pixels are."""


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of a slide: its rows and columns, and how many full-resolution pixels one of its pixels spans."""

    height: int
    width: int
    downsample: float


@dataclass(frozen=True, slots=True)
class PixelSize:
    """Micrometres per pixel at full resolution, and where that is known from, as a reader of the result is told it."""

    mpp: float
    source: str


class Slide(Protocol):
    """An open slide. All coordinates begin at the top left of the picture that QuPath shows.

    That is the rectangle of ``openslide.bounds-*`` where a file has one; the empty margin around it is not part of the
    slide here. Label, macro and thumbnail images are never read. May be read from several threads; ``with`` closes it.

    Attributes:
        path: the file.
        levels: from full resolution (downsample 1) to the coarsest; at least one.
        pixel_size: as the file's metadata give it; None where they do not.
        unsized: why the metadata give no pixel size; empty where they do.
        reader: what reads it: ``openslide``, ``tifffile`` or ``image``.
    """

    path: Path
    levels: tuple[Level, ...]
    pixel_size: PixelSize | None
    unsized: str
    reader: str

    def read(self, level: int, top: int, left: int, height: int, width: int) -> Pixels:
        """Read a rectangle of a level.

        Args:
            level: index into ``levels``.
            top: first row, in pixels of that level; may lie outside.
            left: first column, likewise.
            height: rows, at least 1.
            width: columns, at least 1.

        Returns:
            uint8 ``[height, width, 3]`` RGB; white where the slide has no pixels.

        Raises:
            BadSlide: if pixels cannot be decoded.
        """
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Cut:
    """The part of a rectangle that lies on a level: rows and columns of the level, and where they go in the rectangle.

    ``rows`` and ``columns`` are (first, one past the last); the rectangle begins at ``top`` and ``left`` of the level.
    """

    top: int
    left: int
    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def place(self) -> tuple[slice, slice]:
        """The part in the rectangle's own rows and columns."""
        return self.within(*self.rows, *self.columns)

    @property
    def empty(self) -> bool:
        """Whether nothing of the rectangle lies on the level."""
        return self.rows[0] >= self.rows[1] or self.columns[0] >= self.columns[1]

    def within(self, top: int, bottom: int, left: int, right: int) -> tuple[slice, slice]:
        """Rows and columns of the level as rows and columns of the rectangle."""
        return slice(top - self.top, bottom - self.top), slice(left - self.left, right - self.left)


def cut(level: Level, top: int, left: int, height: int, width: int) -> Cut:
    """Which part of a rectangle lies on a level.

    Raises:
        ValueError: for a rectangle without pixels.
    """
    if height < 1 or width < 1:
        raise ValueError(f"a rectangle of {height} x {width} pixels has none")
    rows = max(0, top), min(level.height, top + height)
    return Cut(top, left, rows, (max(0, left), min(level.width, left + width)))


def white(height: int, width: int) -> Pixels:
    """An empty piece of slide, uint8 ``[height, width, 3]``."""
    return np.full((height, width, 3), 255, np.uint8)


def spans(full: tuple[int, int], size: tuple[int, int]) -> float:
    """How many full-resolution pixels a pixel of a level spans, from the sizes of both (in any one order of sides).

    Pyramids halve, and drop what is left over at the rim: 4443 pixels become 2221, each of which still spans 2 and not
    2.0005. So this is the power of two, or else the whole number, that explains both sides to less than a pixel, and
    only else the mean of the two ratios.
    """
    mean = sum(a / b for a, b in zip(full, size, strict=True)) / 2
    for whole in (2 ** round(np.log2(mean)), round(mean)):
        if whole >= 1 and all(abs(a - whole * b) < whole for a, b in zip(full, size, strict=True)):
            return float(whole)
    return mean
