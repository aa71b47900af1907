"""IoU, Dice, accuracy and FwIoU: hand-computed, against loops over pixel sets, against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from eosin.metrics.confusion import count_pixels
from eosin.metrics.scores import accuracy, dice, fwiou, iou, mdice, mean_known, miou
from oracles import segmentation_scores as slow

matrices = st.integers(1, 5).flatmap(
    lambda k: st.lists(st.lists(st.integers(0, 9), min_size=k, max_size=k), min_size=k, max_size=k).map(np.array)
)


def test_the_hand_computed_case():
    """Truth 0,0,1,4 (4 is ignored) against prediction 0,1,1,2, with four classes."""
    matrix = count_pixels(np.array([0, 1, 1, 2]), np.array([0, 0, 1, 4]), 4, ignore=4)
    np.testing.assert_equal(iou(matrix), [0.5, 0.5, np.nan, np.nan])
    assert miou(matrix) == 0.5
    assert accuracy(matrix) == pytest.approx(2 / 3)
    np.testing.assert_allclose(dice(matrix), [2 / 3, 2 / 3, np.nan, np.nan])
    assert mdice(matrix) == pytest.approx(2 / 3)
    assert fwiou(matrix) == pytest.approx(0.5)


def test_predicted_but_never_true_scores_zero():
    matrix = np.array([[3, 1, 0], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_equal(iou(matrix), [0.75, 0.0, np.nan])
    np.testing.assert_allclose(dice(matrix), [6 / 7, 0.0, np.nan])
    assert miou(matrix) == 0.375
    assert fwiou(matrix) == 0.75  # only true classes have weight


def test_fwiou_by_hand():
    # truth 6 and 2 pixels; IoU 5/7 and 1/3
    assert fwiou(np.array([[5, 1], [1, 1]])) == pytest.approx(6 / 8 * 5 / 7 + 2 / 8 * 1 / 3)


def test_nothing_counted_is_unknown():
    empty = np.zeros((2, 2), np.int64)
    assert all(math.isnan(score(empty)) for score in (miou, mdice, accuracy, fwiou))
    assert np.isnan(iou(empty)).all()
    assert np.isnan(dice(empty)).all()


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(0, 30), st.randoms(use_true_random=False))
def test_scores_are_those_of_the_loops(classes, size, chance):
    prediction = [chance.randrange(classes) for _ in range(size)]
    truth = [chance.choice([*range(classes), 255]) for _ in range(size)]
    matrix = count_pixels(np.array(prediction, int), np.array(truth, int), classes)
    ious, dices = slow.class_scores(prediction, truth, classes)
    np.testing.assert_allclose(iou(matrix), ious)
    np.testing.assert_allclose(dice(matrix), dices)
    np.testing.assert_allclose(miou(matrix), slow.mean(ious))
    np.testing.assert_allclose(mdice(matrix), slow.mean(dices))
    np.testing.assert_allclose(accuracy(matrix), slow.accuracy(prediction, truth))
    np.testing.assert_allclose(fwiou(matrix), slow.fwiou(prediction, truth, classes))


@settings(deadline=None)
@given(matrices)
def test_what_must_always_hold(matrix):
    found = iou(matrix)
    known = ~np.isnan(found)
    assert ((found[known] >= 0) & (found[known] <= 1)).all()
    np.testing.assert_allclose(dice(matrix), 2 * found / (1 + found))
    np.testing.assert_allclose(iou(matrix.T), found)  # truth and prediction play the same part
    order = np.arange(len(matrix))[::-1]
    np.testing.assert_allclose(iou(matrix[order][:, order]), found[order])  # the order of classes does not matter
    np.testing.assert_allclose(iou(matrix * 1000), found)  # nor does the size of the data set
    assert np.isnan(mdice(matrix)) or mdice(matrix) >= miou(matrix) - 1e-12
    np.testing.assert_allclose(miou(matrix), slow.matrix_miou(matrix.tolist()))


@settings(deadline=None)
@given(st.lists(matrices.filter(lambda m: len(m) == 3), min_size=1, max_size=3))
def test_stacked_matrices_are_scored_one_by_one(stack):
    np.testing.assert_array_equal(iou(np.array(stack)), [iou(m) for m in stack])
    np.testing.assert_array_equal(dice(np.array(stack)), [dice(m) for m in stack])


def test_agrees_with_sklearn():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, 5000)
    prediction = np.where(rng.random(5000) < 0.6, truth, rng.integers(0, 4, 5000))
    matrix = count_pixels(prediction, truth, 4)
    np.testing.assert_allclose(iou(matrix), jaccard_score(truth, prediction, average=None))
    np.testing.assert_allclose(dice(matrix), f1_score(truth, prediction, average=None))
    assert miou(matrix) == pytest.approx(jaccard_score(truth, prediction, average="macro"))
    assert fwiou(matrix) == pytest.approx(jaccard_score(truth, prediction, average="weighted"))
    assert mdice(matrix) == pytest.approx(f1_score(truth, prediction, average="macro"))
    assert accuracy(matrix) == pytest.approx(accuracy_score(truth, prediction))


def test_all_gland_on_half_gland_is_a_quarter():
    assert miou(np.array([[50, 0], [50, 0]])) == 0.25


def test_mean_known_leaves_nan_out():
    np.testing.assert_equal(mean_known(np.array([[1.0, np.nan, 2.0], [np.nan] * 3])), [1.5, np.nan])


@pytest.mark.filterwarnings("error")
def test_unknown_scores_raise_no_warning():
    assert math.isnan(miou(np.zeros((3, 3), np.int64)))
