"""Slides by OpenSlide: the reference, which knows every format that we read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import openslide
from PIL import Image

from eosin.slides.pixel_size import from_metadata
from eosin.slides.slide import BadSlide, Cut, Level, Pixels, Slide, cut, spans, white

BLOCK = 256
_BOUNDS = tuple(f"openslide.bounds-{what}" for what in ("x", "y", "width", "height"))


class Handle(Protocol):
    """What is used of an open slide of OpenSlide."""

    @property
    def properties(self) -> Mapping[str, str]:
        """Metadata by name."""
        ...

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        """Width and height of each level."""
        ...

    @property
    def level_downsamples(self) -> tuple[float, ...]:
        """What OpenSlide divides full-resolution coordinates by, for each level."""
        ...

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        """RGBA pixels of a level; the location is x and y at full resolution."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class ReferenceSlide(Slide):
    """A slide that OpenSlide reads.

    OpenSlide takes locations at full resolution only. Where it divides them by a number that is not whole (2.0005), a
    pixel of a level has no location of its own, and OpenSlide blends neighbours by up to half a full-resolution pixel,
    differently at each location. Such a level is therefore read in blocks that always begin at the same locations, so
    that a pixel has one value, however it is asked for.

    Attributes:
        vendor: what OpenSlide calls the format.
    """

    def __init__(self, path: Path, handle: Handle) -> None:
        self.path, self.reader, self._handle = path, "openslide", handle
        told = handle.properties
        self.vendor = told.get("openslide.vendor", "unknown")
        self.pixel_size, self.unsized = from_metadata(
            told.get("openslide.mpp-x"), told.get("openslide.mpp-y"), "openslide.mpp-x and openslide.mpp-y"
        )
        full = handle.level_dimensions[0]
        bounds = [int(told[name]) for name in _BOUNDS] if all(name in told for name in _BOUNDS) else None
        self._left, self._top = (bounds[0], bounds[1]) if bounds else (0, 0)
        levels = []
        for size in handle.level_dimensions:
            downsample = spans(full, size)
            width, height = (max(1, int(side / downsample)) for side in bounds[2:]) if bounds else size
            levels.append(Level(height, width, downsample))
        self.levels = tuple(levels)

    @property
    def bounded(self) -> bool:
        """Whether the file says which rectangle of it was scanned."""
        return (self._left, self._top) != (0, 0)

    def read(self, level: int, top: int, left: int, height: int, width: int) -> Pixels:
        """See :meth:`Slide.read`."""
        part = cut(self.levels[level], top, left, height, width)
        pixels = white(height, width)
        if part.empty:
            return pixels
        if self._handle.level_downsamples[level] == self.levels[level].downsample:
            pixels[part.place] = self._region(level, part.rows, part.columns)
        else:
            self._blocks(level, part, pixels)
        return pixels

    def close(self) -> None:
        """See :meth:`Slide.close`."""
        self._handle.close()

    def _blocks(self, level: int, part: Cut, pixels: Pixels) -> None:
        """Fill the part of a rectangle that lies on a level from blocks of it."""
        size = self.levels[level]
        for row in range(part.rows[0] // BLOCK * BLOCK, part.rows[1], BLOCK):
            for column in range(part.columns[0] // BLOCK * BLOCK, part.columns[1], BLOCK):
                rows = row, min(row + BLOCK, size.height)
                columns = column, min(column + BLOCK, size.width)
                block = self._region(level, rows, columns)
                top, bottom = max(rows[0], part.rows[0]), min(rows[1], part.rows[1])
                left, right = max(columns[0], part.columns[0]), min(columns[1], part.columns[1])
                pixels[part.within(top, bottom, left, right)] = block[
                    top - row : bottom - row, left - column : right - column
                ]

    def _region(self, level: int, rows: tuple[int, int], columns: tuple[int, int]) -> Pixels:
        """Pixels that lie on a level, on white."""
        spanned, divisor = self.levels[level].downsample, self._handle.level_downsamples[level]
        x, y = (
            round((origin / spanned + first) * divisor)
            for origin, first in ((self._left, columns[0]), (self._top, rows[0]))
        )
        size = columns[1] - columns[0], rows[1] - rows[0]
        try:
            image = self._handle.read_region((x, y), level, size)
        except openslide.OpenSlideError as error:
            raise BadSlide(f"{self.path}: level {level} at x {x}, y {y} cannot be read ({error})") from None
        return on_white(image)


def on_white(image: Image.Image) -> Pixels:
    """RGBA pixels (colours not multiplied by alpha) on white, uint8 ``[H, W, 3]``."""
    alpha = image.getchannel("A")
    if alpha.getextrema()[0] == 255:
        return np.asarray(image.convert("RGB"))
    ground = Image.new("RGB", image.size, "white")
    ground.paste(image.convert("RGB"), mask=alpha)
    return np.asarray(ground)
