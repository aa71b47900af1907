"""Scores of image-level tags. Unknown tags (NaN) take no part, each class for itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosin.core.errors import EosinError
from eosin.metrics.scores import Floats, mean_known

THRESHOLD = 0.5


def average_precision(scores: NDArray[Any], tags: NDArray[Any]) -> Floats:
    """Average precision of each class: sum over thresholds of precision times the recall gained there.

    Images with equal scores enter together, as in scikit-learn's ``average_precision_score``.

    Args:
        scores: ``[N, K]`` in 0..1.
        tags: ``[N, K]``, 1 present, 0 absent, NaN unknown.

    Returns:
        float64 ``[K]`` in 0..1; NaN for a class whose known tags are all equal (or none).

    Raises:
        EosinError: if shapes differ, a score is not in 0..1 or a tag is not 0, 1 or NaN.
    """
    scores, tags = _checked(scores, tags)
    known = ~np.isnan(tags)
    columns = range(tags.shape[1])
    return np.array([_precision_of_one(scores[known[:, k], k], tags[known[:, k], k] == 1) for k in columns], np.float64)


def mean_average_precision(scores: NDArray[Any], tags: NDArray[Any]) -> float:
    """Mean of ``average_precision`` over the classes that have one; NaN if none has."""
    return float(mean_known(average_precision(scores, tags)))


def exact_match(scores: NDArray[Any], tags: NDArray[Any]) -> float:
    """Share of the images whose known tags are all right at a score of 0.5 or more = present.

    Takes and raises what ``average_precision`` does. Images without a known tag are left out; NaN if none is left.
    """
    scores, tags = _checked(scores, tags)
    known = ~np.isnan(tags)
    right = ((scores >= THRESHOLD) == (tags == 1)) | ~known
    counted = known.any(1)
    return float(right[counted].all(1).mean()) if counted.any() else float("nan")


def _precision_of_one(scores: Floats, present: NDArray[np.bool_]) -> float:
    if present.all() or not present.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # the last image of each distinct score
    found = np.cumsum(present[order])[last]
    precision = found / (last + 1)
    recall_gained = np.diff(found, prepend=0) / found[-1]
    return float(precision @ recall_gained)


def _checked(scores: NDArray[Any], tags: NDArray[Any]) -> tuple[Floats, Floats]:
    scores, tags = np.asarray(scores, np.float64), np.asarray(tags, np.float64)
    if scores.shape != tags.shape or tags.ndim != 2:
        raise EosinError(f"tag scores {scores.shape} and tags {tags.shape} must both be [images, classes]")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise EosinError("a tag score is NaN or not in 0..1: the training has probably diverged; lower fit.lr")
    if not (np.isnan(tags) | (tags == 0) | (tags == 1)).all():
        raise EosinError("a tag is neither 0 nor 1 nor unknown: mend items.csv")
    return scores, tags
