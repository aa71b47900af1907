"""Named ways to score: how a prediction is made ready and counted, and the object that ``scores.json`` gets."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosin.core.classes import Classes
from eosin.core.errors import EosinError, WrongUse, nearest
from eosin.core.values import Selection
from eosin.metrics import scores, tags
from eosin.metrics.confusion import Matrix, count_pixels
from eosin.metrics.statistics import miou_interval

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
    ci95: dict[str, list[Score]]


class TagScores(TypedDict):
    """Scores of image-level tags, in 0..1."""

    map: Score
    exact_match: Score
    average_precision: dict[str, Score]


class TagsEntry(Entry):
    """One object of ``scores.json`` for a split without masks."""

    tags: TagScores
    n_images: int


class Protocol(ABC):
    """A way to score. A subclass says how; the first line of its docstring is what ``eosin list protocols`` shows.

    Attributes:
        name: as in recipes, on the command line and in ``scores.json``.
        uses_truth: whether truth touches a prediction at test time, which every output then says.
    """

    name: ClassVar[str]
    uses_truth: ClassVar[bool]

    def __init__(self, classes: Classes) -> None:
        self.classes = classes

    @abstractmethod
    def prepare(self, probabilities: Tensor | NDArray[np.float32]) -> Tensor:
        """Turn probabilities ``[..., K, H, W]`` into class indices, uint8 ``[..., H, W]``, on the same device."""

    @abstractmethod
    def count(self, prediction: Tensor | NDArray[Any], truth: Tensor | NDArray[Any]) -> Matrix:
        """Count one image: class indices ``[H, W]`` and truth ``[H, W]`` to int64 ``[K, K]``, rows = truth."""

    def score_entry(self, subject: Subject, counts: NDArray[Any], patients: Sequence[str] | NDArray[Any]) -> ScoreEntry:
        """Build the object of ``scores.json``.

        Args:
            subject: what was scored.
            counts: ``[N, K, K]``, what ``count`` returned for each image.
            patients: ``N`` labels for the interval, empty where unknown.

        Raises:
            EosinError: if no image was counted.
        """
        if not len(counts):
            raise EosinError(f"{subject.dataset}: split {subject.split!r} has no image with a mask to score")
        matrix = np.sum(counts, axis=0)
        return {
            **_head(subject, self.classes, self.name, self.uses_truth),
            "confusion": [[int(n) for n in row] for row in matrix],
            "iou": _by_class(self.classes, scores.iou(matrix)),
            "miou": _score(scores.miou(matrix)),
            "dice": _by_class(self.classes, scores.dice(matrix)),
            "mdice": _score(scores.mdice(matrix)),
            "accuracy": _score(scores.accuracy(matrix)),
            "fwiou": _score(scores.fwiou(matrix)),
            "n_images": len(counts),
            "ci95": {"miou": [_score(end) for end in miou_interval(counts, patients)]},
        }


class Strict(Protocol):
    """One confusion matrix over the data set, ignored pixels left out, truth never touches a prediction."""

    name = "strict"
    uses_truth = False

    def prepare(self, probabilities: Tensor | NDArray[np.float32]) -> Tensor:
        """Take the most probable class; of equals the first.

        Raises:
            EosinError: if a probability is NaN, or there are not as many maps as classes.
        """
        maps = torch.as_tensor(probabilities)
        if maps.ndim < 3 or maps.shape[-3] != len(self.classes):
            raise EosinError(f"probabilities {tuple(maps.shape)} must be [..., {len(self.classes)} classes, H, W]")
        best, prediction = maps.max(dim=-3)
        if best.isnan().any():  # the maximum hands a NaN of any class on
            raise EosinError("a predicted probability is NaN: the training has probably diverged; lower fit.lr")
        return prediction.to(torch.uint8)

    def count(self, prediction: Tensor | NDArray[Any], truth: Tensor | NDArray[Any]) -> Matrix:
        """Count the pixels of one image; raises what ``count_pixels`` raises."""
        return count_pixels(prediction, truth, len(self.classes), self.classes.ignore)


PROTOCOLS: dict[str, type[Protocol]] = {protocol.name: protocol for protocol in (Strict,)}


def find_protocol(name: str) -> type[Protocol]:
    """Look a protocol up by its name.

    Raises:
        WrongUse: if there is none of that name.
    """
    if name not in PROTOCOLS:
        raise WrongUse(f"{name}: unknown protocol{nearest(name, list(PROTOCOLS))}")
    return PROTOCOLS[name]


def tags_entry(subject: Subject, classes: Classes, tag_scores: NDArray[Any], true_tags: NDArray[Any]) -> TagsEntry:
    """Build the object of ``scores.json`` for data without masks.

    Args:
        subject: what was scored.
        classes: the K tissues.
        tag_scores: ``[N, K]`` in 0..1.
        true_tags: ``[N, K]``, 1 present, 0 absent, NaN unknown.

    Raises:
        EosinError: for what ``average_precision`` refuses.
    """
    precision = tags.average_precision(tag_scores, true_tags)
    return {
        **_head(subject, classes, "tags", uses_truth=False),
        "tags": {
            "map": _score(float(scores.mean_known(precision))),
            "exact_match": _score(tags.exact_match(tag_scores, true_tags)),
            "average_precision": _by_class(classes, precision),
        },
        "n_images": len(true_tags),
    }


def _head(subject: Subject, classes: Classes, protocol: str, uses_truth: bool) -> Entry:
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


def _by_class(classes: Classes, values: NDArray[Any]) -> dict[str, Score]:
    return {name: _score(float(value)) for name, value in zip(classes.names, values, strict=True)}


def _score(value: float) -> Score:
    """JSON has no NaN."""
    return None if math.isnan(value) else value
