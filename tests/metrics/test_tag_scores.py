"""Scores of tags: against scikit-learn, against loops, with ties and unknown tags."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from eosin.core.errors import EosinError
from eosin.metrics.tags import average_precision, exact_match, mean_average_precision
from oracles import tag_scores as slow

NAN = float("nan")


@st.composite
def tagged(draw):
    """Scores on a coarse grid, so that many are equal, and tags of which some are unknown."""
    images, classes = draw(st.integers(0, 12)), draw(st.integers(1, 4))
    grid = st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0])
    tag = st.sampled_from([0.0, 1.0, NAN])
    rows = lambda value: st.lists(  # noqa: E731
        st.lists(value, min_size=classes, max_size=classes), min_size=images, max_size=images
    )
    shape = images, classes
    return np.array(draw(rows(grid))).reshape(shape), np.array(draw(rows(tag))).reshape(shape)


def test_average_precision_by_hand():
    scores = np.array([[0.9], [0.8], [0.7], [0.1]])
    tags = np.array([[1.0], [0.0], [1.0], [0.0]])
    assert average_precision(scores, tags)[0] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_equal_scores_enter_together():
    # one threshold takes all four: precision 1/4 whatever the order of the rows
    scores = np.full((4, 1), 0.3)
    for place in range(4):
        assert average_precision(scores, np.eye(4)[:, [place]])[0] == 0.25


@settings(deadline=None)
@given(tagged())
def test_all_scores_are_those_of_the_loops(case):
    scores, tags = case
    columns = range(tags.shape[1])
    expected = [slow.average_precision(scores[:, k].tolist(), tags[:, k].tolist()) for k in columns]
    np.testing.assert_allclose(average_precision(scores, tags), expected)
    known = [p for p in expected if not math.isnan(p)]
    np.testing.assert_allclose(mean_average_precision(scores, tags), sum(known) / len(known) if known else NAN)
    np.testing.assert_allclose(exact_match(scores, tags), slow.exact_match(scores.tolist(), tags.tolist()))


@settings(deadline=None)
@given(tagged())
def test_an_unknown_tag_is_as_if_the_image_were_not_there(case):
    scores, tags = case
    whole = average_precision(scores, tags)
    for k in range(tags.shape[1]):
        known = ~np.isnan(tags[:, k])
        np.testing.assert_equal(whole[k], average_precision(scores[known][:, [k]], tags[known][:, [k]])[0])
    unsure = np.where(np.isnan(tags), 1 - scores, scores)  # what is said about unknown tags does not matter
    np.testing.assert_equal(average_precision(unsure, tags), whole)
    np.testing.assert_equal(exact_match(unsure, tags), exact_match(scores, tags))


@pytest.mark.parametrize("decimals", [1, 2, 8])
def test_agrees_with_sklearn(decimals):
    rng = np.random.default_rng(decimals)
    tags = (rng.random((300, 5)) < [0.02, 0.2, 0.5, 0.8, 0.98]).astype(np.float32)
    scores = np.round(np.clip(rng.random((300, 5)) * 0.7 + 0.3 * tags, 0, 1), decimals).astype(np.float32)
    expected = average_precision_score(tags, scores, average=None)
    np.testing.assert_allclose(average_precision(scores, tags), expected)
    assert mean_average_precision(scores, tags) == pytest.approx(expected.mean())


def test_one_valued_classes_have_no_precision_and_stay_out_of_the_mean():
    scores = np.array([[0.9, 0.9, 0.9, 0.9], [0.1, 0.1, 0.1, 0.1]])
    tags = np.array([[1.0, 1.0, 0.0, NAN], [0.0, 1.0, 0.0, NAN]])
    np.testing.assert_equal(average_precision(scores, tags), [1.0, NAN, NAN, NAN])
    assert mean_average_precision(scores, tags) == 1.0


def test_exact_match_by_hand():
    scores = np.array([[0.5, 0.1], [0.49, 0.1], [0.9, 0.9], [0.2, 0.2]])
    tags = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, NAN], [NAN, NAN]])
    assert exact_match(scores, tags) == pytest.approx(2 / 3)  # the last image is not asked


@pytest.mark.filterwarnings("error")
def test_without_a_known_tag_everything_is_unknown():
    scores, tags = np.full((3, 2), 0.5), np.full((3, 2), NAN)
    assert np.isnan(average_precision(scores, tags)).all()
    for score in (mean_average_precision, exact_match):
        assert math.isnan(score(scores, tags))


def test_wrong_values_are_refused():
    good = np.array([[0.5, 0.5]])
    for score in (average_precision, exact_match):
        with pytest.raises(EosinError, match=r"not in 0\.\.1"):
            score(np.array([[NAN, 0.5]]), np.array([[1.0, 0.0]]))
        with pytest.raises(EosinError, match=r"not in 0\.\.1"):
            score(np.array([[1.5, 0.5]]), np.array([[1.0, 0.0]]))
        with pytest.raises(EosinError, match="neither 0 nor 1"):
            score(good, np.array([[2.0, 0.0]]))
        with pytest.raises(EosinError, match=r"must both be \[images, classes\]"):
            score(good, np.array([[1.0]]))
