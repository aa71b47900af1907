"""Confusion matrices: exact, strict about values, the same as counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from eosin.core.errors import EosinError, WrongUse
from eosin.metrics.confusion import Confusion, count_pixels
from oracles import segmentation_scores as slow


@st.composite
def maps(draw, most_pixels=40):
    classes = draw(st.integers(1, 6))
    size = draw(st.integers(0, most_pixels))
    label = st.integers(0, classes - 1)
    prediction = draw(st.lists(label, min_size=size, max_size=size))
    truth = draw(st.lists(label | st.just(255), min_size=size, max_size=size))
    return prediction, truth, classes


@settings(deadline=None)
@given(maps(), st.sampled_from([np.uint8, np.uint16, np.int16, np.int32, np.int64]))
def test_counts_are_those_of_the_loop(case, dtype):
    prediction, truth, classes = case
    found = count_pixels(np.array(prediction, dtype), np.array(truth, dtype), classes)
    assert found.dtype == np.int64
    assert found.tolist() == slow.confusion(prediction, truth, classes)


@settings(deadline=None)
@given(maps())
def test_torch_and_numpy_agree(case):
    prediction, truth, classes = case
    expected = slow.confusion(prediction, truth, classes)
    as_bytes = torch.tensor(prediction, dtype=torch.uint8), torch.tensor(truth, dtype=torch.uint8)
    assert count_pixels(*as_bytes, classes).tolist() == expected
    assert count_pixels(as_bytes[0].long(), np.array(truth, np.uint8), classes).tolist() == expected


@settings(deadline=None)
@given(maps(), maps())
def test_adding_merging_and_joining_are_the_same(first, second):
    classes = max(first[2], second[2])
    added, merged, other = Confusion(classes), Confusion(classes), Confusion(classes)
    for prediction, truth, _ in (first, second):
        added.add(np.array(prediction, np.uint8), np.array(truth, np.uint8))
    merged.add(np.array(first[0], np.uint8), np.array(first[1], np.uint8))
    other.add(np.array(second[0], np.uint8), np.array(second[1], np.uint8))
    merged.merge(other)
    joined = slow.confusion(first[0] + second[0], first[1] + second[1], classes)
    assert added.matrix.tolist() == merged.matrix.tolist() == joined


def test_rows_are_truth():
    assert count_pixels(np.array([1]), np.array([0]), 2).tolist() == [[0, 1], [0, 0]]


def test_agrees_with_sklearn_on_images():
    rng = np.random.default_rng(0)
    prediction, truth = rng.integers(0, 5, (2, 3, 64, 48), dtype=np.uint8)
    assert np.array_equal(
        count_pixels(prediction, truth, 5),
        confusion_matrix(truth.ravel(), prediction.ravel(), labels=range(5)),
    )


def test_exact_above_two_to_the_24():
    # float32 counting stops at 2**24: adding 1 no longer changes the sum
    size = 2**24 + 3
    one = np.broadcast_to(np.uint8(1), size)
    confusion = Confusion(2)
    confusion.add(one, np.broadcast_to(np.uint8(0), size))
    confusion.add(one[:1], one[:1] * 0)
    assert confusion.matrix.dtype == np.int64
    assert confusion.matrix.tolist() == [[0, size + 1], [0, 0]]


def test_many_classes():
    labels = np.arange(300)
    assert np.array_equal(count_pixels(labels, labels, 300, ignore=-1), np.eye(300))


def test_ignore_index_may_be_another():
    assert count_pixels(np.array([0, 1, 1]), np.array([0, 4, 1]), 2, ignore=4).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("wrong", [-1, 2, 255])
@pytest.mark.parametrize("true", [0, 255])
def test_a_prediction_out_of_range_is_refused_even_where_truth_is_ignored(wrong, true):
    with pytest.raises(EosinError, match=f"prediction holds {wrong}, which is no class"):
        count_pixels(np.array([0, wrong]), np.array([0, true]), 2)


@pytest.mark.parametrize("wrong", [-1, 2, 3, 254])  # 2 is the first value that is no class
def test_a_truth_value_that_is_neither_class_nor_ignored_is_refused(wrong):
    with pytest.raises(EosinError, match=f"truth holds {wrong}, which is no class"):
        count_pixels(np.array([0, 0, 1]), np.array([255, wrong, 0]), 2)


def test_a_refused_map_leaves_the_matrix_alone():
    confusion = Confusion(2)
    with pytest.raises(EosinError):
        confusion.add(np.array([0, 2]), np.array([0, 0]))
    assert not confusion.matrix.any()


def test_shapes_must_agree():
    with pytest.raises(EosinError, match="differ in shape"):
        count_pixels(np.zeros((2, 3), int), np.zeros((3, 2), int), 2)


@pytest.mark.parametrize("dtype", [np.float32, np.bool_])
def test_maps_must_be_integers(dtype):
    with pytest.raises(EosinError, match="must be integers"):
        count_pixels(np.zeros(2, dtype), np.zeros(2, np.uint8), 2)


def test_wrong_settings_are_refused():
    with pytest.raises(WrongUse, match="ignore index 1"):
        Confusion(2, ignore=1)
    with pytest.raises(WrongUse, match="0 classes"):
        Confusion(0)
    with pytest.raises(WrongUse, match="merged"):
        Confusion(2).merge(Confusion(3))
    with pytest.raises(WrongUse, match="merged"):
        Confusion(2).merge(Confusion(2, ignore=7))
