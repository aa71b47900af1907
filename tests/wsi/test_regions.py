"""Polygons made band by band are those of the whole map: pixel for pixel, with their holes, without gaps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import shapely
from rasterio.features import shapes
from shapely.geometry import shape

from eosin.wsi import regions as module
from eosin.wsi.regions import Region, regions
from oracles.regions import filled, flooded

SEEDS = range(12)


def drawn(seed: int, outside: bool = True) -> np.ndarray:
    """A random map: noise, or blobs of some size, of one to five classes."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 50, 2)
    fields = rng.normal(size=(int(rng.integers(2, 6)), height, width)).astype(np.float32)
    if seed % 3:
        fields = np.stack([cv2.GaussianBlur(field, (0, 0), 2.0 * (seed % 3) - 1) for field in fields])
    found = fields.argmax(0).astype(np.uint8)
    if outside:
        found[found == len(fields) - 1] = 255
    return found


def cut(classes: np.ndarray, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    rng, top = np.random.default_rng(seed), 0
    while top < len(classes):
        rows = int(rng.integers(1, 12))
        yield top, classes[top : top + rows]
        top += rows


def texts(found: list[Region]) -> list[tuple[int, str]]:
    return sorted((region.index, region.polygon.wkt) for region in found)


@pytest.mark.parametrize("seed", SEEDS)
def test_regions_are_those_of_the_map_in_one_piece(seed: int) -> None:
    classes = drawn(seed)
    whole = shapes(classes, mask=classes != 255, connectivity=4)
    expected = sorted((int(kind), shape(outline).normalize().wkt) for outline, kind in whole)
    assert texts(list(regions(cut(classes, seed)))) == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_regions_are_those_that_flooding_finds_filled_back_pixel_for_pixel(seed: int) -> None:
    classes = drawn(seed)
    found = list(regions(cut(classes, seed)))
    back = Counter((region.index, filled(region.polygon, *classes.shape)) for region in found)
    assert back == Counter(flooded(classes))
    assert all(region.polygon.is_valid for region in found)
    for kind in np.unique(classes[classes != 255]).tolist():
        mine = [region for region in found if region.index == kind]
        assert sum(r.polygon.area for r in mine) == sum(r.pixels for r in mine) == (classes == kind).sum()


def test_a_hole_stays_and_what_lies_in_it_is_a_region_of_its_own() -> None:
    classes = np.zeros((9, 9), np.uint8)
    classes[2:7, 2:7] = 1
    classes[4, 4] = 255
    ring, inner = sorted(regions([(0, classes[:4]), (4, classes[4:5]), (5, classes[5:])]), key=lambda r: r.index)
    assert (ring.pixels, len(ring.polygon.interiors)) == (81 - 25, 1)
    assert (inner.pixels, len(inner.polygon.interiors)) == (24, 1)
    assert inner.polygon.interiors[0].bounds == (4, 4, 5, 5)


def test_regions_that_touch_at_a_corner_alone_are_two() -> None:
    classes = np.full((4, 4), 255, np.uint8)
    classes[:2, :2] = classes[2:, 2:] = 3
    found = list(regions([(0, classes[:2]), (2, classes[2:])]))
    assert [(r.index, r.pixels, r.polygon.bounds) for r in found] == [(3, 4, (0, 0, 2, 2)), (3, 4, (2, 2, 4, 4))]


def test_a_region_is_given_away_as_soon_as_it_is_closed() -> None:
    classes = np.full((30, 8), 255, np.uint8)
    classes[2:4] = 1
    seen = []

    def rows() -> Iterator[tuple[int, np.ndarray]]:
        for top in range(0, 30, 3):
            seen.append(top)
            yield top, classes[top : top + 3]

    assert next(regions(rows())).pixels == 16
    assert seen == [0, 3]


def test_a_wide_map_is_looked_at_in_lower_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = drawn(1)
    expected = texts(list(regions([(0, classes)])))
    looked = []
    labelled = module._labelled
    monkeypatch.setattr(
        module, "_labelled", lambda strip, outside: looked.append(len(strip)) or labelled(strip, outside)
    )
    monkeypatch.setattr(module, "STRIP", 5 * classes.shape[1] + 1)
    assert texts(list(regions([(0, classes)]))) == expected
    assert len(looked) >= len(classes) // 5 and max(looked) == 5


def test_an_empty_map_has_no_region() -> None:
    assert list(regions([(0, np.full((5, 7), 255, np.uint8)), (5, np.full((2, 7), 255, np.uint8))])) == []


@pytest.mark.parametrize("tolerance", [0.8, 2.0, 6.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_simplified_neighbours_have_no_gap_and_no_overlap(seed: int, tolerance: float) -> None:
    classes = drawn(seed, outside=False)
    found = list(regions(cut(classes, seed), tolerance))
    assert_tiled(found, classes)
    assert Counter(r.index for r in found) == Counter(kind for kind, _ in flooded(classes))


def test_corners_beside_the_meeting_of_three_regions_are_left_out_too() -> None:
    yy, xx = np.mgrid[:40, :60]
    steps = 20 + xx // 6
    classes = np.where(yy < steps, 0, np.where(xx < 33, 1, 2)).astype(np.uint8)  # 1 and 2 meet in the middle of a step
    found = list(regions([(0, classes)], 4.0))
    assert_tiled(found, classes)
    above = next(region.polygon for region in found if region.index == 0)
    assert set(above.exterior.coords) == {(0, 0), (60, 0), (60, 29), (33, 25), (0, 20)}


def assert_tiled(found: list[Region], classes: np.ndarray) -> None:
    """Polygons are valid, have no overlap, and leave nothing of a map of which every pixel has a class."""
    polygons = np.array([region.polygon for region in found])
    assert shapely.is_valid(polygons).all() and set(shapely.get_type_id(polygons)) == {3}
    left, right = shapely.STRtree(polygons).query(polygons)
    pairs = left < right
    assert shapely.area(shapely.intersection(polygons[left[pairs]], polygons[right[pairs]])).sum() == 0
    whole = shapely.union_all(polygons)
    assert whole.area == pytest.approx(classes.size, abs=1e-9)
    assert shapely.area(polygons).sum() == pytest.approx(classes.size, abs=1e-9)
    assert whole.symmetric_difference(shapely.box(0, 0, *classes.shape[::-1])).area < 1e-9
    assert sum(r.pixels for r in found) == classes.size


@pytest.mark.parametrize("seed", SEEDS)
def test_tissue_beside_no_tissue_is_simplified_as_beside_a_class(seed: int) -> None:
    classes = drawn(seed)
    other = np.where(classes == 255, 9, classes).astype(np.uint8)
    mine = texts(list(regions(cut(classes, seed), 2.0)))
    assert set(mine) <= set(texts(list(regions(cut(other, seed), 2.0))))


def test_a_larger_tolerance_leaves_fewer_corners() -> None:
    yy, xx = np.mgrid[:120, :120]
    disc = np.where((yy - 60) ** 2 + (xx - 60) ** 2 < 50**2, 0, 255).astype(np.uint8)
    rough, fine, exact = (list(regions([(0, disc)], tolerance)) for tolerance in (4.0, 1.0, 0.0))
    corners = [shapely.get_num_coordinates(found[0].polygon) for found in (rough, fine, exact)]
    assert corners == sorted(corners) and corners[0] < 30 < 100 < corners[2]
    assert rough[0].pixels == exact[0].pixels == (disc == 0).sum()
    assert rough[0].polygon.area == pytest.approx(exact[0].polygon.area, rel=0.03)
