"""Tiles that touch tissue are predicted and no others; they are read as they lie, neighbours in one piece."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eosin.core.tiling import bands
from eosin.wsi.grid import grid
from wsi_fakes import ArrayArea, ArraySource, everywhere, noise, spots


@pytest.mark.parametrize(("height", "width"), [(200, 333), (32, 32), (20, 400), (400, 7), (5, 9), (1, 1)])
def test_where_all_is_tissue_the_tiles_are_those_of_the_one_piece_road(height: int, width: int) -> None:
    pixels = noise(height, width)
    expected: list[torch.Tensor] = []

    def collect(tiles: torch.Tensor) -> torch.Tensor:
        expected.extend(tiles.permute(0, 2, 3, 1))
        return tiles.float()

    list(bands(collect, torch.from_numpy(pixels).permute(2, 0, 1), 32, 4))
    found = grid((height, width), 1.0, everywhere(height, width), 32, 4)
    assert len(found) == len(expected)
    np.testing.assert_array_equal(found.tiles(ArraySource(pixels), 0, len(found)), torch.stack(expected).numpy())


@pytest.mark.parametrize("scale", [1.0, 1.7, 0.6])
def test_a_tile_is_predicted_exactly_if_it_touches_tissue(scale: float) -> None:
    height, width, area = 300, 500, spots(300, 500, 0.06)
    size = round(height / scale), round(width / scale)
    found = grid(size, scale, area, 32, 4)
    tissue = area.at(0, 0, *size, scale)
    expected = [
        (row, column)
        for row, top in enumerate(found.tops)
        for column, left in enumerate(found.lefts)
        if tissue[top : top + 32, left : left + 32].any()
    ]
    assert found.places.tolist() == [list(place) for place in expected]
    assert 0 < len(found) < len(found.tops) * len(found.lefts)


def test_a_slide_without_tissue_has_no_tiles() -> None:
    area = ArrayArea(np.zeros((10, 10), bool), 8.0)
    found = grid((80, 80), 1.0, area, 32, 4)
    assert len(found) == 0 and found.places.shape == (0, 2)


def test_neighbours_are_read_in_one_piece_and_rows_apart() -> None:
    source = ArraySource(noise(100, 200))
    found = grid(source.size, 1.0, everywhere(100, 200), 32, 4)
    columns = len(found.lefts)
    tiles = found.tiles(source, 2, columns + 3)
    assert source.reads == [(0, found.lefts[2], 32, 200 - found.lefts[2]), (24, 0, 32, found.lefts[2] + 32)]
    for tile, (row, column) in zip(tiles, found.places[2:], strict=False):
        top, left = found.tops[row], found.lefts[column]
        np.testing.assert_array_equal(tile, source.pixels[top : top + 32, left : left + 32])
