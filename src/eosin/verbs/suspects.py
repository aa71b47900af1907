"""Ranking the training images of a finished run by how probably their tags are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eosin.core.artifact import read_json
from eosin.core.errors import EosinError, WrongUse
from eosin.core.lock import sole
from eosin.core.progress import SILENT, Progress
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
    from eosin.data.dataset import Dataset
    from eosin.data.fraction import fraction_of
    from eosin.engine.lab import EngineLab
    from eosin.engine.suspects import FinishedSteps, rank
    from eosin.engine.workplace import Start, Workplace

    if not (source / "provenance.json").is_file():
        raise WrongUse(f"{source}: not a finished run (no provenance.json); run it to its end first")
    provenance: dict[str, Any] = read_json(source / "provenance.json")
    recipe, method = resolve(str(source / "recipe.yaml"))
    if method.supervision == "truth":
        raise WrongUse(f"{source}: method {recipe.method} is trained on true masks; rank a run of a method of tags")
    said = provenance["dataset"]
    folder = Path(said["folder"])
    if not folder.exists():
        raise EosinError(f"{folder}: the data set of {source} is gone; put it back there")
    dataset = Dataset.open(folder)
    if dataset.digest != said["digest"]:
        raise EosinError(f"{folder}: the data set has changed since {source} was trained on it; run it again")
    dataset = fraction_of(dataset, said.get("fraction", 1), recipe.seed)
    start = Start.of(Path(provenance["start"])) if provenance.get("start") else None
    with sole(source):
        place = Workplace(source, dataset, recipe, method.supervision, progress, start=start)
        lab = EngineLab(place)
        lab.steps = FinishedSteps(source)
        method.plan(lab)
        return rank(place, lab)
