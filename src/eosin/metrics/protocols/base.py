"""What a protocol is, and the default one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosin.core.classes import Classes
from eosin.core.errors import EosinError
from eosin.metrics import scores
from eosin.metrics.confusion import Matrix, count_pixels
from eosin.metrics.protocols.entries import ScoreEntry, Subject, by_class, head, known
from eosin.metrics.statistics import iou_intervals, miou_interval

Probabilities = Tensor | NDArray[np.float32]
Indices = Tensor | NDArray[Any]
Measure = dict[str, float]


class Protocol(ABC):
    """A way to score. A subclass says how; the first line of its docstring is what ``eosin list protocols`` shows.

    Attributes:
        name: as in recipes, on the command line and in ``scores.json``.
        uses_truth: whether truth touches a prediction at test time, which every output then says.
    """

    name: ClassVar[str]
    uses_truth: ClassVar[bool]

    def __init__(self, classes: Classes) -> None:
        """Score these classes.

        Raises:
            WrongUse: if data of such classes cannot be scored this way.
        """
        self.classes = classes

    @abstractmethod
    def prepare(self, probabilities: Probabilities, truth: Indices | None = None) -> Tensor:
        """Turn the probabilities of one image into class indices.

        Args:
            probabilities: ``[K, H, W]`` in 0..1.
            truth: ``[H, W]``, only where ``uses_truth``.

        Returns:
            uint8 ``[H, W]`` on the device of the probabilities.
        """

    @abstractmethod
    def count(self, prediction: Indices, truth: Indices) -> Matrix:
        """Count one image: class indices ``[H, W]`` and truth ``[H, W]`` to int64, rows = truth.

        Returns:
            ``[K, K]``; ``[K + 1, K + 1]`` where the background is a row and a column behind the classes.
        """

    def measure(self, prediction: Indices, truth: Indices) -> Measure | None:
        """What one image ``[H, W]`` is judged by beside its counts; None if a protocol, or this image, has no more."""
        return None

    def miou(self, matrix: NDArray[Any]) -> float:
        """Mean IoU over the classes that occur, of one matrix of ``count`` or a sum of them; NaN if none occurs."""
        return float(scores.mean_known(scores.iou(matrix)[: len(self.classes)]))

    def score_entry(
        self,
        subject: Subject,
        counts: NDArray[Any],
        patients: Sequence[str] | NDArray[Any],
        measures: Sequence[Measure | None] = (),
    ) -> ScoreEntry:
        """Build the object of ``scores.json``.

        Args:
            subject: what was scored.
            counts: ``[N, K, K]`` (or one more, with the background), what ``count`` returned for each image.
            patients: ``N`` labels for the interval, empty where unknown.
            measures: ``N``, what ``measure`` returned for each image; only where a protocol has some.

        Raises:
            EosinError: if no image was counted.
        """
        if not len(counts):
            raise EosinError(f"{subject.dataset}: split {subject.split!r} has no image with a mask to score")
        matrix, size = np.sum(counts, axis=0), len(self.classes)
        iou, dice = scores.iou(matrix)[:size], scores.dice(matrix)[:size]
        intervals = zip(self.classes.names, iou_intervals(counts, patients)[:size], strict=True)
        return {
            **head(subject, self.classes, self.name, self.uses_truth),
            "confusion": [[int(n) for n in row] for row in matrix],
            "iou": by_class(self.classes, iou),
            "miou": known(self.miou(matrix)),
            "dice": by_class(self.classes, dice),
            "mdice": known(scores.mean_known(dice)),
            "accuracy": known(scores.accuracy(matrix)),
            "fwiou": known(scores.fwiou(matrix)),
            "n_images": len(counts),
            "ci95": {
                "miou": [known(end) for end in miou_interval(counts, patients, over=range(size))],
                "iou": {name: [known(end) for end in ends] for name, ends in intervals},
            },
        }


class Strict(Protocol):
    """One confusion matrix over the data set, ignored pixels left out, truth never touches a prediction."""

    name = "strict"
    uses_truth = False

    def prepare(self, probabilities: Probabilities, truth: Indices | None = None) -> Tensor:
        """Take the most probable class of ``[..., K, H, W]``; of equals the first. Truth is not looked at.

        Raises:
            EosinError: if a probability is NaN, or there are not as many maps as classes.
        """
        return checked_maps(probabilities, len(self.classes)).argmax(dim=-3).to(torch.uint8)

    def count(self, prediction: Indices, truth: Indices) -> Matrix:
        """Count the pixels of one image; raises what ``count_pixels`` raises."""
        return count_pixels(prediction, truth, len(self.classes), self.classes.ignore)


def checked_maps(probabilities: Probabilities, classes: int, batches: bool = True) -> Tensor:
    """Probabilities that can be judged, as a tensor on their device.

    Args:
        probabilities: ``[..., K, H, W]``.
        classes: the number K.
        batches: whether there may be more than one image.

    Raises:
        EosinError: if a probability is NaN, or there are not as many maps as classes.
    """
    maps = torch.as_tensor(probabilities)
    if maps.ndim < 3 or maps.shape[-3] != classes or (maps.ndim > 3 and not batches):
        raise EosinError(
            f"probabilities {tuple(maps.shape)} must be [{'..., ' if batches else ''}{classes} classes, H, W]"
        )
    if maps.isnan().any():
        raise EosinError("a predicted probability is NaN: the training has probably diverged; lower fit.lr")
    return maps
