"""Differences of two arms: the permutation test, paired intervals, Holm, and the papers' t test."""

from __future__ import annotations

import math
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from eosin.core.errors import WrongUse
from eosin.metrics import statistics
from eosin.metrics.scores import miou
from eosin.metrics.statistics import TTest, difference_interval, holm, miou_interval, permutation_test, t_test
from oracles import permutation as slow


def arms(images: int, seed: int = 0, seeds: int = 0, better: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Two arms on the same truth; a share ``better`` of the first one's errors is mended."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 60, (images, 3))  # of each class in each image
    found = []
    for mended in (better, 0.0):
        shape = (max(1, seeds), images, 3)
        hits = rng.binomial(np.broadcast_to(pixels, shape), 0.6 + 0.4 * mended)
        counts = np.zeros((*shape, 3), np.int64)
        missed = rng.binomial(pixels - hits, 0.5)
        for k in range(3):
            counts[..., k, k] = hits[..., k]
            counts[..., k, (k + 1) % 3] = missed[..., k]
            counts[..., k, (k + 2) % 3] = (pixels - hits - missed)[..., k]
        found.append(counts if seeds else counts[0])
    return found[0], found[1]


def labels(images: int, clusters: int) -> list[str]:
    return [f"p{i % clusters}" for i in range(images)]


@pytest.mark.parametrize("over", [None, [0, 2]])
@pytest.mark.parametrize("seeds", [0, 1, 3])
@pytest.mark.parametrize("better", [0.0, 0.15])
def test_five_clusters_are_enumerated(seeds, better, over):
    a, b = arms(12, seed=seeds, seeds=seeds, better=better)
    clusters = labels(12, 5)
    found = permutation_test(a, b, clusters, over=over)
    nested = [arm.tolist() if seeds else [arm.tolist()] for arm in (a, b)]
    difference, p = slow.enumerated(*nested, clusters, over or range(3))
    assert (found.difference, found.p) == pytest.approx((difference, p))
    assert (found.clusters, found.exact) == (5, True)


@pytest.mark.parametrize("clusters", [1, 2, 5, 12])
def test_the_smallest_exact_p(clusters):
    a, b = arms(24, better=0.8)
    found = permutation_test(a, b, labels(24, clusters))
    assert found.exact
    assert found.p == 2 / 2**clusters  # as it is and with all swapped


def test_beyond_twelve_clusters_p_is_drawn_and_never_zero():
    a, b = arms(26, better=0.8)
    found = permutation_test(a, b, labels(26, 13), permutations=999)
    assert not found.exact
    assert found.p == pytest.approx(1 / 1000)


def test_drawn_p_is_close_to_the_exact_one(monkeypatch):
    a, b = arms(40, seed=3, better=0.03)
    clusters = labels(40, 11)
    exact = permutation_test(a, b, clusters)
    monkeypatch.setattr(statistics, "EXACT", 3)
    drawn = permutation_test(a, b, clusters)
    assert exact.exact and not drawn.exact
    assert 0.02 < exact.p < 0.9
    assert drawn.p == pytest.approx(exact.p, abs=4 * math.sqrt(exact.p * (1 - exact.p) / 10_000))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([4, 9, 14]), st.sampled_from([0, 2]), st.sampled_from([0.0, 0.1]))
def test_swapping_the_arms_negates_the_difference_and_keeps_p(seed, clusters, seeds, better):
    a, b = arms(20, seed=seed, seeds=seeds, better=better)
    there = permutation_test(a, b, labels(20, clusters), permutations=200)
    back = permutation_test(b, a, labels(20, clusters), permutations=200)
    assert back.difference == pytest.approx(-there.difference, abs=1e-15)
    assert back.p == there.p
    assert 0 < there.p <= 1
    low, high = difference_interval(a, b, labels(20, clusters), resamples=200)
    assert difference_interval(b, a, labels(20, clusters), resamples=200) == pytest.approx((-high, -low))


def test_p_is_uniform_where_the_arms_do_not_differ():
    p = [permutation_test(*arms(30, seed=seed), labels(30, 10)).p for seed in range(300)]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert 0.02 < np.mean(np.array(p) <= 0.05) < 0.09
    drawn = [permutation_test(*arms(30, seed=seed), [""] * 30, permutations=200).p for seed in range(200)]
    assert stats.kstest(drawn, "uniform").pvalue > 0.01


def test_p_is_small_where_they_do():
    a, b = arms(60, better=0.3)
    assert permutation_test(a, b, [""] * 60).p < 0.001


def test_equal_arms_do_not_differ():
    a, _ = arms(8)
    found = permutation_test(a, a, labels(8, 4))
    assert (found.difference, found.p) == (0.0, 1.0)
    assert difference_interval(a, a, labels(8, 4)) == (0.0, 0.0)


def test_images_of_one_patient_move_together():
    """Many images of few patients do not make a difference surer."""
    a, b = arms(4, better=0.5)
    many = np.repeat(a, 25, axis=0), np.repeat(b, 25, axis=0)
    assert permutation_test(*many, np.repeat(list("wxyz"), 25)).p == permutation_test(a, b, list("wxyz")).p >= 2 / 16
    assert permutation_test(*many, [""] * 100).p < 0.01


def test_nothing_to_compare_is_unknown():
    empty = np.zeros((0, 3, 3), np.int64)
    found = permutation_test(empty, empty, [])
    assert math.isnan(found.difference) and math.isnan(found.p) and found.clusters == 0
    nothing = np.zeros((4, 3, 3), np.int64)
    assert math.isnan(permutation_test(nothing, nothing, list("abcd")).p)
    assert all(math.isnan(end) for end in difference_interval(*arms(3), ["a"] * 3))


def test_arms_must_be_paired():
    a, b = arms(6)
    with pytest.raises(WrongUse, match="not scored on the same truth"):
        permutation_test(a, b[::-1], list("abcdef"))
    with pytest.raises(WrongUse, match="paired arms need the same images"):
        difference_interval(a, b[:5], list("abcdef"))
    with pytest.raises(WrongUse, match="6 confusion matrices need as many cluster labels"):
        permutation_test(a, b, list("abc"))


def test_the_size_of_a_chunk_changes_nothing(monkeypatch):
    a, b = arms(40, seeds=2, better=0.05)
    for clusters in (labels(40, 9), [""] * 40):
        whole = permutation_test(a, b, clusters), difference_interval(a, b, clusters)
        with monkeypatch.context() as patch:
            patch.setattr(statistics, "CELLS", 40 * 7)
            assert (permutation_test(a, b, clusters), difference_interval(a, b, clusters)) == whole


def test_thousands_of_clusters_take_seconds():
    a, b = arms(2000, seeds=3, better=0.01)
    start = time.process_time()
    assert not permutation_test(a, b, [""] * 2000).exact
    assert time.process_time() - start < 20


def test_the_score_of_seeds_is_the_mean_of_their_scores():
    a, _ = arms(1, seeds=3)
    repeated = np.repeat(a, 5, axis=1)  # no doubt is left, so that the interval is the score
    expected = np.mean([miou(seed.sum(0)) for seed in repeated])
    assert miou_interval(repeated, list("abcde")) == pytest.approx((expected, expected))
    assert miou_interval(repeated[:1], list("abcde")) == miou_interval(repeated[0], list("abcde"))


def test_the_interval_of_a_difference_is_paired():
    """What makes an image hard is hard for both arms, and cancels."""
    a, b = arms(60, seed=2, better=0.1)
    clusters = [""] * 60
    low, high = difference_interval(a, b, clusters)
    assert low < miou(a.sum(0)) - miou(b.sum(0)) < high
    rng, scores = np.random.default_rng(7), []
    for _ in range(1500):
        drawn = rng.integers(0, 60, 60)
        scores.append(miou(a[drawn].sum(0)) - miou(b[drawn].sum(0)))
    expected = np.quantile(scores, (0.025, 0.975))
    np.testing.assert_allclose((low, high), expected, atol=0.1 * (expected[1] - expected[0]))
    one = miou_interval(a, clusters), miou_interval(b, clusters)
    assert miou_interval(a, clusters, over=[1]) != one[0]
    assert difference_interval(a, b, clusters, over=[1]) != (low, high)


def test_holm_by_hand():
    # 4 x .005, 3 x .011, 2 x .02, 1 x .04; the last two are lifted to the one before where they are smaller
    assert holm([0.02, 0.005, 0.04, 0.011]) == pytest.approx([0.04, 0.02, 0.04, 0.033])
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([0.05]) == [0.05]
    assert holm([]) == []


def test_holm_leaves_out_tests_that_were_not_made():
    found = holm([0.02, math.nan, 0.5])
    assert found[::2] == pytest.approx([0.04, 0.5])
    assert math.isnan(found[1])


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_agrees_with_step_down_by_loops(p):
    assert holm(p) == pytest.approx(slow.holm(p))
    assert all(corrected >= value - 1e-15 for corrected, value in zip(holm(p), p, strict=True))


def test_holm_refuses_what_is_no_p():
    with pytest.raises(WrongUse, match=r"must be in 0\.\.1"):
        holm([0.5, 1.5])


def test_the_t_test_by_hand():
    # means 2 and 4, both variances 1, n = 3: t = -2 / sqrt(2/3), 4 degrees of freedom
    found = t_test([1, 2, 3], [3, 4, 5])
    assert found.t == pytest.approx(-2 / math.sqrt(2 / 3))
    assert found.p == pytest.approx(0.0705, abs=5e-4)
    assert found.stars == ""


def test_the_t_test_is_that_of_scipy_and_symmetric():
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.5, 2.0):
        a, b = rng.normal(0, 1, 5).tolist(), rng.normal(shift, 1, 7).tolist()
        expected = stats.ttest_ind(a, b, equal_var=True)
        found, back = t_test(a, b), t_test(b, a)
        assert (found.t, found.p) == pytest.approx((expected.statistic, expected.pvalue))
        assert (back.t, back.p) == pytest.approx((-found.t, found.p))


@pytest.mark.parametrize(
    ("gap", "stars"),
    # with 3 + 3 values and variance 1, 4 degrees of freedom: critical t 2.776, 4.604, 8.610, times sqrt(2/3)
    [(2.25, ""), (2.28, "*"), (3.74, "*"), (3.78, "**"), (7.0, "**"), (7.06, "***")],
)
def test_stars(gap, stars):
    assert t_test([1, 2, 3], [1 + gap, 2 + gap, 3 + gap]).stars == stars


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [2.0, 3.0]), ([1.0, 2.0], [3.0]), ([1.0, 1.0], [2.0, 2.0])])
def test_without_spread_there_is_no_t_test(a, b):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert t_test(a, b) is None


@pytest.mark.filterwarnings("error")
def test_one_constant_arm_is_enough_for_a_t_test():
    found = t_test([0.5, 0.5], [0.6, 0.7])  # difference -.15, variance .005 / 2, both with n = 2
    assert found == TTest(pytest.approx(-0.15 / math.sqrt(0.0025)), pytest.approx(stats.t.sf(3, 2) * 2), "")
