"""Predicting many slides: what is finished is skipped, what is bad is told in one line, and the rest goes on.

Several processes may do this with the same folder of results. Each slide is lent to one of them; who finds one lent
comes back to it after the others, and in the end waits, so that the slides of a process that died are done as well.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from eosin.core.errors import EosinError, WrongUse
from eosin.core.progress import Progress
from eosin.predictor.predictor import Predictor
from eosin.wsi.inputs import Job, Outcome, one_line
from eosin.wsi.lease import Lease, Lost, owner
from eosin.wsi.settings import Settings
from eosin.wsi.slide import Seen, finished, predict_slide, see
from eosin.wsi.summary import STATES, begin, end, write_summary
from eosin.wsi.tissues import shown_classes

WAIT = 2.0
"""Seconds between two looks at slides that others work on."""


def predict_slides(
    predictor: Predictor, slides: Sequence[Job], out: Path, settings: Settings, progress: Progress
) -> list[Outcome]:
    """Predict slides, each into its folder; see ``eosin.wsi.slide``.

    Args:
        predictor: the model, in whatever runs it.
        slides: as ``eosin.wsi.inputs.jobs`` gives them.
        out: folder of all results, with the summary.
        settings: the user's choices.
        progress: is told what happens.

    Returns:
        One outcome for each slide, in their order; a bad slide is an outcome.

    Raises:
        WrongUse: if the settings fit no slide.
    """
    shown_classes(predictor.card.classes, settings.outcome)  # refuses what does not fit before it takes hours
    outcomes: dict[Path, Outcome] = {}
    advance = progress.start("slides", len(slides)) if len(slides) > 1 else _nothing
    waits = False
    while left := [job for job in slides if job.folder not in outcomes]:
        before = len(outcomes)
        for job in left:
            outcome = _one(predictor, job, out, settings, progress)
            if outcome is not None:
                outcomes[job.folder] = outcome
                advance(1, "")
        if len(outcomes) == before:
            if not waits and (who := owner(out / STATES, left[0].name)):
                progress.say(f"{left[0].name}: {who} works on it; waiting")
                waits = True
            time.sleep(WAIT)
    return [outcomes[job.folder] for job in slides]


def _one(predictor: Predictor, job: Job, out: Path, settings: Settings, progress: Progress) -> Outcome | None:
    """Predict one slide; None if another process works on it."""
    try:
        with see(job, predictor.card, settings) as seen:
            if finished(seen, predictor, settings):
                return _skipped(job)
            return _lent(seen, predictor, out, settings, progress)
    except WrongUse:
        raise
    except (EosinError, OSError) as error:
        reason = one_line(error)
        end(out, job.name, "failed", reason=reason)
        write_summary(out)
        return Outcome(job.source, job.folder, "failed", reason)


def _lent(seen: Seen, predictor: Predictor, out: Path, settings: Settings, progress: Progress) -> Outcome | None:
    job = seen.job
    lease = Lease.acquire(out / STATES, job.name)
    if lease is None:
        return None
    with lease:
        if finished(seen, predictor, settings):  # by another process, since we looked
            return _skipped(job)
        begin(out, job.name)
        write_summary(out)
        begun = time.perf_counter()
        try:
            told = predict_slide(seen, predictor, settings, partial(progress.start, job.name), lease.check)
            lease.check()
        except Lost:
            return None
        except (EosinError, OSError):
            if lease.lost:  # what went wrong may be that two were at it
                return None
            raise
        seconds = time.perf_counter() - begun
        for strange in told["out_of_domain"]:
            progress.say(f"{job.name}: {strange}")
        size = seen.pixel_size
        end(out, job.name, "done", minutes=round(seconds / 60, 2), mpp=size.mpp, mpp_from=size.source)
        write_summary(out)
        return Outcome(job.source, job.folder, "done", seconds=seconds)


def _skipped(job: Job) -> Outcome:
    return Outcome(job.source, job.folder, "skipped", "finished before, by the same model from the same file")


def _nothing(done: int, note: str) -> None:
    """No bar."""
