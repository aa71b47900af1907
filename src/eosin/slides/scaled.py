"""A slide seen at one pixel size. What is asked for is micrometres per pixel, never a level."""

from __future__ import annotations

from math import ceil, floor

import numpy as np
from PIL import Image

from eosin.core.errors import WrongUse
from eosin.slides.slide import BadSlide, Level, Pixels, PixelSize, Slide, cut, white

AGREE = 0.02
"""A level whose pixel size is within this share of the asked one is taken as it is."""

STEP = 2048
"""Factors are whole multiples of 1 / STEP, so that all positions below ``LARGEST`` are exact in float32."""

WINDOW = Image.Resampling.HAMMING

LARGEST = 4096
"""Pixels of a level that are resampled at once, along a side."""


class Scaled:
    """A slide at the asked micrometres per pixel: the nearest finer level, resampled.

    Resampling is Pillow's with its Hamming window, which weighs a factor of 2 nearly as scanners do (the mean of four
    pixels) and is smooth at any factor. Pillow keeps positions in float32. The factor is rounded to a multiple of
    1/2048 (by at most 0.03 %), which makes them exact: a piece is, bit by bit, that piece of the whole, wherever it is
    cut. ``mpp`` and ``scale`` say what the factor really is.

    Attributes:
        size: rows and columns at that pixel size.
        mpp: micrometres per pixel of what is read; the level's own where it agrees with the asked one to 2 %.
        scale: full-resolution pixels that one read pixel spans.
    """

    def __init__(self, slide: Slide, mpp: float, pixel_size: PixelSize) -> None:
        if not mpp > 0:
            raise WrongUse(f"{mpp:g} um per pixel: must be above 0")
        self.slide = slide
        self._index = _finer(slide.levels, mpp / pixel_size.mpp)
        level = slide.levels[self._index]
        factor = mpp / pixel_size.mpp / level.downsample
        self._factor = 1.0 if abs(factor - 1) <= AGREE else max(1, round(factor * STEP)) / STEP
        self.scale = self._factor * level.downsample
        self.mpp = self.scale * pixel_size.mpp
        self.size = int(level.height / self._factor), int(level.width / self._factor)
        if not all(self.size):
            raise BadSlide(f"{slide.path}: {level.height} x {level.width} pixels are less than one at {mpp:g} um")

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        """Read a rectangle, in pixels of this size; it may reach beyond the slide.

        Returns:
            uint8 ``[height, width, 3]`` RGB; white outside the slide.

        Raises:
            BadSlide: if pixels cannot be decoded.
        """
        if self._factor == 1:
            return self.slide.read(self._index, top, left, height, width)
        part = cut(Level(*self.size, self.scale), top, left, height, width)
        pixels = white(height, width)
        side = max(1, int(LARGEST / self._factor))
        for row in range(*part.rows, side):
            for column in range(*part.columns, side):
                bottom, right = min(row + side, part.rows[1]), min(column + side, part.columns[1])
                pixels[part.within(row, bottom, column, right)] = self._piece((row, bottom), (column, right))
        return pixels

    def _piece(self, rows: tuple[int, int], columns: tuple[int, int]) -> Pixels:
        """Resample a rectangle that lies within."""
        level = self.slide.levels[self._index]
        top, bottom = self._context(rows, level.height)
        left, right = self._context(columns, level.width)
        image = Image.fromarray(self.slide.read(self._index, top, left, bottom - top, right - left))
        wide, high = columns[1] - columns[0], rows[1] - rows[0]
        begin, end = (edge * self._factor - left for edge in columns)
        first, last = (edge * self._factor - top for edge in rows)
        # one side after the other: Pillow would begin with the other side where a piece is narrow, and round otherwise
        image = image.resize((wide, image.height), WINDOW, box=(begin, 0, end, image.height))
        return np.asarray(image.resize((wide, high), WINDOW, box=(0, first, wide, last)))

    def _context(self, span: tuple[int, int], size: int) -> tuple[int, int]:
        """First and last pixel of the level that has a say in these pixels, and one more."""
        reach = max(1.0, self._factor)
        return max(0, floor(span[0] * self._factor - reach) - 1), min(size, ceil(span[1] * self._factor + reach) + 1)


def _finer(levels: tuple[Level, ...], wanted: float) -> int:
    """The coarsest level that is not coarser than ``wanted`` full-resolution pixels per pixel, to 2 %; else the first.

    ``wanted`` below 1 is finer than the slide, which is then enlarged.
    """
    return max((i for i, level in enumerate(levels) if level.downsample <= wanted * (1 + AGREE)), default=0)
