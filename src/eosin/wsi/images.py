"""Predicting many images: what is finished is skipped, what is bad is told in one line, and the rest goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eosin.core.artifact import write_json
from eosin.core.errors import EosinError, WrongUse
from eosin.core.tiling import bands, origins, stride
from eosin.predictor.predictor import Predictor
from eosin.predictor.spec import Card
from eosin.slides.image import image_size, read_rgb, write_mask
from eosin.wsi.canvas import most_probable
from eosin.wsi.inputs import Job, Outcome, identity, one_line
from eosin.wsi.result import shares, write_overlay

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class _Image:
    """One image: its file, its results, the number of its tiles, and what its results must say to be kept."""

    source: Path
    folder: Path
    tiles: int
    identity: dict[str, Any]


class _Meter:
    """Counts tiles for the caller's progress bar."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self.total, self.done, self._progress = total, 0, progress

    def reach(self, done: int) -> None:
        if done != self.done and self._progress is not None:
            self._progress(done, self.total)
        self.done = done


def predict_images(
    predictor: Predictor,
    images: Sequence[Job],
    *,
    batch: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    """Predict images of any size, each into its folder: ``classes.png``, ``overlay.png`` and ``result.json``.

    The pixels are taken at the model's own scale. An image whose ``result.json`` is of the same model, runtime,
    precision and file (size and time of change) is skipped.

    Args:
        predictor: the model, in whatever runs it.
        images: as ``eosin.wsi.inputs.jobs`` gives them.
        batch: most tiles in one call of the model.
        progress: called with the tiles done and the tiles in all.

    Returns:
        One outcome for each image, in their order; a bad image is an outcome.

    Raises:
        WrongUse: if a batch is none.
    """
    if batch < 1:
        raise WrongUse(f"a batch of {batch} tiles is none; choose at least 1")
    jobs = [_job(image.source, image.folder, predictor) for image in images]
    meter = _Meter(sum(job.tiles for job in jobs), progress)
    outcomes: list[Future[Outcome]] = []
    # While an image is predicted, the next one is read and the one before is written.
    with ThreadPoolExecutor(max_workers=1) as reader, ThreadPoolExecutor(max_workers=1) as writer:
        for job, pixels in _ahead(reader, jobs):
            begun = meter.done
            finish = _predicted(job, pixels, predictor, batch, meter)
            if outcomes:
                outcomes[-1].result()  # so that no more than one image waits to be written
            outcomes.append(writer.submit(finish))
            meter.reach(begun + job.tiles)
    return [outcome.result() for outcome in outcomes]


def class_map(predictor: Predictor, image: Array, batch: int = 16, count: Callable[[int], None] | None = None) -> Array:
    """Predict one image of any size.

    Args:
        predictor: the model.
        image: uint8 ``[H, W, 3]``, RGB.
        batch: most tiles in one call of the model.
        count: called after each call of the model, with the number of its tiles.

    Returns:
        uint8 ``[H, W]``: the index of the most probable class.
    """

    def predict(tiles: Tensor) -> Tensor:
        probabilities = predictor(tiles.permute(0, 2, 3, 1))
        if count is not None:
            count(len(tiles))
        return probabilities

    card = predictor.card
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    # Only the classes of a finished band are kept, so that the probabilities never take more than one row of tiles.
    rows = [most_probable(band)[0] for band in bands(predict, pixels, card.tile, card.margin, batch)]
    return torch.cat(rows).numpy()


def _predicted(
    job: _Image, pixels: Future[Array] | None, predictor: Predictor, batch: int, meter: _Meter
) -> Callable[[], Outcome]:
    """Predict an image; what is left to do gives its outcome."""
    if pixels is None:
        return lambda: Outcome(
            job.source, job.folder, "skipped", "finished before, by the same model from the same file"
        )
    begun = time.perf_counter()
    try:
        image = pixels.result()
    except (EosinError, OSError) as error:
        line = one_line(error)
        return lambda: Outcome(job.source, job.folder, "failed", line)
    mask = class_map(predictor, image, batch, lambda tiles: meter.reach(meter.done + tiles))

    def finish() -> Outcome:
        try:
            seconds = _write(job, image, mask, predictor.card, begun)
        except (EosinError, OSError) as error:
            return Outcome(job.source, job.folder, "failed", one_line(error))
        return Outcome(job.source, job.folder, "done", seconds=seconds)

    return finish


def _write(job: _Image, image: Array, mask: Array, card: Card, begun: float) -> float:
    """Write the results, the one that says "finished" last; returns the seconds that the image took."""
    finished = job.folder / "result.json"
    finished.unlink(missing_ok=True)
    found = shares(mask, card.classes, card.mpp)
    write_mask(job.folder / "classes.png", mask, card.classes)
    write_overlay(job.folder / "overlay.png", image, mask, card.classes, found)
    seconds = time.perf_counter() - begun
    value = {
        "schema": 1,
        **job.identity,
        "height": mask.shape[0],
        "width": mask.shape[1],
        "mpp": card.mpp,
        "mpp_from": None if card.mpp is None else "model",
        "tile": card.tile,
        "margin": card.margin,
        "classes": {s.name: {"pixels": s.pixels, "fraction": s.fraction, "mm2": s.mm2} for s in found},
        "method": card.method,
        "seconds": round(seconds, 3),
        "use": card.use,
    }
    write_json(finished, value)
    return seconds


def _job(source: Path, folder: Path, predictor: Predictor) -> _Image:
    """Look at a file's header; what is wrong with it is told when it is read."""
    try:
        height, width = image_size(source)
        known = identity(source)
    except (EosinError, OSError):
        return _Image(source, folder, 1, {})
    card = predictor.card
    step = stride(card.tile, card.margin)
    said = {
        **known,
        "model": card.digest,
        "runtime": predictor.runtime,
        "precision": predictor.precision,
        "files": predictor.files,
    }
    tiles = len(origins(height, card.tile, step)) * len(origins(width, card.tile, step))
    return _Image(source, folder, tiles, said)


def _finished(job: _Image) -> bool:
    try:
        old = json.loads((job.folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    whole = (job.folder / "classes.png").is_file() and (job.folder / "overlay.png").is_file()
    return whole and bool(job.identity) and all(old.get(key) == value for key, value in job.identity.items())


def _ahead(reader: ThreadPoolExecutor, jobs: list[_Image]) -> Iterator[tuple[_Image, Future[Array] | None]]:
    """Each job with its pixels, read while the one before is predicted; None for what is finished."""
    before: tuple[_Image, Future[Array] | None] | None = None
    for job in jobs:
        now = (job, None if _finished(job) else reader.submit(read_rgb, job.source))
        if before is not None:
            yield before
        before = now
    if before is not None:
        yield before
