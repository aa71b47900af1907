"""An image file as a slide of one level."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from eosin.slides.image import image_size, read_rgb
from eosin.slides.slide import Level, Pixels, Slide, cut, white


class ImageSlide(Slide):
    """A plain image: held in memory from the first reading on, and of unknown pixel size (what it says is for print).

    Raises:
        BadImage: when it is opened or read, as :func:`read_rgb`.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.reader = path, "image"
        self.pixel_size, self.unsized = None, "a plain image does not say it"
        self.levels = (Level(*image_size(path), 1.0),)

    def read(self, level: int, top: int, left: int, height: int, width: int) -> Pixels:
        """See :meth:`Slide.read`."""
        part = cut(self.levels[level], top, left, height, width)
        pixels = white(height, width)
        if not part.empty:
            pixels[part.place] = self._pixels[slice(*part.rows), slice(*part.columns)]
        return pixels

    def close(self) -> None:
        """Nothing is held open."""

    @cached_property
    def _pixels(self) -> Pixels:
        return read_rgb(self.path)
