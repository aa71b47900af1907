"""What the prediction of slides would take, found out without writing anything."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from eosin.core.errors import EosinError, WrongUse
from eosin.predictor.predictor import Predictor
from eosin.wsi.inputs import Job, one_line
from eosin.wsi.settings import Settings
from eosin.wsi.slide import finished, see, tiles_of

READING = 1.2
"""Time for all of a tile by that for the model alone, about: reading, blending and writing are the rest."""

BYTES = 1.0
"""Bytes on disk for a predicted pixel, about: its class and its confidence, compressed, in bands and pyramid."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is known of a slide before it is predicted.

    Attributes:
        source: the file.
        state: ``open`` if it is to be predicted, ``finished`` if it would be skipped, ``failed`` if it cannot be read.
        reason: why it cannot be read.
        height: rows at full resolution.
        width: columns at full resolution.
        mpp: micrometres per pixel at full resolution.
        mpp_from: where that is known from.
        tiles: how many are predicted.
        minutes: about.
        megabytes: about, of what is written.
    """

    source: Path
    state: Literal["open", "finished", "failed"]
    reason: str = ""
    height: int = 0
    width: int = 0
    mpp: float | None = None
    mpp_from: str = ""
    tiles: int = 0
    minutes: float = 0.0
    megabytes: float = 0.0


def survey(predictor: Predictor, slides: Sequence[Job], settings: Settings) -> Iterator[Plan]:
    """Look at slides one after the other: size, pixel size, tissue, tiles, and the time by a short trial of the model.

    Args:
        predictor: the model.
        slides: as ``eosin.wsi.inputs.jobs`` gives them.
        settings: the user's choices.

    Yields:
        One plan for each slide, in their order.

    Raises:
        WrongUse: if the settings fit no slide.
    """
    seconds = _seconds_per_tile(predictor, settings.batch)
    for job in slides:
        try:
            yield _plan(job, predictor, settings, seconds)
        except WrongUse:
            raise
        except (EosinError, OSError) as error:
            yield Plan(job.source, "failed", one_line(error))


def _plan(job: Job, predictor: Predictor, settings: Settings, seconds: float) -> Plan:
    with see(job, predictor.card, settings) as seen:
        tissue, tiles = tiles_of(seen, predictor.card, settings)
        known = (*seen.size, seen.pixel_size.mpp, seen.pixel_size.source, len(tiles))
        if finished(seen, predictor, settings):
            return Plan(job.source, "finished", "", *known)
        pixels = tissue.share * seen.scaled.size[0] * seen.scaled.size[1]
        took = len(tiles) * seconds * READING
        return Plan(job.source, "open", "", *known, round(took / 60, 1), round(pixels * BYTES / 1e6, 1))


def _seconds_per_tile(predictor: Predictor, batch: int) -> float:
    """By three batches, after one to warm up."""
    side = predictor.card.tile
    tiles = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    predictor(tiles)
    begun = time.perf_counter()
    for _ in range(3):
        predictor(tiles)
    return (time.perf_counter() - begun) / (3 * batch)
