"""How sure a score is, and a difference of two: tests that respect that images of one patient are alike.

Counts are ``[N, K, K]``, one confusion matrix per image, or ``[S, N, K, K]`` for S seeds of one method on the same
images. The score of a data set is the mean IoU of the summed matrix; of several seeds, the mean of their scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from eosin.core.errors import WrongUse
from eosin.metrics.scores import Floats, iou, mean_known

RESAMPLES = 2000
PERMUTATIONS = 10_000
EXACT = 12  # up to so many clusters, all 2**12 swaps are tried
CELLS = 2**22  # numbers drawn at a time, which bounds the memory to about 64 MB
TIE = 1e-12  # differences of mIoU that are as large up to rounding

Labels = Sequence[str] | NDArray[Any]
Stars = Literal["", "*", "**", "***"]


@dataclass(frozen=True, slots=True)
class Permutation:
    """What a permutation test found.

    Attributes:
        difference: mIoU of the first arm minus that of the second, in -1..1; NaN if it is not known.
        p: two-sided; NaN if there is no difference to test.
        clusters: how many were swapped.
        exact: whether every possible swap was tried.
    """

    difference: float
    p: float
    clusters: int
    exact: bool


@dataclass(frozen=True, slots=True)
class TTest:
    """What a t test found: ``t``, ``p`` (two-tailed), and ``stars`` as papers print them."""

    t: float
    p: float
    stars: Stars


def miou_interval(
    counts: NDArray[Any],
    clusters: Labels,
    seed: int = 0,
    resamples: int = RESAMPLES,
    over: Sequence[int] | None = None,
) -> tuple[float, float]:
    """Percentile bootstrap 95 % interval of the mean IoU of a data set.

    Whole clusters are drawn with replacement, as often as there are clusters. How often each one comes is multinomial,
    so all resampled confusion matrices are one matrix product.

    Args:
        counts: int64 ``[N, K, K]`` or ``[S, N, K, K]``.
        clusters: ``N`` labels, as a rule the patients; an image with an empty label is its own cluster.
        seed: of the resampling. The order of the images does not matter where all labels are given.
        resamples: how many data sets are drawn.
        over: the classes whose IoU is averaged; None for all.

    Returns:
        The 2.5 % and 97.5 % quantile, in 0..1; NaN twice with fewer than two clusters, from which nothing about
        other patients can be said. A resample that holds no pixel at all is left out.

    Raises:
        WrongUse: if there are not as many labels as matrices.
    """
    return _intervals(_cluster_totals(counts, clusters), lambda drawn: _score(drawn, over), seed, resamples)[0]


def iou_intervals(
    counts: NDArray[Any], clusters: Labels, seed: int = 0, resamples: int = RESAMPLES
) -> list[tuple[float, float]]:
    """The interval of each class's IoU, from the same draws as ``miou_interval``, whose arguments it takes.

    Returns:
        One pair for each of the K classes; a resample without the class is left out.

    Raises:
        WrongUse: if there are not as many labels as matrices.
    """
    totals = _cluster_totals(counts, clusters)
    # Of several seeds the mean, which stands before the classes: [R, S, K] to [R, K].
    return _intervals(totals, lambda drawn: mean_known(iou(drawn).swapaxes(-1, -2)), seed, resamples)


def difference_interval(
    a: NDArray[Any],
    b: NDArray[Any],
    clusters: Labels,
    seed: int = 0,
    resamples: int = RESAMPLES,
    over: Sequence[int] | None = None,
) -> tuple[float, float]:
    """Percentile bootstrap 95 % interval of a's mean IoU minus b's; the same clusters are drawn for both.

    Args:
        a: as ``miou_interval``.
        b: of the same shape, for the same images in the same order.
        clusters: as ``miou_interval``.
        seed: of the resampling.
        resamples: how many data sets are drawn.
        over: the classes whose IoU is averaged; None for all.

    Returns:
        The 2.5 % and 97.5 % quantile, in -1..1; NaN twice with fewer than two clusters.

    Raises:
        WrongUse: if the arms differ in shape or in their truth, or there are not as many labels as matrices.
    """
    return _intervals(_paired_totals(a, b, clusters), lambda drawn: _gap(drawn, over), seed, resamples)[0]


def permutation_test(
    a: NDArray[Any],
    b: NDArray[Any],
    clusters: Labels,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
    over: Sequence[int] | None = None,
) -> Permutation:
    """Two-sided paired test of a difference in mean IoU (Fisher's randomisation test, on clusters).

    If neither arm is better, which arm a patient's confusion matrices came from is a toss of a coin. So whole clusters
    are swapped between the arms, all seeds of a cluster together, and p is the share of swaps that give at least the
    difference that was seen. Up to 12 clusters G all swaps are tried: p is exact and at least 2 / 2**G. Beyond that
    ``permutations`` swaps are drawn and p is (b + 1) / (permutations + 1), which never claims 0.

    The coin is one of patients: p tells whether these trained models would differ on other patients, too. The luck of
    a training is shared by all patients of a run and is not in it, so that two arms of one method whose seeds scatter
    are often told apart. Whether every paired seed gains is to be asked besides.

    Args:
        a: int64 ``[N, K, K]`` or ``[S, N, K, K]``, seeds paired with those of ``b``.
        b: of the same shape, for the same images in the same order.
        clusters: ``N`` labels, as a rule the patients; an image with an empty label is its own cluster.
        seed: of the drawing.
        permutations: how many swaps are drawn where not all are tried.
        over: the classes whose IoU is averaged; None for all.

    Returns:
        Difference (a minus b) and p.

    Raises:
        WrongUse: if the arms differ in shape or in their truth, or there are not as many labels as matrices.
    """
    totals = _paired_totals(a, b, clusters)
    size, exact = len(totals), len(totals) <= EXACT
    whole = totals.sum(0)
    seen = float(_gap(whole, over))
    if np.isnan(seen):
        return Permutation(seen, float("nan"), size, exact)
    # A swap moves what the arms of a cluster differ by from one sum to the other: one matrix product for all swaps.
    differ = (totals[:, 1] - totals[:, 0]).reshape(size, -1)
    extreme = 0
    for swapped in _swaps(size, exact, seed, permutations, max(1, CELLS // max(differ.shape))):
        moved = (swapped.astype(np.float64) @ differ).reshape(-1, *whole.shape[1:])
        gaps = np.abs(_score(whole[0] + moved, over) - _score(whole[1] - moved, over))
        extreme += int(np.count_nonzero(~(gaps < abs(seen) - TIE)))  # what is not known speaks against a difference
    p = extreme / 2**size if exact else (extreme + 1) / (permutations + 1)
    return Permutation(seen, p, size, exact)


def holm(p: Sequence[float]) -> list[float]:
    """Correct p values of several tests at once (Holm 1979, step down).

    Args:
        p: in 0..1 in any order; NaN for a test that could not be made, which then does not count as one.

    Returns:
        The corrected values in the same order, at most 1; NaN stays.

    Raises:
        WrongUse: if a value is outside 0..1.
    """
    values = np.asarray(p, np.float64)
    if ((values < 0) | (values > 1)).any():
        raise WrongUse(f"p values {list(p)} must be in 0..1")
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    weights = np.arange(len(order), 0, -1)
    values[order] = np.minimum(np.maximum.accumulate(values[order] * weights), 1)
    return [float(value) for value in values]


def t_test(a: Sequence[float], b: Sequence[float]) -> TTest | None:
    """The t test that papers print: two-tailed, independent samples, equal variances, over seeds.

    It ignores that the seeds share their images and says nothing about other patients: label it "as printed".

    Args:
        a: one score per seed.
        b: likewise, of the other arm.

    Returns:
        t, p and the stars (* p < .05, ** p < .01, *** p < .001); None with fewer than two values in an arm, or if
        neither arm varies.
    """
    from scipy.stats import ttest_ind_from_stats

    if min(len(a), len(b)) < 2 or (np.ptp(a) == 0 and np.ptp(b) == 0):
        return None
    # ttest_ind is the same and warns where one arm is constant.
    arms = [(np.mean(arm), np.std(arm, ddof=1), len(arm)) for arm in (a, b)]
    found = ttest_ind_from_stats(*arms[0], *arms[1])
    return TTest(float(found.statistic), float(found.pvalue), _stars(float(found.pvalue)))


def _stars(p: float) -> Stars:
    if p < 0.001:
        return "***"
    if p < 0.01:
        return "**"
    return "*" if p < 0.05 else ""


def _intervals(
    totals: Floats, statistic: Callable[[Floats], Floats], seed: int, resamples: int
) -> list[tuple[float, float]]:
    """Bootstrap what a statistic makes of resampled sums of clusters.

    Args:
        totals: ``[G, ...]``; fewer than two say nothing.
        statistic: ``[R, ...]`` sums to ``[R]`` or ``[R, M]`` values, NaN where not known.
        seed: of the drawing.
        resamples: how many sums are drawn.

    Returns:
        The interval of each of the M values.
    """
    size = len(totals)
    found = [statistic(np.zeros((1, *totals.shape[1:])))]  # without a pixel nothing is known; it is left out below
    if size > 1:
        rng = np.random.default_rng(seed)
        even, flat = np.full(size, 1 / size), totals.reshape(size, -1)
        step = max(1, CELLS // max(flat.shape))
        for start in range(0, resamples, step):
            drawn = rng.multinomial(size, even, size=min(step, resamples - start))
            resampled = drawn.astype(np.float64) @ flat  # exact below 2**53 pixels
            found.append(statistic(resampled.reshape(-1, *totals.shape[1:])))
    values = np.concatenate(found)
    return [_middle(column) for column in values.reshape(len(values), -1).T]


def _middle(values: Floats) -> tuple[float, float]:
    """Where the middle 95 % of the values lie that are known."""
    known = values[~np.isnan(values)]
    if not known.size:
        return float("nan"), float("nan")
    low, high = np.quantile(known, (0.025, 0.975))
    return float(low), float(high)


def _swaps(size: int, exact: bool, seed: int, permutations: int, step: int) -> Iterator[NDArray[np.bool_]]:
    """Which clusters are swapped, bool ``[up to step, size]`` at a time: every way once, or drawn ones."""
    rng, count = np.random.default_rng(seed), 2**size if exact else permutations
    for start in range(0, count, step):
        end = min(start + step, count)
        if exact:
            yield (np.arange(start, end)[:, None] >> np.arange(size) & 1).astype(np.bool_)
        else:
            yield rng.random((end - start, size)) < 0.5


def _score(matrices: Floats, over: Sequence[int] | None) -> Floats:
    """Mean IoU, then the mean over seeds: ``[..., S, K, K]`` to ``[...]``."""
    found = iou(matrices)
    return mean_known(mean_known(found if over is None else found[..., list(over)]))


def _gap(matrices: Floats, over: Sequence[int] | None) -> Floats:
    """The first arm's score minus the second's: ``[..., 2, S, K, K]`` to ``[...]``."""
    scores = _score(matrices, over)
    return np.asarray(scores[..., 0] - scores[..., 1], np.float64)


def _paired_totals(a: NDArray[Any], b: NDArray[Any], clusters: Labels) -> Floats:
    """Add up the matrices of each cluster in both arms: float64 ``[G, 2, S, K, K]``."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        raise WrongUse(f"confusion matrices {a.shape} and {b.shape}: paired arms need the same images, classes, seeds")
    if not np.array_equal(a.sum(-1), b.sum(-1)):
        raise WrongUse("the arms were not scored on the same truth: give both the same images in the same order")
    return np.stack([_cluster_totals(arm, clusters) for arm in (a, b)], axis=1)


def _cluster_totals(counts: NDArray[Any], clusters: Labels) -> Floats:
    """Add up the matrices of each cluster: float64 ``[G, S, K, K]``, in the order of the sorted labels."""
    counts = np.asarray(counts)
    by_image = counts[:, None] if counts.ndim == 3 else counts.swapaxes(0, 1)
    labels = np.asarray(clusters, dtype=np.str_)
    if labels.shape != by_image.shape[:1]:
        raise WrongUse(f"{len(by_image)} confusion matrices need as many cluster labels, not {labels.shape}")
    names, index = np.unique(labels, return_inverse=True)
    alone = np.flatnonzero(labels == "")
    index[alone] = len(names) + np.arange(len(alone))
    _, index = np.unique(index, return_inverse=True)
    totals = np.zeros((int(index.max(initial=-1)) + 1, *by_image.shape[1:]), np.float64)
    np.add.at(totals, index, by_image)
    return totals
