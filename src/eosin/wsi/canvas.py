"""One row of tiles, added up and blended, of which only the columns with tissue take memory.

The sums are those of ``eosin.core.tiling.stitch``, in the same order, so that they are equal to them bit for bit
wherever every tile is predicted. The columns lie in blocks as wide as a tile, which are made when a tile first touches
them and dropped when nothing of it is left.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eosin.core.artifact import atomic_file
from eosin.core.errors import EosinError
from eosin.core.tiling import shift_up, weights
from eosin.wsi.bands import Piece
from eosin.wsi.grid import Grid

_FORMAT = "eosin canvas 1"


class Canvas:
    """Blends tiles that come in the order of a grid; hands out the rows that no later tile touches.

    Attributes:
        position: how many tiles of the grid are in.
        row: the row of tiles that is being filled; what is above it was handed out.
    """

    def __init__(self, grid: Grid, classes: int) -> None:
        self.position, self.row = 0, 0
        self._grid, self._classes = grid, classes
        self._blocks: dict[int, Tensor] = {}  # float32 [classes, tile, columns], by their place from the left
        self._filled: dict[int, int] = {}  # rows of them that may hold something
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
        tops, (above, before) = self._grid.tops, self._grid.before
        done = tops[self.row + 1] - tops[self.row] if self.row + 1 < len(tops) else self._grid.tile
        rows = min(done, self._grid.size[0])
        pieces = []
        for number in sorted(self._blocks):
            block, left = self._blocks[number], number * self._grid.tile
            inside = block[:, above : above + rows, before : before + self._grid.size[1]]
            index, best = most_probable(inside)
            pieces.append(Piece(left, index.numpy(), best.mul_(255).round_().to(torch.uint8).numpy()))
            self._filled[number] -= done
            if self._filled[number] <= 0:
                del self._blocks[number], self._filled[number]
            else:
                shift_up(block, done)
        top = tops[self.row]
        self.row += 1
        return top, rows, pieces

    def _block(self, number: int) -> Tensor:
        tile = self._grid.tile
        if number not in self._blocks:
            columns = min(tile, self._grid.padded[1] - number * tile)
            self._blocks[number] = torch.zeros(self._classes, tile, columns)
        self._filled[number] = tile
        return self._blocks[number]

    def save(self, path: Path) -> None:
        """Write all that :meth:`restore` needs, whole or not at all."""
        numbers = sorted(self._blocks)
        head = {
            "format": _FORMAT,
            "position": self.position,
            "row": self.row,
            "blocks": [[number, self._filled[number]] for number in numbers],
        }
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            file.write(json.dumps(head).encode() + b"\n")
            for number in numbers:
                np.ascontiguousarray(self._blocks[number][:, : self._filled[number]].numpy()).tofile(file)

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
                for number, filled in head["blocks"]:
                    block = self._block(number)
                    shape = (self._classes, filled, block.shape[2])
                    block[:, :filled] = torch.from_numpy(np.fromfile(file, np.float32, int(np.prod(shape)))).view(shape)
                    self._filled[number] = filled
                self.position, self.row = int(head["position"]), int(head["row"])
            except (ValueError, KeyError, TypeError, RuntimeError):
                raise EosinError(f"{path}: not a canvas of this version; delete its folder and predict again") from None


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
