"""One row of tiles, added up and blended, of which only the columns with tissue take memory.

The sums are those of ``eosin.core.tiling.stitch``, in the same order, so that they are equal to them bit for bit
wherever every tile is predicted. The columns lie in blocks as wide as a tile, which are made when a tile first touches
them. As soon as the tiles are beyond a block, its finished rows become classes, and only what the next row of tiles
goes on with is kept of its sums.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosin.core.artifact import atomic_file
from eosin.core.errors import EosinError
from eosin.core.tiling import weights
from eosin.wsi.bands import Piece
from eosin.wsi.grid import Grid

_FORMAT = "eosin canvas 2"


class Canvas:
    """Blends tiles that come in the order of a grid; hands out the rows that no later tile touches.

    Attributes:
        position: how many tiles of the grid are in.
        row: the row of tiles that is being filled; what is above it was handed out.
    """

    def __init__(self, grid: Grid, classes: int) -> None:
        self.position, self.row = 0, 0
        self._grid, self._classes = grid, classes
        self._blocks: dict[int, Tensor] = {}  # float32 [classes, rows so far, columns], by their place from the left
        self._pieces: list[Piece] = []  # what is finished of this row of tiles
        self._settled = 0  # the first block of which it is not
        self._down, self._across = (weights(length, grid.tile, grid.margin) for length in grid.padded)

    def add(self, part: Tensor) -> None:
        """Add the next tile.

        Args:
            part: float ``[classes, tile, tile]``, its probabilities.

        Raises:
            ValueError: if rows before this tile's were not handed out yet.
        """
        row, column = self._grid.places[self.position].tolist()
        if row != self.row:
            raise ValueError(f"a tile of row {row} while row {self.row} is filled")
        tile, left = self._grid.tile, self._grid.lefts[column]
        self._settle(left // tile)
        weighted = part.float() * (self._down[row, :, None] * self._across[column])
        for number in range(left // tile, (left + tile - 1) // tile + 1):
            begin = number * tile
            start, stop = max(left, begin), min(left, begin) + tile
            self._block(number)[:, :, start - begin : stop - begin] += weighted[:, :, start - left : stop - left]
        self.position += 1

    @property
    def ready(self) -> bool:
        """Whether rows can be handed out."""
        places = self._grid.places
        return self.row < (int(places[self.position, 0]) if self.position < len(places) else len(self._grid.tops))

    def pop(self) -> tuple[int, int, list[Piece]]:
        """Hand out the rows that no later tile touches.

        Returns:
            The first row of the slide, how many rows, and what is known of them from left to right: the most probable
            class (of equals the first) and 255 times its probability.
        """
        self._settle(len(self._grid.lefts) + 1)
        top, rows, pieces = self._grid.tops[self.row], min(self._done, self._grid.size[0]), self._pieces
        self.row, self._pieces, self._settled = self.row + 1, [], 0
        return top, rows, pieces

    @property
    def _done(self) -> int:
        """Rows from the top of this row of tiles that the next one does not touch."""
        tops = self._grid.tops
        return tops[self.row + 1] - tops[self.row] if self.row + 1 < len(tops) else self._grid.tile

    def _settle(self, end: int) -> None:
        """Finish the rows of the blocks before ``end``, which no tile of this row touches any more."""
        done, (height, width), (above, before) = self._done, self._grid.size, self._grid.before
        for number in sorted(number for number in self._blocks if self._settled <= number < end):
            filled, block = self._blocks[number].shape[1], self._block(number)
            del self._blocks[number]
            index, best = most_probable(block[:, above : above + min(done, height), before : before + width])
            confidence = best.mul_(255).round_().to(torch.uint8)
            self._pieces.append(Piece(number * self._grid.tile, index.numpy(), confidence.numpy()))
            if filled > done:
                self._blocks[number] = block[:, done:filled].clone()
        self._settled = end

    def _block(self, number: int) -> Tensor:
        """A block at the height of a tile."""
        tile = self._grid.tile
        kept = self._blocks.get(number)
        if kept is None or kept.shape[1] < tile:
            columns = min(tile, self._grid.padded[1] - number * tile)
            block = torch.zeros(self._classes, tile, columns)
            if kept is not None:
                block[:, : kept.shape[1]] = kept
            self._blocks[number] = block
        return self._blocks[number]

    def save(self, path: Path) -> None:
        """Write all that :meth:`restore` needs, whole or not at all."""
        head = {
            "format": _FORMAT,
            "position": self.position,
            "row": self.row,
            "settled": self._settled,
            "blocks": [[number, block.shape[1]] for number, block in self._blocks.items()],
            "pieces": [[piece.left, *piece.classes.shape] for piece in self._pieces],
        }
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            file.write(json.dumps(head).encode() + b"\n")
            for block in self._blocks.values():
                block.numpy().tofile(file)
            for piece in self._pieces:
                piece.classes.tofile(file)
                piece.confidence.tofile(file)

    def restore(self, path: Path) -> None:
        """Go on from where :meth:`save` was called on a canvas of the same grid and classes.

        Raises:
            EosinError: if the file is none of this version.
        """
        with path.open("rb") as file:
            try:
                head = json.loads(file.readline())
                if head["format"] != _FORMAT:
                    raise ValueError
                for number, rows in head["blocks"]:
                    shape = (self._classes, rows, self._block(number).shape[2])
                    self._blocks[number] = torch.from_numpy(_next(file, np.dtype(np.float32), shape))
                for left, *size in head["pieces"]:
                    self._pieces.append(Piece(left, *(_next(file, np.dtype(np.uint8), tuple(size)) for _ in range(2))))
                self.position, self.row, self._settled = (int(head[key]) for key in ("position", "row", "settled"))
            except (ValueError, KeyError, TypeError, RuntimeError):
                raise EosinError(f"{path}: not a canvas of this version; delete its folder and predict again") from None


def _next(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    return np.fromfile(file, dtype, math.prod(shape)).reshape(shape)


def most_probable(band: Tensor) -> tuple[Tensor, Tensor]:
    """The most probable class and its probability; ``argmax`` and ``max`` do the same in five times the time.

    Args:
        band: float ``[C, H, W]``.

    Returns:
        uint8 ``[H, W]``, of equals the first class, and float ``[H, W]``.
    """
    best, index = band[0].clone(), torch.zeros(band.shape[1:], dtype=torch.uint8)
    for number in range(1, len(band)):
        index.masked_fill_(band[number] > best, number)
        torch.maximum(best, band[number], out=best)
    return index, best
