"""What a finished run or a model folder is good for: scores, and a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from eosin.core.errors import EosinError, WrongUse
from eosin.core.progress import SILENT, Progress
from eosin.verbs.data import say_known

if TYPE_CHECKING:
    from eosin.engine.evaluate import Predict
    from eosin.engine.scoring import Scoring


def score(
    source: Path, data: Path, split: str = "test", protocol: str = "strict", progress: Progress = SILENT
) -> dict[str, Any]:
    """Score a run's exported model, or a model folder, on a split; always torch in float32.

    Args:
        source: a run's folder or a model folder.
        data: folder of a data set with the model's classes.
        split: which split.
        protocol: how it is scored.
        progress: is told what happens.

    Returns:
        The entry, as in ``scores.json``.

    Raises:
        EosinError: if the split has no truth, or the classes differ.
    """
    task, predictor = _scoring(source, data, split, protocol)
    say_known(task.dataset, progress)
    advance = progress.start(f"score {split}", len(task))
    return task.entry(predictor, lambda: advance(1, ""))


def keep_score(source: Path, data: Path, split: str, protocol: str, folder: Path) -> dict[str, Any]:
    """Score as :func:`score`, and keep the predicted masks and the confusion matrix of every image in ``folder``."""
    task, predictor = _scoring(source, data, split, protocol)
    entry = task.write(predictor, folder, lambda: None)
    if entry is None:
        raise EosinError(f"{data}: split {split!r} has no masks to score against")
    return entry


def _scoring(source: Path, data: Path, split: str, protocol: str) -> tuple[Scoring, Predict]:
    """What is scored, and the exported model as a function of tiles."""
    from eosin.data.dataset import Dataset
    from eosin.engine.evaluate import Tiling
    from eosin.engine.scoring import Scoring
    from eosin.metrics.protocols import Subject, find_protocol
    from eosin.predictor.predictor import Predictor

    predictor = Predictor.load(model_folder(source))
    dataset, card = Dataset.open(data), predictor.card
    if dataset.classes.names != card.classes.names:
        raise EosinError(
            f"{data}: its classes are {', '.join(dataset.classes.names)}, the model's {', '.join(card.classes.names)}"
        )
    subject = Subject(dataset.name, split, "model", card.selection)
    rule = find_protocol(protocol)(dataset.classes)
    task = Scoring(dataset, subject, rule, Tiling(card.tile, card.margin), card.temperature)
    return task, lambda tiles: predictor(tiles.permute(0, 2, 3, 1))


def model_folder(source: Path) -> Path:
    """The model folder of a run, or the folder itself if it is one.

    Raises:
        WrongUse: if it is neither.
    """
    for folder in (source / "model", source):
        if (folder / "card.json").is_file():
            return folder
    raise WrongUse(f"{source}: neither a finished run nor a model folder (no card.json)")


def report(source: Path, masks: bool = False, progress: Progress = SILENT) -> Path:
    """Write ``report.html`` of a run anew; returns its path.

    Args:
        source: a run's folder.
        masks: rank the training images whose tags are probably wrong first, for the report to show; see
            ``eosin.verbs.suspects.rank_tags``.
        progress: is told what happens.

    Raises:
        WrongUse: if it is not a run, or not one whose tags can be ranked.
    """
    from eosin.report.html import write_report
    from eosin.verbs.suspects import rank_tags

    if not (source / "recipe.yaml").is_file():
        raise WrongUse(f"{source}: not a run (no recipe.yaml); give the folder that 'eosin run' wrote")
    if masks:
        rank_tags(source, progress)
    return write_report(source)
