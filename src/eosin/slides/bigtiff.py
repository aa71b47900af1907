"""A BigTIFF file written front to back: pixels as they come, the directories that say where they lie at the end."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import BinaryIO

import numpy as np

_FIRST_DIRECTORY = 8  # where the header says how far in the first directory is


class Tag(IntEnum):
    """The fields of a directory that are used here, by their numbers in TIFF 6.0."""

    KIND = 254
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    COLOURS = 262
    CHANNELS = 277
    X_RESOLUTION = 282
    Y_RESOLUTION = 283
    PLANES = 284
    RESOLUTION_UNIT = 296
    PALETTE = 320
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    OFFSETS = 324
    BYTES = 325


class Field(IntEnum):
    """How the values of a field are stored."""

    SHORT = 3
    LONG = 4
    RATIONAL = 5
    LONG8 = 16


_STORED = {Field.SHORT: "<u2", Field.LONG: "<u4", Field.RATIONAL: "<u4", Field.LONG8: "<u8"}


class BigTiff:
    """Writes blocks and directories one after the other into a file that is open for binary writing and empty."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._end = file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        self._link = _FIRST_DIRECTORY

    def append(self, block: bytes) -> int:
        """Write a block at an even place and return that place."""
        if self._end % 2:
            self._end += self._file.write(b"\0")
        place = self._end
        self._end += self._file.write(block)
        return place

    def add_directory(self, fields: Mapping[Tag, tuple[Field, Sequence[int]]]) -> None:
        """Write a directory and link it to the one before.

        Args:
            fields: the values of each field; a rational is its numerator followed by its denominator.
        """
        entries = []
        for tag, (field, values) in sorted(fields.items()):
            stored = np.asarray(values, _STORED[field]).tobytes()
            count = len(values) // 2 if field is Field.RATIONAL else len(values)
            if len(stored) > 8:
                stored = struct.pack("<Q", self.append(stored))
            entries.append(struct.pack("<HHQ8s", tag, field, count, stored))
        place = self.append(struct.pack("<Q", len(entries)) + b"".join(entries) + bytes(8))
        self._file.seek(self._link)
        self._file.write(struct.pack("<Q", place))
        self._file.seek(self._end)
        self._link = self._end - 8
