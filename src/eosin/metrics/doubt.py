"""How probably a tag is wrong, from what models say that were trained without it.

Confident learning (Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR
2021) ranks labels by the probability that a model which was trained without an item gives to the item's label. Tags are
several labels an item, each present or absent, and the scores of a tag classifier are no probabilities and differ in
scale between classes. So each class has a logistic regression in between, of the given tags on the models' evidence
(stacking: Wolpert, "Stacked Generalization", Neural Networks 1992); it is wrong about few tags, and has too few weights
to learn which.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from eosin.core.errors import EosinError
from eosin.metrics.scores import Floats

SMALLEST = 1e-4  # evidence nearer to 0 or 1 counts as this, so that one sure mistake does not decide a weight


def presence(evidence: NDArray[Any], tags: NDArray[Any], folds: NDArray[np.int64], groups: NDArray[np.int64]) -> Floats:
    """The probability that each class is present in each item, found without the item's own tags.

    What it is found from: the log odds of the item's evidence; their mean over the other items of its group, since
    the stains of a patient shift all scores alike; and how many of those have the tag. The items of a fold are judged
    by weights that the other folds gave.

    Args:
        evidence: ``[N, K, E]`` in 0..1, by models that were trained without the item.
        tags: ``[N, K]``, 1 present, 0 absent, NaN unknown.
        folds: ``[N]``, the fold of each item; at least two.
        groups: ``[N]``, the group of each item, from 0.

    Returns:
        ``[N, K]`` in 0..1, also where the tag is unknown; NaN for a class without a known tag in the other folds.

    Raises:
        EosinError: if evidence is NaN.
    """
    if np.isnan(evidence).any():
        raise EosinError("a tag score is NaN: the training has probably diverged; lower fit.lr")
    said: Floats = logit(np.clip(np.asarray(evidence, np.float64), SMALLEST, 1 - SMALLEST))
    found = np.full(tags.shape, np.nan)
    for k in range(tags.shape[1]):
        own, tag = said[:, k], np.asarray(tags[:, k], np.float64)
        columns = np.column_stack([own, of_others(own, groups), of_others(tag[:, None], groups)])
        for fold in np.unique(folds):
            held, taught = folds == fold, (folds != fold) & ~np.isnan(tag)
            if taught.any():
                found[held, k] = _regressed(columns[taught], tag[taught], columns[held])
    return found


def doubts(presence: Floats, tags: NDArray[Any]) -> Floats:
    """The probability that each tag should be the other one, ``[N, K]`` in 0..1; NaN where it is unknown."""
    return np.asarray(np.abs(tags - presence), np.float64)


def of_others(values: Floats, groups: NDArray[np.int64]) -> Floats:
    """The mean over the other items of each item's group, ``[N, E]`` to ``[N, E]``; NaN values take no part.

    An item without others that are known gets the mean over all items, which says nothing of it (0 if none is known).
    """
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    total, count = (np.zeros((groups.max() + 1, values.shape[1])) for _ in range(2))
    np.add.at(total, groups, filled)
    np.add.at(count, groups, known)
    others = count[groups] - known
    overall = filled.sum(0) / np.maximum(known.sum(0), 1)
    return np.asarray(np.where(others > 0, (total[groups] - filled) / np.maximum(others, 1), overall), np.float64)


def _regressed(columns: Floats, tags: Floats, asked: Floats) -> Floats:
    """Probabilities ``[M]`` for ``asked`` ``[M, E]`` by a logistic regression of tags ``[N]`` on columns ``[N, E]``.

    Columns are brought to mean 0 and spread 1; minimised is the sum of -log p plus half the squared weights.
    """
    if (tags == tags[0]).all():  # nothing to regress on: one of each is added, as in Laplace's rule
        return np.full(len(asked), (tags.sum() + 1) / (len(tags) + 2))
    mean, spread = columns.mean(0), columns.std(0)
    spread[spread < 1e-9] = 1.0
    x = (columns - mean) / spread

    def loss(weights: Floats) -> tuple[float, Floats]:
        odds = x @ weights[1:] + weights[0]
        value = np.sum(np.logaddexp(0, odds) - tags * odds) + 0.5 * weights[1:] @ weights[1:]
        error = expit(odds) - tags
        return float(value), np.append(error.sum(), x.T @ error + weights[1:])

    weights: Floats = minimize(loss, np.zeros(1 + x.shape[1]), jac=True, method="L-BFGS-B").x
    return np.asarray(expit((asked - mean) / spread @ weights[1:] + weights[0]), np.float64)
