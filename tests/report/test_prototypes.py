"""What prototypes look at: coverage and overlap by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from eosin.report.prototypes import looks, looks_at, prototypes_of

LEFT, RIGHT, FLAT = [[4.0, 0.0]], [[-9.0, -1.0]], [[3.0, 3.0]]


def test_by_hand() -> None:
    truth = np.array([[True, True]])
    apart = looks(np.array([LEFT, RIGHT]), truth)
    assert (apart.covered, apart.each, apart.overlap) == (1, 0.5, 0)
    same = looks(np.array([LEFT, LEFT]), truth)
    assert (same.covered, same.each, same.overlap) == (0.5, 0.5, 1)
    three = looks(np.array([LEFT, LEFT, RIGHT]), np.array([[True, False]]))
    assert three.covered == 1 and three.each == pytest.approx(2 / 3) and three.overlap == pytest.approx(1 / 3)


def test_a_map_that_is_the_same_everywhere_shows_nothing() -> None:
    found = looks(np.array([LEFT, FLAT]), np.array([[True, True]]))
    assert (found.covered, found.each, found.overlap) == (0.5, 0.25, 0)


def test_one_prototype_overlaps_with_none() -> None:
    assert math.isnan(looks(np.array([LEFT]), np.array([[True, True]])).overlap)


def test_each_map_is_cut_by_its_own_range_whatever_its_sign() -> None:
    maps = np.array([[[-14.0, -13.0, -10.0]], [[0.1, 0.2, 0.3]]])
    found = looks(maps, np.array([[True, True, True]]))
    assert found.each == pytest.approx((1 / 3 + 2 / 3) / 2) and found.overlap == 0.5


def test_truth_is_taken_at_the_middle_of_a_cell() -> None:
    views = {"prototype 1": np.array([LEFT, RIGHT, FLAT])}
    mask = np.array([[0, 2, 2, 2], [1, 0, 2, 1]], np.uint8)  # the middles of two cells of 2 x 2 px: below and right
    found = looks_at(views, mask)
    assert set(found) == {0, 1} and (found[0].covered, found[1].covered) == (1, 1)
    assert looks_at({"maps": views["prototype 1"]}, mask) == {}


def test_views_of_prototypes_are_found_among_others() -> None:
    one, two = np.zeros((3, 2, 2)), np.ones((3, 2, 2))
    found = prototypes_of({"prototype 1": one, "maps": two + 1, "prototype 2": two})
    assert found.shape == (3, 2, 2, 2) and np.array_equal(found[:, 1], two)
    assert not prototypes_of({"maps": two}).size
