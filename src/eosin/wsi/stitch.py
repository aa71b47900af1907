"""Predicting the tissue of one slide into bands of rows on disk, so that a killed process loses at most half a minute.

While a batch of tiles is predicted, the next ones are read and decoded by threads and finished rows are compressed and
written by another. Batches are cut from the one list of tiles, across the ends of rows, always at the same places: a
network may answer a little differently in another batch, and a resumed prediction must not differ in a byte.

Every 30 s the blended rows in memory and the position are written beside the bands. A process that starts again goes on
from there; bands that were finished later are written anew, as they were.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from eosin.wsi.bands import OUTSIDE, Piece, Pixels, rows_done, write_band
from eosin.wsi.canvas import Canvas
from eosin.wsi.grid import Area, Grid, Source

EVERY = 30.0
"""Seconds between two checkpoints."""

READERS = 2
"""Threads that read and decode tiles."""

_AHEAD = 3  # batches that are read before they are needed
_BEHIND = 2  # bands that may wait to be written
_CHECKPOINT = "canvas"


def predict_bands(
    predict: Callable[[Tensor], Tensor],
    grid: Grid,
    source: Source,
    area: Area,
    folder: Path,
    *,
    classes: int,
    batch: int = 16,
    every: float = EVERY,
    count: Callable[[int], None] | None = None,
) -> None:
    """Predict the tiles of a slide that touch tissue; go on where an earlier call with the same arguments was cut off.

    Args:
        predict: takes uint8 ``[B, tile, tile, 3]``, returns float ``[B, classes, tile, tile]``.
        grid: the tiles.
        source: the pixels.
        area: where tissue is; other pixels get no class.
        folder: of the bands, see ``eosin.wsi.bands``; must hold nothing of another slide, model or batch.
        classes: how many.
        batch: tiles in a call of the model.
        every: seconds between two checkpoints.
        count: called with the tiles done since.

    Raises:
        EosinError: if pixels cannot be read, or ``folder`` holds something else.
    """
    canvas, checkpoint = Canvas(grid, classes), folder / _CHECKPOINT
    for half_written in folder.glob(".*.tmp"):
        half_written.unlink()
    if checkpoint.is_file():
        canvas.restore(checkpoint)
    elif rows_done(folder) == grid.size[0]:
        canvas.position = len(grid)
        canvas.row = len(grid.tops)
    if count is not None and canvas.position:
        count(canvas.position)
    saved = time.monotonic()
    with _Writer(grid, source.scale, area, folder) as writer:
        _hand_out(canvas, writer)
        for tiles in _read(grid, source, canvas.position, batch):
            for part in predict(torch.from_numpy(tiles)):
                canvas.add(part)
                _hand_out(canvas, writer)
            if count is not None:
                count(len(tiles))
            if time.monotonic() - saved >= every:
                writer.wait()  # a checkpoint behind bands that are not there would lose them
                canvas.save(checkpoint)
                saved = time.monotonic()
    checkpoint.unlink(missing_ok=True)


def _hand_out(canvas: Canvas, writer: _Writer) -> None:
    while canvas.ready:
        writer.write(*canvas.pop())


def _read(grid: Grid, source: Source, start: int, batch: int) -> Iterator[Pixels]:
    """Batches of tiles from ``start`` on, read ahead."""
    begins = iter(range(start, len(grid), batch))
    waiting: deque[Future[Pixels]] = deque()
    readers = ThreadPoolExecutor(READERS, "read")
    try:
        while True:
            while len(waiting) <= _AHEAD and (begin := next(begins, None)) is not None:
                waiting.append(readers.submit(grid.tiles, source, begin, min(begin + batch, len(grid))))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        readers.shutdown(cancel_futures=True)


class _Writer:
    """Writes bands in a thread, without what lies outside tissue."""

    def __init__(self, grid: Grid, scale: float, area: Area, folder: Path) -> None:
        self._size, self._scale, self._area, self._folder = grid.size, scale, area, folder
        self._waiting: deque[Future[None]] = deque()
        self._thread = ThreadPoolExecutor(1, "write")

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown(cancel_futures=kind is not None)
        if kind is None:
            self.wait()

    def write(self, top: int, rows: int, pieces: list[Piece]) -> None:
        if len(self._waiting) >= _BEHIND:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._write, top, rows, pieces))

    def wait(self) -> None:
        while self._waiting:
            self._waiting.popleft().result()

    def _write(self, top: int, rows: int, pieces: list[Piece]) -> None:
        for piece in pieces:
            outside = ~self._area.at(top, piece.left, rows, piece.classes.shape[1], self._scale)
            piece.classes[outside] = OUTSIDE
            piece.confidence[outside] = 0
        write_band(self._folder, top, rows, self._size, [piece for piece in pieces if piece.confidence.any()])
