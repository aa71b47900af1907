"""What a slide is to everything that reads one: pixels of its levels, its size, and how large a pixel is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


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
    slide here. Label, macro and thumbnail images are never read. May be read from several threads.

    Attributes:
        path: the file.
        levels: from full resolution (downsample 1) to the coarsest; at least one.
        pixel_size: as the file's metadata give it; None where they do not.
        reader: what reads it: ``openslide``, ``tifffile`` or ``image``.
    """

    path: Path
    levels: tuple[Level, ...]
    pixel_size: PixelSize | None
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
