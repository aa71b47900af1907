"""Tiles of a TIFF read at their positions and decoded by tifffile, at several times the rate of OpenSlide.

OpenSlide opens the slide all the same: it says what the levels are, and it reads what is not known here for certain.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from struct import error as StructError
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import COMPRESSION, PHOTOMETRIC, TiffFileError, TiffPage

from eosin.slides.reference import ReferenceSlide
from eosin.slides.slide import BadSlide, Pixels, Slide, cut, white
from eosin.slides.tiles import Memory, Positioned

KNOWN = (
    COMPRESSION.NONE,
    COMPRESSION.LZW,
    COMPRESSION.ADOBE_DEFLATE,
    COMPRESSION.DEFLATE,
    COMPRESSION.JPEG,
    COMPRESSION.APERIO_JP2000_RGB,
)
"""Compressions that OpenSlide and tifffile decode to the same pixels."""

# What tifffile warns of is told here as an error, in one line; without a handler Python prints the warning besides.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_DAMAGED = (TiffFileError, StructError, ValueError, RuntimeError, TypeError, IndexError, KeyError, OverflowError)


@dataclass(frozen=True, slots=True)
class Tiled:
    """The tiles of one level: their size, how many stand side by side, where they lie, and what decodes them.

    ``offsets`` and ``counts`` are int64 ``[tiles]``, in bytes; a tile of 0 bytes is not stored.
    """

    height: int
    width: int
    across: int
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    decode: Callable[..., Any]
    tables: bytes | None


class TiffSlide(Slide):
    """A slide whose tiles are decoded directly; one that is not stored is what OpenSlide has there."""

    def __init__(self, reference: ReferenceSlide, tiled: list[Tiled]) -> None:
        self.path, self.levels = reference.path, reference.levels
        self.pixel_size, self.unsized = reference.pixel_size, reference.unsized
        self.reader = "tifffile"
        self._reference, self._tiled = reference, tiled
        self._file, self._memory = Positioned(self.path), Memory()

    def read(self, level: int, top: int, left: int, height: int, width: int) -> Pixels:
        """See :meth:`Slide.read`."""
        size, tiled = self.levels[level], self._tiled[level]
        part = cut(size, top, left, height, width)
        if part.empty:
            return white(height, width)
        whole = (part.rows[1] - part.rows[0], part.columns[1] - part.columns[0]) == (height, width)
        pixels = np.empty((height, width, 3), np.uint8) if whole else white(height, width)
        for row in range(part.rows[0] // tiled.height, (part.rows[1] - 1) // tiled.height + 1):
            for column in range(part.columns[0] // tiled.width, (part.columns[1] - 1) // tiled.width + 1):
                tile = self._tile(level, row, column)
                y, x = row * tiled.height, column * tiled.width
                first, last = max(y, part.rows[0]), min(y + tiled.height, part.rows[1])
                begin, end = max(x, part.columns[0]), min(x + tiled.width, part.columns[1])
                pixels[part.within(first, last, begin, end)] = tile[first - y : last - y, begin - x : end - x]
        return pixels

    def close(self) -> None:
        """See :meth:`Slide.close`."""
        self._file.close()
        self._reference.close()

    def _tile(self, level: int, row: int, column: int) -> Pixels:
        """A decoded tile, uint8 ``[tile height, tile width, 3]``; tiles that share their bytes are decoded once."""
        tiled = self._tiled[level]
        index = row * tiled.across + column
        offset, count = int(tiled.offsets[index]), int(tiled.counts[index])
        if count == 0:
            y, x = row * tiled.height, column * tiled.width
            return self._reference.read(level, y, x, tiled.height, tiled.width)
        tile = self._memory.get((level, offset))
        if tile is None:
            data = self._file.read(offset, count)
            try:
                tile = tiled.decode(data, index, jpegtables=tiled.tables)[0][0]
            except _DAMAGED as error:
                raise BadSlide(f"{self.path}: tile {index} of level {level} is damaged ({_one_line(error)})") from None
            if tile.shape != (tiled.height, tiled.width, 3):
                raise BadSlide(f"{self.path}: tile {index} of level {level} has the shape {list(tile.shape)}")
            self._memory.put((level, offset), tile)
        return tile


def has_tiles(path: Path) -> bool:
    """Whether a file is a TIFF whose first page has tiles, however damaged the rest of it is."""
    try:
        with tifffile.TiffFile(path) as file:
            return file.pages.first.is_tiled
    except (OSError, *_DAMAGED):
        return False


@contextmanager
def pages(path: Path) -> Iterator[list[TiffPage]]:
    """The pages of a TIFF file that hold tiles.

    Raises:
        BadSlide: if the file's own directory of pages is damaged, or a page lies beyond the end of the file.
    """
    try:
        with tifffile.TiffFile(path) as file:
            found = [page for page in file.pages if isinstance(page, TiffPage)]
            end = max(a + b for page in found for a, b in zip(page.dataoffsets, page.databytecounts, strict=True))
            if end > path.stat().st_size:
                raise BadSlide(f"{path}: cut short (has tiles up to byte {end}); copy it again from its source")
            yield [page for page in found if page.is_tiled]
    except _DAMAGED as error:
        raise BadSlide(f"{path}: damaged or cut short ({_one_line(error)}); copy it again from its source") from None


def direct(reference: ReferenceSlide, found: list[TiffPage]) -> list[Tiled] | str:
    """How the tiles of each level are read directly, or in words why that is left to OpenSlide."""
    if reference.bounded:
        return "its bounds are not those of its pages"
    tiled = []
    for level in reference.levels:
        fitting = [page for page in found if (page.imagelength, page.imagewidth) == (level.height, level.width)]
        if len(fitting) != 1:
            return f"{len(fitting)} of its pages have {level.height} x {level.width} pixels"
        if why := _unknown(fitting[0]):
            return why
        tiled.append(_tiled(fitting[0]))
    return tiled


def _unknown(page: TiffPage) -> str:
    """What of a page is not known to come out as OpenSlide has it; empty if all is."""
    jpeg = page.compression == COMPRESSION.JPEG
    rgb = page.photometric == PHOTOMETRIC.RGB
    orientation = page.tags.valueof(274, default=1)
    # tifffile takes RGB tiles with a JFIF header for YCbCr, OpenSlide goes by the tag
    checks = (
        (page.compression in KNOWN, f"compression {page.compression}"),
        (page.dtype == np.uint8 and page.bitspersample == 8, f"{page.bitspersample} bits"),
        (page.samplesperpixel == 3 and not page.extrasamples, f"{page.samplesperpixel} samples"),
        (page.planarconfig == 1, "separate planes"),
        (rgb or (jpeg and page.photometric == PHOTOMETRIC.YCBCR), f"photometric {page.photometric}"),
        (not (jpeg and rgb and page.is_jfif), "RGB tiles that call themselves JFIF"),
        (page.imagedepth == 1 and page.tiledepth == 1, "several planes in depth"),
        (page.fillorder == 1 and orientation == 1, f"fill order {page.fillorder}, orientation {orientation}"),
    )
    return ", ".join(what for fine, what in checks if not fine)


def _tiled(page: TiffPage) -> Tiled:
    return Tiled(
        height=page.tilelength,
        width=page.tilewidth,
        across=-(-page.imagewidth // page.tilewidth),
        offsets=np.array(page.dataoffsets, np.int64),
        counts=np.array(page.databytecounts, np.int64),
        decode=page.decode,
        tables=page.jpegtables,
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
