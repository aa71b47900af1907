"""Tiling covers every pixel, blends as the formula says, and streams the same bits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from eosin.core.errors import WrongUse
from eosin.core.tiling import bands, blend, origins, stitch, stride, weights
from oracles.tiling import blended, starts

SIDES = (1, 2, 15, 16, 17, 41)
GRIDS = ((16, 0), (16, 3), (16, 7), (15, 4), (2, 0))


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def by_place(tiles: torch.Tensor) -> torch.Tensor:
    """A network whose answer depends on where in its tile a pixel lies, as at the border of a real one."""
    ramp = torch.linspace(0, 1, tiles.shape[-1])
    return torch.stack([tiles[:, 0] * ramp, tiles[:, 1] * ramp[:, None]], 1)


@pytest.mark.parametrize(("tile", "step"), [(1, 1), (4, 1), (7, 3), (16, 16), (16, 10)])
def test_origins_cover_everything_and_touch_both_borders(tile: int, step: int) -> None:
    for length in range(1, 70):
        found = origins(length, tile, step)
        covered = {p for o in found for p in range(o, o + tile)}
        assert covered >= set(range(length))
        assert found == sorted(set(found)) and found[0] == 0
        assert found[-1] == max(0, length - tile)
        assert found == starts(length, tile, step)


def test_impossible_grids_are_refused() -> None:
    for length, tile, step in ((0, 4, 4), (9, 4, 5), (9, 4, 0)):
        with pytest.raises(WrongUse, match="cannot cover"):
            origins(length, tile, step)
    for tile, margin in ((8, 4), (8, -1)):
        with pytest.raises(WrongUse, match="margin"):
            stride(tile, margin)


@pytest.mark.parametrize(("tile", "margin"), GRIDS)
def test_weights_are_positive_and_add_up_to_one(tile: int, margin: int) -> None:
    for length in (tile, tile + 1, 2 * tile + 3, 97):
        table = weights(length, tile, margin)
        total = torch.zeros(length, dtype=torch.float64)
        for start, row in zip(origins(length, tile, stride(tile, margin)), table, strict=True):
            total[start : start + tile] += row
        assert (table > 0).all() and (table <= 1).all()
        assert torch.allclose(total, torch.ones_like(total), atol=1e-6)


def test_a_tile_counts_less_in_the_margin_that_a_neighbour_covers() -> None:
    first, last = weights(28, 16, 2)
    assert torch.allclose(first, torch.tensor([1.0] * 12 + [0.94375, 0.65, 0.35, 0.05625]))
    assert torch.allclose(last, first.flip(0))


def test_weights_begin_to_fall_gently_and_fall_nowhere_steeply() -> None:
    """A linear fade breaks the first bound, a squared sine the second."""
    tile, margin = 96, 32
    fade = torch.cat([torch.zeros(2), weights(2 * tile, tile, margin)[1].double(), torch.ones(1)])[: 2 * margin + 3]
    slope = fade.diff() * 2 * margin
    assert slope.diff().abs().max() < 0.15
    assert 1.19 < slope.max() < 1.21


def test_seams_are_not_seen_where_neighbours_disagree() -> None:
    """They disagree most near a tile's border: a linear fade shows there, and a squared sine in the middle."""
    tile, margin, count = 64, 8, 60
    step, length = stride(tile, margin), 2 * margin
    texture = noise(1, tile, tile + (count - 1) * step)
    near = 5 * (1 - (torch.arange(margin) + 0.5) / margin) ** 2
    off = 0.78 * (1 + torch.cat([near, torch.zeros(tile - length), near.flip(0)]))
    starts = step * torch.arange(count)
    tiles = [texture[:, :, x : x + tile] + (-1) ** k * off for k, x in enumerate(starts.tolist())]
    (blended,) = stitch([torch.stack(tiles)], *texture.shape[1:], tile, margin)
    gradients = (blended.diff().abs().mean((0, 1)), texture.diff().abs().mean((0, 1)))
    borders = torch.cat([starts[1:] - 1, starts[1:] + length - 1])
    for places in (borders, starts[1:] + margin - 1):
        with_seams, without = (gradient[places].mean() for gradient in gradients)
        assert with_seams / without < 1.05


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 40), (61, 31), (40, 16), (20, 97)])
@pytest.mark.parametrize(("tile", "margin"), [(16, 0), (16, 3), (16, 7), (15, 4)])
def test_blend_equals_the_formula(height: int, width: int, tile: int, margin: int) -> None:
    image = noise(3, height, width)
    expected = blended(lambda t: by_place(torch.from_numpy(t)[None])[0].numpy(), image.numpy(), tile, margin)
    found = blend(by_place, image, tile, margin, batch=3)
    assert found.dtype == torch.float32 and found.shape == (2, height, width)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6)


@pytest.mark.parametrize(("tile", "margin"), GRIDS)
def test_every_size_comes_back_in_its_own_shape(tile: int, margin: int) -> None:
    for height, width in itertools.product(SIDES, SIDES):
        image = (255 * noise(3, height, width)).to(torch.uint8)
        found = blend(lambda t: t.float(), image, tile, margin, batch=5)
        assert found.shape == image.shape
        # What depends on the pixel alone is unchanged by tiling, padding and blending, up to rounding of 255.
        assert (found - image).abs().max() < 5e-4


def test_bands_are_bit_equal_to_the_one_piece_sum() -> None:
    height, width, tile, margin = 83, 61, 16, 3
    step = stride(tile, margin)
    places = [(y, x) for y in range(len(origins(height, tile, step))) for x in range(len(origins(width, tile, step)))]
    tiles = noise(len(places), 4, tile, tile)
    down, across = weights(height, tile, margin), weights(width, tile, margin)
    whole = torch.zeros(4, height, width)
    for (row, column), part in zip(places, tiles, strict=True):
        y, x = origins(height, tile, step)[row], origins(width, tile, step)[column]
        whole[:, y : y + tile, x : x + tile] += part * (down[row, :, None] * across[column])
    for batch in (1, 4, 7, len(places)):
        found = list(stitch(tiles.split(batch), height, width, tile, margin))
        assert len(found) == len(origins(height, tile, step))
        assert all(part.shape[1] <= tile for part in found)
        assert torch.equal(torch.cat(found, 1), whole)


def test_bands_come_as_soon_as_they_are_finished() -> None:
    """A band may not wait for rows below it: that is what keeps the memory of a slide in bounds."""
    seen = 0

    def predict(tiles: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        seen += len(tiles)
        return tiles

    rows = 0
    for number, band in enumerate(bands(predict, noise(3, 100, 40), 16, 3, batch=2), start=1):
        rows += band.shape[1]
        assert seen <= 4 * number + 1
    assert rows == 100


def test_one_tile_is_returned_as_it_was() -> None:
    image = noise(3, 16, 16)
    assert torch.equal(blend(lambda t: t.exp(), image, 16, 5), image.exp())


def test_small_images_are_mirrored_around_the_middle() -> None:
    seen: list[torch.Tensor] = []

    def predict(tiles: torch.Tensor) -> torch.Tensor:
        seen.append(tiles)
        return tiles

    image = noise(3, 1, 5)
    found = blend(predict, image, 8, 2)
    np.testing.assert_array_equal(seen[0][0].numpy(), np.pad(image.numpy(), ((0, 0), (3, 4), (1, 2)), mode="reflect"))
    assert torch.equal(found, image)


def test_wrong_tiles_are_told() -> None:
    with pytest.raises(WrongUse, match="does not fit"):
        list(stitch([torch.zeros(1, 2, 8, 9)], 8, 8, 8, 0))
    with pytest.raises(WrongUse, match="does not fit"):
        list(stitch([torch.zeros(2, 2, 8, 8)], 8, 8, 8, 0))
    with pytest.raises(WrongUse, match="do not fill"):
        list(stitch([torch.zeros(1, 2, 8, 8)], 8, 16, 8, 0))
