"""Ranking the training images of a finished run by how probably their tags are wrong."""

from __future__ import annotations

from pathlib import Path

from eosin.core.errors import WrongUse
from eosin.core.lock import sole
from eosin.core.progress import SILENT, Progress
from eosin.verbs.finished import finished
from eosin.verbs.train import resolve


def rank_tags(source: Path, progress: Progress = SILENT) -> Path:
    """Fit a run's tag classifier five times, each time without a fifth of the training images, and rank all by doubt.

    Args:
        source: a finished run.
        progress: is told what happens.

    Returns:
        ``RUN/suspects/suspects.json``; see ``eosin.engine.suspects.rank``. Finished folds are reused.

    Raises:
        WrongUse: if the run is not finished, or no step of it was trained by tags alone.
        EosinError: if its data set is gone or has changed, or another process works in the run.
        Stale: if its steps were made by other settings than its recipe says.
    """
    from eosin.engine.suspects import rank

    recipe, method = resolve(str(source / "recipe.yaml"))
    if method.supervision == "truth":
        raise WrongUse(f"{source}: method {recipe.method} is trained on true masks; rank a run of a method of tags")
    with sole(source):
        place, lab, _ = finished(source, progress)
        return rank(place, lab)
