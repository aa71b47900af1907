"""The bootstrap: exact where it can be known, close to a slow one, wider when images of a patient are alike."""

from __future__ import annotations

import math

import numpy as np
import pytest

from eosin.core.errors import WrongUse
from eosin.metrics import statistics
from eosin.metrics.scores import miou
from eosin.metrics.statistics import iou_intervals, miou_interval
from oracles import segmentation_scores as slow


def images(count: int, seed: int = 0, spread: int = 60) -> np.ndarray:
    """Confusion matrices of images that differ in how well they are predicted."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 40, (count, 3, 3))
    counts[:, range(3), range(3)] += rng.integers(0, spread, (count, 3))
    return counts


def test_two_clusters_are_known_exactly():
    # Drawn are AA, AB, BA or BB, a quarter each: the interval runs from the worse to the better one.
    counts = images(2)
    worse, better = sorted(miou(m) for m in counts)
    assert miou_interval(counts, ["a", "b"]) == (pytest.approx(worse), pytest.approx(better))


def test_equal_images_leave_no_doubt():
    counts = np.repeat(images(1), 12, axis=0)
    assert miou_interval(counts, [str(i) for i in range(12)]) == pytest.approx((miou(counts[0]),) * 2)


def test_close_to_the_slow_bootstrap():
    counts = images(24)
    clusters = [f"p{i % 8}" for i in range(24)]
    scores = slow.bootstrap_miou(counts.tolist(), clusters, 1500, seed=3)
    expected = np.quantile(scores, (0.025, 0.975))
    found = miou_interval(counts, clusters, seed=1)
    np.testing.assert_allclose(found, expected, atol=0.05 * (expected[1] - expected[0]))


def test_seeded_and_without_regard_to_order():
    counts = images(30)
    clusters = np.array([f"p{i % 7}" for i in range(30)])
    order = np.random.default_rng(5).permutation(30)
    interval = miou_interval(counts, clusters)
    assert interval == miou_interval(counts, clusters)
    assert interval == miou_interval(counts[order], clusters[order])
    assert interval != miou_interval(counts, clusters, seed=1)


def test_alike_images_of_a_patient_make_it_wider():
    patients = images(6)
    counts = np.repeat(patients, 20, axis=0)
    clusters = np.repeat([f"p{i}" for i in range(6)], 20)
    low, high = miou_interval(counts, clusters)
    low_images, high_images = miou_interval(counts, [""] * 120)
    assert high - low > 3 * (high_images - low_images)
    assert low < miou(counts.sum(0)) < high


def test_an_unknown_patient_is_a_cluster_of_its_own():
    counts = images(9)
    named = ["x", "x", "x", "y", "y", *"abcd"]
    unnamed = ["x", "x", "x", "y", "y", "", "", "", ""]
    wide = np.array(miou_interval(counts, named))
    np.testing.assert_allclose(miou_interval(counts, unnamed), wide, atol=0.05 * (wide[1] - wide[0]) + 0.01)
    assert not math.isnan(miou_interval(counts[:2], ["", ""])[0])


@pytest.mark.parametrize("clusters", [["p", "p", "p"], []])
def test_one_cluster_says_nothing(clusters):
    assert all(math.isnan(end) for end in miou_interval(images(3)[: len(clusters)], clusters))


@pytest.mark.filterwarnings("error")
def test_images_without_pixels():
    nothing = np.zeros((4, 2, 2), np.int64)
    assert all(math.isnan(end) for end in miou_interval(nothing, list("abcd")))
    nothing[0] = [[5, 1], [2, 7]]  # a resample without this image holds no pixel and is left out
    assert miou_interval(nothing, list("abcd")) == pytest.approx((miou(nothing[0]),) * 2)


def test_the_size_of_a_chunk_changes_nothing(monkeypatch):
    counts, clusters = images(40), [str(i) for i in range(40)]
    whole = miou_interval(counts, clusters)
    monkeypatch.setattr(statistics, "CELLS", 40 * 7)
    assert miou_interval(counts, clusters) == whole


@pytest.mark.parametrize("seeds", [0, 3])
def test_intervals_of_all_classes_are_those_of_each(seeds):
    counts = images(30 * max(seeds, 1)).reshape(*([seeds] if seeds else []), 30, 3, 3)
    counts[..., 2, :] = counts[..., :, 2] = 0  # never true and never predicted
    clusters = [f"p{i % 7}" for i in range(30)]
    found = iou_intervals(counts, clusters)
    assert found[:2] == [pytest.approx(miou_interval(counts, clusters, over=[k])) for k in range(2)]
    assert np.isnan(found[2]).all()
    assert np.isnan(iou_intervals(counts, ["a"] * 30)).all()


def test_huge_counts_are_added_exactly():
    # 2**24 + 1 is the first whole number that float32 cannot hold
    counts = np.array([[[2**24, 1], [0, 1]], [[2**24 + 1, 1], [0, 1]]])
    low, high = miou_interval(counts, ["a", "b"])
    assert (low, high) == tuple(sorted(miou(m) for m in counts))
    assert low < high


def test_labels_must_fit():
    with pytest.raises(WrongUse, match="3 confusion matrices"):
        miou_interval(images(3), ["a", "b"])
