"""Pixels inside outlines: their centres decide, on every grid, and neighbours share nothing."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from eosin.slides.outlines import Outline


def square(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]], np.float64)


def outline(*polygons: tuple[np.ndarray, ...]) -> Outline:
    return Outline("tumour", None, polygons)


def star(rng: np.random.Generator, points: int, radius: float, middle: float) -> np.ndarray:
    """A ring around a point, in and out at random."""
    angle = np.sort(rng.uniform(0, 2 * np.pi, points))
    far = rng.uniform(0.3, 1, points)[:, None] * radius
    return middle + far * np.stack([np.cos(angle), np.sin(angle)], 1)


def test_a_rectangle_on_pixel_edges_is_exactly_its_pixels() -> None:
    inside = outline((square(2, 1, 5, 3),)).pixels(0, 0, 4, 6, 1.0)
    expected = np.zeros((4, 6), bool)
    expected[1:3, 2:5] = True
    np.testing.assert_array_equal(inside, expected)


def test_a_pixel_belongs_to_the_outline_in_which_its_centre_lies() -> None:
    inside = outline((square(0.5, 0, 2.5, 1),)).pixels(0, 0, 1, 4, 1.0)  # centres 0.5, 1.5, 2.5, 3.5
    assert inside.tolist() == [[True, True, False, False]]
    assert outline((square(0.6, 0, 2.6, 1),)).pixels(0, 0, 1, 4, 1.0).tolist() == [[False, True, True, False]]


def test_holes_are_left_out_and_pieces_add_up() -> None:
    ring = outline((square(0, 0, 6, 6), square(2, 2, 4, 4)), (square(8, 0, 10, 6),))
    inside = ring.pixels(0, 0, 6, 10, 1.0)
    assert inside.sum() == 36 - 4 + 12 == ring.area
    assert not inside[2:4, 2:4].any() and inside[:, 8:].all() and not inside[:, 6:8].any()
    assert ring.box == (0, 0, 10, 6)


def test_pieces_that_overlap_are_one_area() -> None:
    assert outline((square(0, 0, 4, 4),), (square(2, 0, 6, 4),)).pixels(0, 0, 4, 6, 1.0).all()


@pytest.mark.parametrize("scale", [1.0, 2.0, 3.7])
def test_random_outlines_hold_the_centres_that_geometry_says(scale: float) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        outer, hole = star(rng, 30, 90, 100), star(rng, 12, 25, 100)
        inside = outline((outer, hole)).pixels(3, 5, 80, 90, scale)
        y, x = np.meshgrid((np.arange(80) + 3.5) * scale, (np.arange(90) + 5.5) * scale, indexing="ij")
        expected = shapely.contains_xy(shapely.Polygon(outer), x, y) ^ shapely.contains_xy(shapely.Polygon(hole), x, y)
        np.testing.assert_array_equal(inside, expected)
        assert inside.any() and not inside.all()


def test_a_piece_is_that_piece_of_the_whole() -> None:
    drawn = outline((star(np.random.default_rng(4), 200, 60, 64),))
    whole = drawn.pixels(0, 0, 128, 128, 1.0)
    for top, left in ((0, 0), (17, 3), (60, 70), (100, 100)):
        np.testing.assert_array_equal(drawn.pixels(top, left, 28, 20, 1.0), whole[top : top + 28, left : left + 20])
    assert not drawn.pixels(500, 0, 10, 10, 1.0).any()


def test_neighbours_share_no_pixel_and_leave_none_out() -> None:
    """A square cut by a line through pixel centres, the two halves drawn in opposite directions."""
    cut = np.array([[0.5, 0.5], [7.5, 3.5]])
    upper = outline((np.array([[0.5, 0.5], [7.5, 0.5], [7.5, 3.5]]),))
    lower = outline((np.array([cut[0], cut[1], [7.5, 7.5], [0.5, 7.5]]),))
    halves = [half.pixels(0, 0, 8, 8, 1.0).astype(int) for half in (upper, lower)]
    np.testing.assert_array_equal(sum(halves), outline((square(0.5, 0.5, 7.5, 7.5),)).pixels(0, 0, 8, 8, 1.0))
    assert all(half.any() for half in halves)


def test_the_area_is_that_of_geometry() -> None:
    rng = np.random.default_rng(7)
    outer, hole = star(rng, 30, 90, 100), star(rng, 12, 25, 100)
    assert outline((outer, hole)).area == pytest.approx(shapely.Polygon(outer).area - shapely.Polygon(hole).area)
