"""How probably a tag is wrong, from scores of models that were trained without it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from eosin.metrics.scores import Floats
from eosin.metrics.tags import _checked

SMALLEST = 1e-4


def doubts(scores: NDArray[Any], tags: NDArray[Any]) -> Floats:
    scores, tags = _checked(scores, tags)
    found = np.full(tags.shape, np.nan)
    for k in range(tags.shape[1]):
        known = ~np.isnan(tags[:, k])
        present = platt(scores[known, k], tags[known, k])
        found[known, k] = np.where(tags[known, k] == 1, 1 - present, present)
    return found


def platt(scores: Floats, tags: Floats) -> Floats:
    x = logit(np.clip(scores, SMALLEST, 1 - SMALLEST))
    p = tags.sum()
    t = np.where(tags == 1, (p + 1) / (p + 2), 1 / (len(tags) - p + 2))
    def loss(w):
        z = w[0] * x + w[1]
        return float(np.mean(np.logaddexp(0, z) - t * z))
    w = minimize(loss, [1.0, 0.0], method="BFGS").x
    return expit(w[0] * x + w[1])
