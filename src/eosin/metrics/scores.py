"""Scores of a confusion matrix (rows = truth, columns = prediction), all in 0..1.

A class that occurs neither in truth nor in the prediction has no score (NaN) and is left out of means. A class that is
predicted but never true scores 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def iou(matrix: NDArray[Any]) -> Floats:
    """Intersection over union of each class, TP / (TP + FP + FN): ``[..., K, K]`` counts to ``[..., K]``."""
    hits, true, predicted = _margins(matrix)
    return _ratio(hits, true + predicted - hits)


def dice(matrix: NDArray[Any]) -> Floats:
    """Dice (= F1) of each class, 2 TP / (2 TP + FP + FN): ``[..., K, K]`` counts to ``[..., K]``."""
    hits, true, predicted = _margins(matrix)
    return _ratio(2 * hits, true + predicted)


def miou(matrix: NDArray[Any]) -> float:
    """Mean IoU of one ``[K, K]`` matrix over the classes that occur; NaN if none does."""
    return float(mean_known(iou(matrix)))


def mdice(matrix: NDArray[Any]) -> float:
    """Mean Dice of one ``[K, K]`` matrix over the classes that occur; NaN if none does."""
    return float(mean_known(dice(matrix)))


def accuracy(matrix: NDArray[Any]) -> float:
    """Share of the counted pixels of one ``[K, K]`` matrix that are right; NaN if no pixel was counted."""
    hits, true, _ = _margins(matrix)
    return float(_ratio(hits.sum(-1), true.sum(-1)))


def fwiou(matrix: NDArray[Any]) -> float:
    """IoU of one ``[K, K]`` matrix weighted by each class's share of the truth; NaN if no pixel was counted."""
    _, true, _ = _margins(matrix)
    # A class without truth has weight 0, whether its IoU is 0 or unknown.
    return float(_ratio(np.nansum(true * iou(matrix), axis=-1), true.sum(-1)))


def mean_known(values: NDArray[Any]) -> Floats:
    """Mean over the last axis without its NaN: ``[..., K]`` to ``[...]``; NaN where all are."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0.0).sum(-1), known.sum(-1))


def _margins(matrix: NDArray[Any]) -> tuple[Floats, Floats, Floats]:
    """Hits, true pixels and predicted pixels of each class. Float64 is exact for counts below 2**53."""
    counts = np.asarray(matrix, np.float64)
    return np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1), counts.sum(-2)


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    with np.errstate(invalid="ignore"):  # 0 / 0 is "unknown", and NaN says so
        return np.asarray(np.divide(part, whole), np.float64)
