"""The objects of ``scores.json``: what they say, and how those of tags are built."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from numpy.typing import NDArray

from eosin.core.classes import Classes
from eosin.core.values import Selection
from eosin.metrics import scores, tags

Score = float | None  # None (null in JSON) = cannot be known, because the class or the truth is absent


@dataclass(frozen=True, slots=True)
class Subject:
    """What was scored: the ``step`` whose model predicted which ``split`` of which ``dataset``, and its selection."""

    dataset: str
    split: str
    step: str
    selection: Selection


class Entry(TypedDict):
    """What every object of ``scores.json`` says."""

    schema: Literal[1]
    dataset: str
    split: str
    step: str
    protocol: str
    uses_truth: bool
    selection: Selection
    classes: list[str]


class Released(TypedDict):
    """What the released code of IKD-MIL prints: ``f1`` and ``iou`` in 0..1, ``hd`` in px (no Hausdorff distance)."""

    f1: Score
    iou: Score
    hd: Score


class Honest(TypedDict):
    """What ``Released`` hides: means over positive or negative patches alone, distances in px, numbers of patches."""

    f1: Score
    iou: Score
    specificity: Score
    dataset_iou: Score
    hd: Score
    hd95: Score
    positives: int
    negatives: int
    empty: int


class MilScores(TypedDict):
    """The scores of patches by protocol ``mil-patch``; one kind never without the other."""

    released: Released
    honest: Honest


class Intervals(TypedDict):
    """95 % intervals, [low, high], of the mean IoU and of each class's."""

    miou: list[Score]
    iou: dict[str, list[Score]]


class ScoreEntry(Entry):
    """One object of ``scores.json`` for a split with masks; scores are in 0..1, ``confusion`` has rows = truth."""

    confusion: list[list[int]]
    iou: dict[str, Score]
    miou: Score
    dice: dict[str, Score]
    mdice: Score
    accuracy: Score
    fwiou: Score
    n_images: int
    ci95: Intervals


class BackgroundEntry(ScoreEntry):
    """Here ``confusion`` has one more row and column than there are classes: the last are those of the background.

    Scores by class and the means of IoU and Dice are over the classes; accuracy and FwIoU are over all pixels.
    """

    background: Literal[True]


class MilEntry(ScoreEntry):
    """With scores of patches beside those of the matrix."""

    mil_patch: MilScores


class TagScores(TypedDict):
    """Scores of image-level tags, in 0..1."""

    map: Score
    exact_match: Score
    average_precision: dict[str, Score]


class TagsEntry(Entry):
    """One object of ``scores.json`` for a split without masks."""

    tags: TagScores
    n_images: int


def tags_entry(subject: Subject, classes: Classes, predicted: NDArray[Any], true: NDArray[Any]) -> TagsEntry:
    """Build the object of ``scores.json`` for data without masks; takes and raises what ``tag_scores`` does."""
    return {
        **head(subject, classes, "tags", uses_truth=False),
        "tags": tag_scores(classes, predicted, true),
        "n_images": len(true),
    }


def tag_scores(classes: Classes, predicted: NDArray[Any], true: NDArray[Any]) -> TagScores:
    """Score image-level tags.

    Args:
        classes: the K tissues.
        predicted: ``[N, K]`` in 0..1.
        true: ``[N, K]``, 1 present, 0 absent, NaN unknown.

    Raises:
        EosinError: for what ``average_precision`` refuses.
    """
    precision = tags.average_precision(predicted, true)
    return {
        "map": known(scores.mean_known(precision)),
        "exact_match": known(tags.exact_match(predicted, true)),
        "average_precision": by_class(classes, precision),
    }


def head(subject: Subject, classes: Classes, protocol: str, uses_truth: bool) -> Entry:
    """What every entry begins with."""
    return {
        "schema": 1,
        "dataset": subject.dataset,
        "split": subject.split,
        "step": subject.step,
        "protocol": protocol,
        "uses_truth": uses_truth,
        "selection": subject.selection,
        "classes": list(classes.names),
    }


def by_class(classes: Classes, values: NDArray[Any]) -> dict[str, Score]:
    """Scores ``[K]`` by class name."""
    return {name: known(value) for name, value in zip(classes.names, values, strict=True)}


def known(value: Any) -> Score:
    """A number as JSON has it, which knows no NaN."""
    return None if math.isnan(value) else float(value)
