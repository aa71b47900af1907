"""Stain and sharpness are measured as the formulas say, and a slide that lies far from training is told."""

from __future__ import annotations

import math

import numpy as np
import pytest

from eosin.predictor.domain import Domain, Spread, domain_of
from eosin.wsi.domain import beyond, measure

NAN = [math.nan] * 4


def domain(**changes: object) -> Domain:
    spread = Spread(mean=0.3, sd=0.1)
    values = {"red": spread, "green": spread, "blue": spread, "blur": Spread(mean=5.0, sd=0.5), "mpp": 0.5, "tiles": 9}
    return Domain(**(values | changes))


def slow(tile: np.ndarray) -> list[float]:
    """Pixel by pixel; outside the tile the neighbours are mirrored about the middle of the border pixels."""
    height, width = tile.shape[:2]
    grey = np.round(tile.astype(float) @ [0.299, 0.587, 0.114])
    densities, edges = [], []
    for y in range(height):
        for x in range(width):
            density = [-math.log10((int(v) + 1) / 256) for v in tile[y, x]]
            if max(density) < 0.15:
                continue
            densities.append(density)
            up, left = abs(y - 1), abs(x - 1)
            down = y + 1 if y + 1 < height else height - 2
            right = x + 1 if x + 1 < width else width - 2
            edges.append(grey[up, x] + grey[down, x] + grey[y, left] + grey[y, right] - 4 * grey[y, x])
    mean = [sum(column) / len(column) for column in zip(*densities, strict=True)]
    middle = sum(edges) / len(edges)
    return [*mean, math.log(1 + sum((e - middle) ** 2 for e in edges) / len(edges))]


def test_a_tile_is_measured_over_its_tissue_as_the_formulas_say() -> None:
    tile = np.random.default_rng(0).integers(60, 256, (13, 17, 3), dtype=np.uint8)
    tile[:5] = 250
    assert measure(tile[None])[0] == pytest.approx(slow(tile), rel=1e-9)


def test_a_flat_tile_by_hand() -> None:
    tile = np.full((8, 8, 3), (255, 127, 63), np.uint8)
    assert measure(tile[None])[0] == pytest.approx([0.0, math.log10(2), math.log10(4), 0.0])


def test_glass_is_not_judged_and_does_not_thin_the_stain() -> None:
    tiles = np.full((3, 20, 20, 3), 245, np.uint8)
    tiles[1, :10] = tiles[2, 0, :19] = 100
    glass, half, little = measure(tiles)
    assert np.isnan(glass).all() and np.isnan(little).all()
    assert half[0] == pytest.approx(-math.log10(101 / 256))


def test_blurring_a_tile_lowers_its_sharpness() -> None:
    tile = np.random.default_rng(1).integers(0, 200, (64, 64, 3), dtype=np.uint8)
    soft = ((tile.astype(int) + np.roll(tile, 1, 0) + np.roll(tile, 1, 1)) // 3).astype(np.uint8)
    sharp, blurred = measure(np.stack([tile, soft]))[:, 3]
    assert blurred < sharp - 0.5


def test_the_domain_is_mean_and_deviation_over_tiles_with_tissue() -> None:
    found = domain_of(np.array([[0.1, 0.2, 0.3, 4.0], [0.3, 0.2, 0.5, 6.0], NAN]), 0.25)
    assert found is not None
    assert (found.red.mean, found.red.sd) == (0.2, 0.1) and (found.green.mean, found.green.sd) == (0.2, 0.0)
    assert (found.blur.mean, found.blur.sd, found.mpp, found.tiles) == (5.0, 1.0, 0.25, 2)
    assert domain_of(np.array([[0.1, 0.2, 0.3, 4.0], NAN]), 0.25) is None


def test_a_slide_within_three_deviations_is_no_matter() -> None:
    assert beyond(domain(), np.array([[0.59, 0.01, 0.3, 3.6], NAN]), 0.505) == []
    assert beyond(domain(), np.array([NAN]), 0.5) == [] == beyond(domain(), np.empty((0, 4)), 0.5)
    assert beyond(None, np.array([[9.0, 9.0, 9.0, 9.0]]), 3.0) == []


def test_each_quantity_beyond_is_told_in_a_line_with_its_numbers() -> None:
    lines = beyond(domain(), np.array([[0.7, 0.3, 0.3, 3.0], [0.8, 0.3, 0.3, 3.0]]), 0.5)
    assert lines == [
        "out of domain: optical density of red is 0.750, 4.5 sd from the training tiles (mean 0.300, sd 0.100)",
        "out of domain: sharpness (log variance of the Laplacian) is 3.000, 4.0 sd from the training tiles"
        " (mean 5.000, sd 0.500)",
    ]
    assert beyond(domain(blue=Spread(mean=0.3, sd=0)), np.array([[0.3, 0.3, 0.31, 5.0]]), 0.5) == [
        "out of domain: optical density of blue is 0.310, more than any sd from the training tiles"
        " (mean 0.300, sd 0.000)"
    ]


def test_another_pixel_size_is_told() -> None:
    same = np.array([[0.3, 0.3, 0.3, 5.0]])
    assert beyond(domain(), same, 1.0) == ["out of domain: 1 um per pixel; the training tiles have 0.5 (sd 0)"]
    assert beyond(domain(mpp=None), same, 1.0) == []
