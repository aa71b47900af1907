"""How sure a score is: bootstrap intervals that respect that images of one patient are alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosin.core.errors import WrongUse
from eosin.metrics.scores import Floats, iou, mean_known

RESAMPLES = 2000
CELLS = 2**22  # numbers drawn at a time, which bounds the memory to about 64 MB


def miou_interval(
    counts: NDArray[Any], clusters: Sequence[str] | NDArray[Any], seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Percentile bootstrap 95 % interval of the mean IoU of a data set.

    Whole clusters are drawn with replacement, as often as there are clusters. How often each one comes is multinomial,
    so all resampled confusion matrices are one matrix product.

    Args:
        counts: int64 ``[N, K, K]``, one confusion matrix per image.
        clusters: ``N`` labels, as a rule the patients; an image with an empty label is its own cluster.
        seed: of the resampling. The order of the images does not matter where all labels are given.
        resamples: how many data sets are drawn.

    Returns:
        The 2.5 % and 97.5 % quantile, in 0..1; NaN twice with fewer than two clusters, from which nothing about
        other patients can be said. A resample that holds no pixel at all is left out.

    Raises:
        WrongUse: if there are not as many labels as matrices.
    """
    totals = _cluster_totals(counts, clusters)
    size = len(totals)
    if size <= 1:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    even = np.full(size, 1 / size)
    step = max(1, CELLS // size)
    scores = []
    for start in range(0, resamples, step):
        drawn = rng.multinomial(size, even, size=min(step, resamples - start))
        resampled = drawn.astype(np.float64) @ totals.reshape(size, -1)  # exact below 2**53 pixels
        scores.append(mean_known(iou(resampled.reshape(-1, *totals.shape[1:]))))
    known = np.concatenate(scores)
    known = known[~np.isnan(known)]
    if not known.size:
        return float("nan"), float("nan")
    low, high = np.quantile(known, (0.025, 0.975))
    return float(low), float(high)


def _cluster_totals(counts: NDArray[Any], clusters: Sequence[str] | NDArray[Any]) -> Floats:
    """Add up the matrices of each cluster: float64 ``[G, K, K]``, in the order of the sorted labels."""
    labels = np.asarray(clusters, dtype=np.str_)
    if labels.shape != (len(counts),):
        raise WrongUse(f"{len(counts)} confusion matrices need as many cluster labels, not {labels.shape}")
    names, index = np.unique(labels, return_inverse=True)
    alone = np.flatnonzero(labels == "")
    index[alone] = len(names) + np.arange(len(alone))
    _, index = np.unique(index, return_inverse=True)
    totals = np.zeros((int(index.max(initial=-1)) + 1, *counts.shape[1:]), np.float64)
    np.add.at(totals, index, counts)
    return totals
