"""Predicting one slide: where its tissue is, which tiles that takes, the bands, and what is written of them.

``OUT/<name>/.work`` holds the bands, and ``work.json``, which says what they are of. They are kept when a slide is
done: other thresholds, palettes or outlines are then written from them, and nothing is predicted again. Whoever needs
the room deletes the folder; the slide is then predicted again when something else is asked for.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from eosin import __version__
from eosin.core.artifact import write_json
from eosin.core.errors import EosinError
from eosin.predictor.predictor import Predictor
from eosin.predictor.spec import Card
from eosin.slides.open import open_slide
from eosin.slides.pixel_size import pixel_size
from eosin.slides.scaled import Scaled
from eosin.slides.slide import PixelSize, Slide
from eosin.slides.tissue import Tissue, find_tissue, read_tissue
from eosin.wsi.bands import Bands
from eosin.wsi.domain import measure
from eosin.wsi.grid import Grid, grid
from eosin.wsi.inputs import Job, identity
from eosin.wsi.outcome import FILES, write_outcome
from eosin.wsi.settings import Settings
from eosin.wsi.stitch import predict_bands
from eosin.wsi.view import View

RESULT, TISSUE = "result.json", "tissue.png"
_WORK = ".work"
_MEASURED = 64  # tiles that tell whether a slide looks like those of training
_THUMBNAIL = 2048  # pixels of its longer side, at most

Start = Callable[[int], Callable[[int, str], None]]
"""Called with the tiles of a slide; the answer is called with the tiles done since and what is done now."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An open slide at the pixel size of a model."""

    job: Job
    slide: Slide
    pixel_size: PixelSize
    scaled: Scaled
    file: dict[str, Any]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns at full resolution."""
        return self.slide.levels[0].height, self.slide.levels[0].width


@contextmanager
def see(job: Job, card: Card, settings: Settings) -> Iterator[Seen]:
    """Open a slide.

    Raises:
        EosinError: if it cannot be read, or the size of its pixels or of the model's is not known.
        OSError: if there is no such file.
    """
    if card.mpp is None:
        raise EosinError(
            f"{job.source}: the model's card has no mpp, so that it cannot be said at which scale it takes slides; "
            "set mpp in the data set's dataset.yaml and train again, or predict images"
        )
    with open_slide(job.source, settings.reader) as slide:
        size = pixel_size(slide, settings.mpp, settings.table)
        yield Seen(job, slide, size, Scaled(slide, card.mpp, size), identity(job.source))


def finished(seen: Seen, predictor: Predictor, settings: Settings) -> bool:
    """Whether the slide has all results, of this file, model and settings."""
    told = _told(seen.job.folder / RESULT)
    if not all((seen.job.folder / name).is_file() for name in FILES):
        return False
    kept = _kept_tissue(seen, told) if settings.tissue is None else None
    given = settings.tissue_of(seen.job.source)
    tissue = kept if given is None else read_tissue(given, seen.slide, seen.pixel_size)
    if tissue is None:
        return False
    asked = {**_prediction(seen, tissue, predictor, settings), "outcome": asdict(settings.outcome)}
    return all(told.get(key) == value for key, value in asked.items())


def tiles_of(seen: Seen, card: Card, settings: Settings) -> tuple[Tissue, Grid]:
    """Where tissue is, as the user says, as an earlier prediction found it, or as it is found; and its tiles."""
    given = settings.tissue_of(seen.job.source)
    if given is not None:
        tissue = read_tissue(given, seen.slide, seen.pixel_size)
    else:
        told = _told(seen.job.folder / _WORK / "work.json") or _told(seen.job.folder / RESULT)
        kept = _kept_tissue(seen, told)
        tissue = find_tissue(seen.slide, seen.pixel_size) if kept is None else kept
    return tissue, grid(seen.scaled.size, seen.scaled.scale, tissue, card.tile, card.margin)


def predict_slide(
    seen: Seen, predictor: Predictor, settings: Settings, start: Start, check: Callable[[], None]
) -> dict[str, Any]:
    """Predict a slide and write its results, ``result.json`` last; go on from where that was cut off.

    Args:
        seen: the slide.
        predictor: the model.
        settings: the user's choices.
        start: is told how many tiles there are.
        check: called between calls of the model; what it raises ends the work.

    Returns:
        What ``result.json`` says.

    Raises:
        EosinError: if pixels cannot be read.
    """
    begun = time.perf_counter()
    folder, card = seen.job.folder, predictor.card
    tissue, tiles = tiles_of(seen, card, settings)
    work = folder / _WORK
    for half_written in (*folder.glob(".*.tmp"), *work.glob(".*.tmp")):  # by a process that was killed
        half_written.unlink(missing_ok=True)
    tissue.write(folder / TISSUE)
    asked = _prediction(seen, tissue, predictor, settings)
    if _told(work / "work.json") != asked:
        shutil.rmtree(work, ignore_errors=True)
        write_json(work / "work.json", asked)
    advance = start(len(tiles))

    def predict(batch: Tensor) -> Tensor:
        check()
        return predictor(batch)

    predict_bands(
        predict,
        tiles,
        seen.scaled,
        tissue,
        work / "bands",
        classes=len(card.classes),
        batch=settings.batch,
        count=lambda done: advance(done, ""),
    )
    advance(0, "writing results")
    (folder / RESULT).unlink(missing_ok=True)
    found = write_outcome(folder, Bands.open(work / "bands"), _view(seen, tiles), card, settings.outcome)
    result = {
        "schema": 1,
        **asked,
        "outcome": asdict(settings.outcome),
        "mpp_from": seen.pixel_size.source,
        "predicted_mpp": seen.scaled.mpp,
        "height": seen.size[0],
        "width": seen.size[1],
        "reader": seen.slide.reader,
        "tiles": len(tiles),
        **found,
        "method": card.method,
        "version": __version__,
        "seconds": round(time.perf_counter() - begun, 3),
        "use": card.use,
    }
    write_json(folder / RESULT, result)
    advance(0, "")
    return result


def _prediction(seen: Seen, tissue: Tissue, predictor: Predictor, settings: Settings) -> dict[str, Any]:
    """All that the bands depend on."""
    card = predictor.card
    mask = hashlib.sha256(repr(tissue.mask.shape).encode())
    mask.update(np.ascontiguousarray(tissue.mask).data)  # not copied: it may be large
    return {
        **seen.file,
        "model": card.digest,
        "runtime": predictor.runtime,
        "precision": predictor.precision,
        "files": predictor.files,
        "tile": card.tile,
        "margin": card.margin,
        "batch": settings.batch,
        "mpp": seen.pixel_size.mpp,
        "tissue": mask.hexdigest(),
    }


def _view(seen: Seen, tiles: Grid) -> View:
    """What the outcome needs to know of the slide; reads a thumbnail, and a few tiles again."""
    small = Scaled(seen.slide, max(1.0, max(seen.size) / _THUMBNAIL) * seen.pixel_size.mpp, seen.pixel_size)
    chosen = np.unique(np.linspace(0, len(tiles) - 1, min(len(tiles), _MEASURED)).round().astype(int)).tolist()
    measured = [measure(tiles.tiles(seen.scaled, index, index + 1)) for index in chosen]
    return View(
        name=seen.job.name,
        size=seen.size,
        scale=seen.scaled.scale,
        mpp=seen.scaled.mpp,
        pixel_size=seen.pixel_size,
        thumbnail=small.read(0, 0, *small.size),
        thumbnail_scale=small.scale,
        measured=np.concatenate([np.empty((0, 4)), *measured]),
    )


def _kept_tissue(seen: Seen, told: dict[str, Any]) -> Tissue | None:
    """The mask beside the results, as found or as a person changed it; None if it is of another file.

    A copy of the slide is another file by its time alone, and its mask may have taken a person an hour.
    """
    path = seen.job.folder / TISSUE
    same = all(told.get(key) == value for key, value in seen.file.items() if key != "modified_ns")
    if not path.is_file() or not same:
        return None
    return read_tissue(path, seen.slide, seen.pixel_size)


def _told(path: Path) -> dict[str, Any]:
    """What was written there; nothing if nothing was, or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
