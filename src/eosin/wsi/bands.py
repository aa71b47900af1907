"""Finished rows of a slide's prediction on disk, one file a band, of which only the columns with tissue take space.

A file is one line of JSON and then, for each piece that it names, the classes and the confidence of its columns,
compressed with zlib. It is written aside and renamed, so what is there is whole.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosin.core.artifact import write_bytes
from eosin.core.errors import EosinError

Pixels = NDArray[np.uint8]

OUTSIDE = 255
"""The class of pixels outside tissue."""

_FORMAT = "eosin band 1"
_ENDING = ".band"


@dataclass(frozen=True, slots=True)
class Piece:
    """Columns of a band from ``left`` on: ``classes`` and ``confidence``, uint8 ``[rows, columns]`` each."""

    left: int
    classes: Pixels
    confidence: Pixels


@dataclass(frozen=True, slots=True)
class Band:
    """Whole rows of a slide at the scale of the prediction.

    Attributes:
        top: the first row.
        classes: uint8 ``[rows, width]``, index of the most probable class; 255 outside tissue.
        confidence: uint8 ``[rows, width]``, 255 times the largest probability, rounded; 0 outside tissue.
    """

    top: int
    classes: Pixels
    confidence: Pixels


class Bands:
    """The bands of a slide from top to bottom, which cover every row once.

    Example:
        >>> bands = Bands.open(folder)
        >>> for band in bands:
        ...     print(band.top, band.classes.shape)

    Attributes:
        height: rows of the slide.
        width: columns of the slide.
    """

    def __init__(self, files: Sequence[Path], height: int, width: int) -> None:
        self.height, self.width = height, width
        self._files = tuple(files)

    @classmethod
    def open(cls, folder: Path) -> Bands:
        """Open the bands of a finished slide.

        Raises:
            EosinError: if rows are missing, or a file is not a band.
        """
        files, heads = [], []
        for path in sorted(folder.glob(f"*{_ENDING}")):
            files.append(path)
            with path.open("rb") as file:
                heads.append(_head(path, file.readline()))
        next_row = 0
        for path, head in zip(files, heads, strict=True):
            if head["top"] != next_row or head["size"] != heads[0]["size"]:
                raise EosinError(f"{path}: does not follow row {next_row}; delete {folder} and predict the slide again")
            next_row += head["rows"]
        if not heads or next_row != heads[0]["size"][0]:
            raise EosinError(f"{folder}: rows from {next_row} on are missing; predict the slide again")
        return cls(files, *heads[0]["size"])

    def __iter__(self) -> Iterator[Band]:
        """Read one band after the other; each is new memory."""
        return map(read_band, self._files)


def write_band(folder: Path, top: int, rows: int, size: tuple[int, int], pieces: Sequence[Piece]) -> Path:
    """Write a band, whole or not at all; the same values give the same bytes.

    Args:
        folder: where the slide's bands are.
        top: the first row.
        rows: how many.
        size: rows and columns of the slide.
        pieces: the columns with tissue, from left to right, none of them in two pieces.

    Returns:
        The file.

    Raises:
        ValueError: if a piece does not fit, or begins before the end of the one before.
    """
    end, parts = 0, []
    for piece in pieces:
        columns = piece.classes.shape[1]
        if piece.classes.shape != (rows, columns) or piece.confidence.shape != (rows, columns):
            raise ValueError(f"a piece of {piece.classes.shape} and {piece.confidence.shape} in a band of {rows} rows")
        if piece.left < end or piece.left + columns > size[1]:
            raise ValueError(f"a piece of {columns} columns from {piece.left} on, after {end} and before {size[1]}")
        end = piece.left + columns
        parts.append(zlib.compress(np.stack([piece.classes, piece.confidence]).tobytes(), 1))
    spans = [[piece.left, piece.classes.shape[1], len(part)] for piece, part in zip(pieces, parts, strict=True)]
    head = {"format": _FORMAT, "top": top, "rows": rows, "size": list(size), "pieces": spans}
    path = folder / f"{top:09d}{_ENDING}"
    write_bytes(path, b"".join([json.dumps(head).encode(), b"\n", *parts]))
    return path


def read_band(path: Path) -> Band:
    """Read a band.

    Raises:
        EosinError: if the file is not a whole band.
    """
    with path.open("rb") as file:
        head = _head(path, file.readline())
        rows, width = head["rows"], head["size"][1]
        classes, confidence = np.full((rows, width), OUTSIDE, np.uint8), np.zeros((rows, width), np.uint8)
        for left, columns, length in head["pieces"]:
            try:
                both = np.frombuffer(zlib.decompress(file.read(length)), np.uint8).reshape(2, rows, columns)
            except (zlib.error, ValueError):
                raise _broken(path) from None
            classes[:, left : left + columns], confidence[:, left : left + columns] = both
    return Band(head["top"], classes, confidence)


def rows_done(folder: Path) -> int:
    """How many rows from the top are finished: the end of the last band of a row of bands without a gap."""
    done = 0
    for path in sorted(folder.glob(f"*{_ENDING}")):
        with path.open("rb") as file:
            head = _head(path, file.readline())
        if head["top"] != done:
            break
        done += head["rows"]
    return done


def _head(path: Path, line: bytes) -> dict[str, Any]:
    try:
        head = json.loads(line)
    except ValueError:
        raise _broken(path) from None
    if not isinstance(head, dict) or head.get("format") != _FORMAT:
        raise _broken(path)
    return head


def _broken(path: Path) -> EosinError:
    return EosinError(f"{path}: not a whole band of this version; delete its folder and predict the slide again")
