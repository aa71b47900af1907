"""Exact confusion matrices of class maps, in vectorised numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eosin.core.errors import EosinError, WrongUse

if TYPE_CHECKING:
    from torch import Tensor

Matrix = NDArray[np.int64]


class Confusion:
    """Counts pixels by true class (row) and predicted class (column); counts are int64 and therefore exact.

    Attributes:
        classes: the number of classes K.
        ignore: the truth value that is not counted.
        matrix: int64 ``[K, K]``, rows = truth, columns = prediction.
    """

    def __init__(self, classes: int, ignore: int = 255) -> None:
        """Start with all counts 0.

        Raises:
            WrongUse: if there is no class, or the ignore value is also a class.
        """
        if classes < 1 or 0 <= ignore < classes:
            raise WrongUse(f"{classes} classes with ignore index {ignore}: use at least one class, and 255 to ignore")
        self.classes = classes
        self.ignore = ignore
        self.matrix: Matrix = np.zeros((classes, classes), np.int64)

    def add(self, prediction: NDArray[Any] | Tensor, truth: NDArray[Any] | Tensor) -> None:
        """Count the pixels of one or many maps; takes what ``count_pixels`` takes, raises what it raises."""
        self.matrix += count_pixels(prediction, truth, self.classes, self.ignore)

    def merge(self, other: Confusion) -> None:
        """Add the counts of another matrix of the same classes.

        Raises:
            WrongUse: if the number of classes or the ignore value differs.
        """
        if (self.classes, self.ignore) != (other.classes, other.ignore):
            raise WrongUse("only confusion matrices with the same classes and ignore index can be merged")
        self.matrix += other.matrix


def count_pixels(
    prediction: NDArray[Any] | Tensor, truth: NDArray[Any] | Tensor, classes: int, ignore: int = 255
) -> Matrix:
    """Cross-tabulate class indices.

    Args:
        prediction: integers in ``0..classes-1`` of any shape, numpy or torch on the CPU.
        truth: integers in ``0..classes-1`` or ``ignore``, of the same shape.
        classes: the number of classes K.
        ignore: pixels with this truth value are not counted; it must not be a class.

    Returns:
        int64 ``[K, K]``, rows = truth, columns = prediction.

    Raises:
        EosinError: if the shapes differ, a map does not hold integers, or a value lies outside its range. A predicted
            value is checked where truth is ignored too: a prediction is legal or not without a look at truth.
    """
    predicted, true = np.asarray(prediction), np.asarray(truth)
    if predicted.shape != true.shape:
        raise EosinError(f"prediction {predicted.shape} and truth {true.shape} differ in shape; resize the prediction")
    for name, values in (("prediction", predicted), ("truth", true)):
        if values.dtype.kind not in "iu":
            raise EosinError(f"{name} is {values.dtype}: class indices must be integers")
    _check_range("prediction", predicted, classes)
    # The smallest integers that hold all cells keep a large map in the cache.
    cell = np.min_scalar_type((classes + 1) * classes).type
    ignored = true == ignore
    _check_range("truth", np.where(ignored, cell(0), true), classes)
    # Ignored pixels get a row of their own, which is cut off again: faster than selecting the others.
    row = np.where(ignored, cell(classes), true)
    cells = row.astype(cell) * cell(classes) + predicted.astype(cell)
    counts = np.bincount(cells.ravel(), minlength=(classes + 1) * classes)
    return counts[: classes * classes].reshape(classes, classes).astype(np.int64, copy=False)


def _check_range(name: str, values: NDArray[Any], end: int) -> None:
    if not values.size:
        return
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= end:
        wrong = low if low < 0 else high
        raise EosinError(f"{name} holds {wrong}, which is no class: remap it to one of the classes or to ignore")
