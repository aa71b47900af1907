"""A finished run, opened again for what can be had of its trained steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from eosin.core.artifact import read_json
from eosin.core.errors import EosinError, WrongUse
from eosin.core.progress import Progress

if TYPE_CHECKING:
    from eosin.engine.lab import EngineLab
    from eosin.engine.workplace import Workplace


class Finished(NamedTuple):
    """A run whose plan found all that it made; ``final`` is the step that the plan ends with."""

    place: Workplace
    lab: EngineLab
    final: str


def finished(source: Path, progress: Progress) -> Finished:
    """Let the plan of a run find its steps, without making any.

    Args:
        source: the run's folder; the caller holds it (``eosin.core.lock.sole``).
        progress: is told what happens.

    Raises:
        WrongUse: if the run is not finished.
        EosinError: if its data set, which decides what is built, is gone or has changed.
        Stale: if its steps were made by other settings than its recipe says.
    """
    from eosin.data.dataset import Dataset
    from eosin.data.fraction import fraction_of
    from eosin.engine.lab import EngineLab
    from eosin.engine.suspects import FinishedSteps
    from eosin.engine.workplace import Start, Workplace
    from eosin.verbs.train import resolve

    if not (source / "provenance.json").is_file():
        raise WrongUse(f"{source}: not a finished run (no provenance.json); run it to its end first")
    provenance: dict[str, Any] = read_json(source / "provenance.json")
    recipe, method = resolve(str(source / "recipe.yaml"))
    said = provenance["dataset"]
    folder = Path(said["folder"])
    if not folder.exists():
        raise EosinError(f"{folder}: the data set of {source} is gone; put it back there")
    dataset = Dataset.open(folder)
    if dataset.digest != said["digest"]:
        raise EosinError(f"{folder}: the data set has changed since {source} was trained on it; run it again")
    dataset = fraction_of(dataset, said.get("fraction", 1), recipe.seed)
    start = Start.of(Path(provenance["start"])) if provenance.get("start") else None
    place = Workplace(source, dataset, recipe, method.supervision, progress, start=start)
    lab = EngineLab(place)
    lab.steps = FinishedSteps(source)
    return Finished(place, lab, method.plan(lab).name)
