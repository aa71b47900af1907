"""Writing slides: tiled pyramidal BigTIFF that OpenSlide, tifffile, GDAL and QuPath read, from bands of rows.

Each level is a directory of its own beside the first, marked as a reduced image, because OpenSlide does not see levels
that are stored as sub-directories. Levels are made while the rows come in: of each level, only the tiles of one row of
tiles are kept, and of these only the ones that are not blank, so that memory follows the tissue and not the slide.
Tiles of one value are stored once, and every place that shows such a tile points there.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eosin.core.artifact import atomic_file
from eosin.slides.bigtiff import BigTiff, Field, Tag

Pixels = NDArray[np.uint8]

_DEFLATE, _JPEG = 8, 7
_PALETTE, _YCBCR = 3, 6
_REDUCED = 1
_CENTIMETRE = 3
_UM_PER_CM = 10_000.0
_LOOK_ROWS = 64  # of a band, at a time, for blank pixels


def write_pyramid(
    path: Path,
    bands: Iterable[Pixels],
    height: int,
    width: int,
    mpp: float,
    palette: Pixels | None = None,
    blank: int | tuple[int, int, int] = 255,
    tile: int = 256,
    quality: int = 90,
) -> None:
    """Write a slide or a class map whole or not at all.

    Needs at most the memory of two full rows of tiles, whatever the height.

    A level has half the rows and columns of the one before, rounded up; the last is a single tile. Its pixels are the
    rounded means of squares of four (RGB), or the value that most of the four have, and of equally frequent ones that
    which comes first in reading order (classes): no level holds a class that is not there.

    Args:
        path: the file to write.
        bands: uint8 ``[rows, width, 3]`` RGB or ``[rows, width]`` class indices, from top to bottom, of any number of
            rows each. A band may be overwritten when the next one is asked for.
        height: rows of all bands together.
        width: columns.
        mpp: micrometres per pixel.
        palette: uint8 ``[N, 3]``, colours of the class indices, at most 256; the rest is black. Makes a class map,
            compressed without loss; without it the bands are RGB, compressed as JPEG.
        blank: value of the empty slide. Tiles of it cost hardly any time and space.
        tile: side of the square tiles in pixels, a multiple of 16.
        quality: of JPEG, 1..95.

    Raises:
        ValueError: if the bands do not have the shape that was announced, or ``tile`` is no multiple of 16.
    """
    if tile % 16 or tile < 16:
        raise ValueError(f"tiles of {tile} pixels; TIFF wants a multiple of 16")
    if height < 1 or width < 1:
        raise ValueError(f"a slide of {height} x {width} pixels has none")
    form = _Form(tile, blank, palette, quality)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        store = _Store(BigTiff(file), form)
        levels = _levels(height, width, tile)
        for level, coarser in pairwise(levels):
            level.coarser = coarser
        done = 0
        for band in bands:
            if band.dtype != np.uint8 or band.shape[1:] != (width, *form.channels) or done + len(band) > height:
                raise ValueError(f"a band of {band.dtype} {list(band.shape)} at row {done} of {height} x {width}")
            done = _take(band, done, levels[0], store)
        if done != height:
            raise ValueError(f"the bands have {done} rows, not {height}")
        for number, level in enumerate(levels):
            store.tiff.add_directory(form.fields(level, mpp * 2**number, reduced=number > 0))


@dataclass(frozen=True, slots=True)
class _Form:
    """What all tiles of a file have in common."""

    tile: int
    blank: int | tuple[int, int, int]
    palette: Pixels | None
    quality: int

    @property
    def channels(self) -> tuple[int, ...]:
        return (3,) if self.palette is None else ()

    def empty(self) -> Pixels:
        return np.full((self.tile, self.tile, *self.channels), self.blank, np.uint8)

    def encode(self, pixels: Pixels) -> bytes:
        if self.palette is not None:
            return zlib.compress(pixels.tobytes(), 6)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=self.quality, subsampling="4:2:0")
        return buffer.getvalue()

    def halve(self, pixels: Pixels) -> Pixels:
        """Half the rows and columns of a tile, by the rules of :func:`write_pyramid`."""
        if self.palette is None:
            half = (self.tile // 2, self.tile // 2)
            return np.asarray(cv2.resize(pixels, half, interpolation=cv2.INTER_AREA), np.uint8)
        a, b, c, d = pixels[::2, ::2], pixels[::2, 1::2], pixels[1::2, ::2], pixels[1::2, 1::2]
        of_rest = np.where((b == c) | (b == d), b, np.where(c == d, c, a))
        return np.where((a == b) | (a == c) | (a == d), a, of_rest)

    def fields(self, level: _Level, mpp: float, reduced: bool) -> dict[Tag, tuple[Field, list[int]]]:
        per_cm = _UM_PER_CM / mpp
        resolution = Fraction(per_cm).limit_denominator(max(1, int((2**32 - 1) / max(per_cm, 1))))
        rational = (Field.RATIONAL, [resolution.numerator, resolution.denominator])
        channels = 3 if self.palette is None else 1
        fields = {
            Tag.KIND: (Field.LONG, [_REDUCED if reduced else 0]),
            Tag.WIDTH: (Field.LONG, [level.width]),
            Tag.HEIGHT: (Field.LONG, [level.height]),
            Tag.BITS: (Field.SHORT, [8] * channels),
            Tag.COMPRESSION: (Field.SHORT, [_JPEG if self.palette is None else _DEFLATE]),
            Tag.COLOURS: (Field.SHORT, [_YCBCR if self.palette is None else _PALETTE]),
            Tag.CHANNELS: (Field.SHORT, [channels]),
            Tag.X_RESOLUTION: rational,
            Tag.Y_RESOLUTION: rational,
            Tag.PLANES: (Field.SHORT, [1]),
            Tag.RESOLUTION_UNIT: (Field.SHORT, [_CENTIMETRE]),
            Tag.TILE_WIDTH: (Field.LONG, [self.tile]),
            Tag.TILE_HEIGHT: (Field.LONG, [self.tile]),
            Tag.OFFSETS: (Field.LONG8, level.offsets),
            Tag.BYTES: (Field.LONG, level.sizes),
        }
        if self.palette is not None:
            colours = np.zeros((256, 3), np.uint16)
            colours[: len(self.palette)] = self.palette
            fields[Tag.PALETTE] = (Field.SHORT, (257 * colours).T.ravel().tolist())  # 255 is 65535: all reds first
        return fields


@dataclass(slots=True)
class _Level:
    """A level while it is written: where its finished tiles lie, and the tiles of the row that is being filled.

    Attributes:
        height: rows.
        width: columns.
        across: tiles in a row.
        coarser: the next level, which is made of this one.
        pending: tiles of the current row that are not blank, by column.
        offsets: place of each finished tile in the file.
        sizes: its bytes.
    """

    height: int
    width: int
    across: int
    coarser: _Level | None = None
    pending: dict[int, Pixels] = field(default_factory=dict)
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    @property
    def row(self) -> int:
        """Which row of tiles is being filled."""
        return len(self.offsets) // self.across

    def tile(self, column: int, form: _Form) -> Pixels:
        """A tile of the current row, to be drawn into; blank at first."""
        if column not in self.pending:
            self.pending[column] = form.empty()
        return self.pending[column]


def _levels(height: int, width: int, tile: int) -> list[_Level]:
    levels = [_Level(height, width, -(-width // tile))]
    while max(height, width) > tile:
        height, width = (height + 1) // 2, (width + 1) // 2
        levels.append(_Level(height, width, -(-width // tile)))
    return levels


class _Store:
    """The file, and the tiles of one value that are in it already."""

    def __init__(self, tiff: BigTiff, form: _Form) -> None:
        self.tiff = tiff
        self.form = form
        self._uniform: dict[bytes, tuple[int, int]] = {}
        self._empty = form.empty()

    def put(self, pixels: Pixels | None) -> tuple[int, int]:
        """Place and bytes of a tile in the file; ``None`` is a blank one."""
        tile = self._empty if pixels is None else pixels
        if pixels is not None and (tile != tile[0, 0]).any():
            block = self.form.encode(tile)
            return self.tiff.append(block), len(block)
        value = tile[0, 0].tobytes()
        if value not in self._uniform:
            block = self.form.encode(tile)
            self._uniform[value] = self.tiff.append(block), len(block)
        return self._uniform[value]


def _take(band: Pixels, top: int, level: _Level, store: _Store) -> int:
    """Lay a band whose first row is ``top`` into the tiles of the first level; return the row after its last."""
    tile = store.form.tile
    done = 0
    while done < len(band):
        inside = (top + done) % tile
        rows = band[done : done + tile - inside]
        for column in _filled(rows, store.form):
            piece = rows[:, column * tile : (column + 1) * tile]
            level.tile(column, store.form)[inside : inside + len(rows), : piece.shape[1]] = piece
        done += len(rows)
        if (top + done) % tile == 0 or top + done == level.height:
            _finish_row(level, store)
    return top + done


def _filled(rows: Pixels, form: _Form) -> list[int]:
    """Columns of tiles in which not all pixels are blank."""
    width = rows.shape[1]
    flat = rows.reshape(len(rows), -1)
    blank = np.full((width, *form.channels), form.blank, np.uint8).ravel()
    filled = np.zeros(flat.shape[1], np.bool_)
    for first in range(0, len(rows), _LOOK_ROWS):
        filled |= (flat[first : first + _LOOK_ROWS] != blank).any(axis=0)
    starts = np.arange(0, width, form.tile) * (flat.shape[1] // width)
    return np.flatnonzero(np.logical_or.reduceat(filled, starts)).tolist()


def _finish_row(level: _Level, store: _Store) -> None:
    """Write the current row of tiles of a level, and fill half a row of the next one from it."""
    tile, row = store.form.tile, level.row
    bottom, right = level.height - row * tile, level.width - (level.across - 1) * tile
    pending, level.pending = level.pending, {}
    for column in range(level.across):
        pixels = pending.get(column)
        if pixels is not None:  # beyond the slide its last row and column go on, so that they alone decide there
            if bottom < tile:
                pixels[bottom:] = pixels[bottom - 1]
            if column == level.across - 1 and right < tile:
                pixels[:, right:] = pixels[:, right - 1 : right]
        offset, size = store.put(pixels)
        level.offsets.append(offset)
        level.sizes.append(size)
    coarser = level.coarser
    if coarser is None:
        return
    half = tile // 2
    for column, pixels in pending.items():
        y, x = half * (row % 2), half * (column % 2)
        coarser.tile(column // 2, store.form)[y : y + half, x : x + half] = store.form.halve(pixels)
    if row % 2 or bottom <= tile:
        _finish_row(coarser, store)
