"""Maps of classes as large as slides: tiled TIFF files of indices, of which none may be mixed of others."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from threading import Lock
from typing import Self

import numpy as np
from tifffile import TiffFile, TiffFileError, TiffPage

from eosin.slides.slide import BadSlide, Level, Pixels


class SlideMap:
    """An open map of 8-bit values; may be read from several threads, and ``with`` closes it.

    Attributes:
        path: the file.
        levels: from full resolution to the coarsest.

    Raises:
        BadSlide: if the file is missing, damaged, not tiled or holds something other than one 8-bit value per pixel.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, Lock()
        try:
            self._tiff = TiffFile(path)
        except FileNotFoundError:
            raise BadSlide(f"{path}: no such file; correct the path") from None
        except (TiffFileError, OSError, ValueError) as error:
            raise BadSlide(f"{path}: no TIFF file, or damaged ({error}); copy it again from its source") from None
        try:
            self._pages = [page for page in self._tiff.pages if isinstance(page, TiffPage)]
            self.levels = tuple(self._level(page) for page in self._pages)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._tiff.close()

    def at(self, top: int, left: int, height: int, width: int, scale: float) -> Pixels:
        """The values at the centres of the pixels of a rectangle.

        Args:
            top: first row, in pixels of ``scale``.
            left: first column, likewise.
            height: rows.
            width: columns.
            scale: full-resolution pixels per pixel, at least 1.

        Returns:
            uint8 ``[height, width]``; 0 outside the map. Read from the coarsest level that is not coarser than asked.

        Raises:
            BadSlide: if values cannot be decoded.
        """
        index = max(k for k, level in enumerate(self.levels) if level.downsample <= max(1.0, scale))
        downsample = self.levels[index].downsample
        rows, columns = (
            np.floor((start + np.arange(count) + 0.5) * scale / downsample).astype(np.int64)
            for start, count in ((top, height), (left, width))
        )
        first = int(rows[0]), int(columns[0])
        values = self._read(index, *first, int(rows[-1]) - first[0] + 1, int(columns[-1]) - first[1] + 1)
        return np.ascontiguousarray(values[np.ix_(rows - first[0], columns - first[1])])

    def _level(self, page: TiffPage) -> Level:
        if page.dtype != np.uint8 or page.samplesperpixel != 1 or not page.is_tiled:
            kind = f"{page.samplesperpixel} x {page.dtype}{'' if page.is_tiled else ' without tiles'}"
            raise BadSlide(f"{self.path}: holds {kind}; a map is a tiled TIFF with one 8-bit value per pixel")
        return Level(page.imagelength, page.imagewidth, self._pages[0].imagewidth / page.imagewidth)

    def _read(self, index: int, top: int, left: int, height: int, width: int) -> Pixels:
        page, values = self._pages[index], np.zeros((height, width), np.uint8)
        across = ceil(page.imagewidth / page.tilewidth)
        last = min(top + height, page.imagelength) - 1, min(left + width, page.imagewidth) - 1
        for row in range(max(0, top) // page.tilelength, last[0] // page.tilelength + 1):
            for column in range(max(0, left) // page.tilewidth, last[1] // page.tilewidth + 1):
                tile = self._tile(page, row * across + column)
                if tile is not None:
                    _paste(values, tile, row * page.tilelength - top, column * page.tilewidth - left)
        return values

    def _tile(self, page: TiffPage, number: int) -> Pixels | None:
        """One tile, uint8 ``[h, w]``; None where the file leaves it out."""
        if page.databytecounts[number] == 0:
            return None
        with self._lock:
            self._tiff.filehandle.seek(page.dataoffsets[number])
            data = self._tiff.filehandle.read(page.databytecounts[number])
        try:
            decoded = page.decode(data, number)[0]
        except (RuntimeError, ValueError, TypeError, IndexError, OSError) as error:  # imagecodecs' are RuntimeErrors
            what = " ".join(str(error).split())
            raise BadSlide(
                f"{self.path}: tile {number} is damaged ({what:.60}); copy it again from its source"
            ) from None
        return None if decoded is None else np.asarray(decoded, np.uint8).reshape(decoded.shape[-3:-1])


def _paste(values: Pixels, tile: Pixels, top: int, left: int) -> None:
    """Put a tile where it lies; what is outside is cut off."""
    begin = max(0, -top), max(0, -left)
    end = min(tile.shape[0], values.shape[0] - top), min(tile.shape[1], values.shape[1] - left)
    if begin[0] < end[0] and begin[1] < end[1]:
        place = slice(top + begin[0], top + end[0]), slice(left + begin[1], left + end[1])
        values[place] = tile[begin[0] : end[0], begin[1] : end[1]]
