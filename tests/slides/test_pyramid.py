"""Every reader sees the same pixels, classes and size, and blank slide costs nothing."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import openslide
import pytest
import rasterio
import tifffile
from numpy.typing import NDArray

from eosin.slides.pyramid import write_pyramid

Pixels = NDArray[np.uint8]

HEIGHT, WIDTH = 333, 471
PALETTE = np.array([[200, 40, 40], [60, 165, 120], [50, 80, 200], [235, 190, 50]], np.uint8)


def class_map() -> Pixels:
    """Blobs of four classes, single pixels of them, and a class that touches the last row and column."""
    rng = np.random.default_rng(3)
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[20:200, 30:300] = rng.integers(0, 4, (180, 270))
    mask[210:330, 100:290] = 1
    mask[300:, 400:] = 3
    return mask


def bands(pixels: Pixels, rows: int) -> Iterator[Pixels]:
    """Bands of so many rows, all in one buffer that is overwritten."""
    buffer = np.empty((rows, *pixels.shape[1:]), np.uint8)
    for top in range(0, len(pixels), rows):
        part = pixels[top : top + rows]
        buffer[: len(part)] = part
        yield buffer[: len(part)]


def most_frequent(mask: Pixels) -> Pixels:
    """One pixel at a time: of the four, beyond the border the last ones, the most frequent, the first of equals."""
    height, width = mask.shape
    half = np.zeros(((height + 1) // 2, (width + 1) // 2), np.uint8)
    for y, x in np.ndindex(half.shape):
        four = [int(mask[min(2 * y + i, height - 1), min(2 * x + j, width - 1)]) for i in (0, 1) for j in (0, 1)]
        counts = Counter(four)
        half[y, x] = next(value for value in four if counts[value] == max(counts.values()))
    return half


def levels_of(path: Path) -> list[Pixels]:
    with tifffile.TiffFile(path) as file:
        return [page.asarray() for page in file.pages]


@pytest.mark.parametrize("rows", [1, 7, 48, 64, 100, 333])
def test_the_indices_come_back_exactly_however_the_rows_are_banded(tmp_path: Path, rows: int) -> None:
    mask = class_map()
    write_pyramid(tmp_path / "a.tif", bands(mask, rows), HEIGHT, WIDTH, 0.5, PALETTE, tile=48)
    write_pyramid(tmp_path / "whole.tif", [mask], HEIGHT, WIDTH, 0.5, PALETTE, tile=48)
    np.testing.assert_array_equal(levels_of(tmp_path / "a.tif")[0], mask)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_each_level_of_classes_has_the_most_frequent_value_of_four(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.tif", bands(class_map(), 50), HEIGHT, WIDTH, 0.5, PALETTE, tile=48)
    levels = levels_of(tmp_path / "a.tif")
    assert [level.shape for level in levels] == [(333, 471), (167, 236), (84, 118), (42, 59), (21, 30)]
    for finer, coarser in pairwise(levels):
        np.testing.assert_array_equal(coarser, most_frequent(finer))


@pytest.mark.parametrize(
    ("four", "expected"),
    [([3, 1, 1, 2], 1), ([0, 2, 1, 2], 2), ([2, 0, 1, 1], 1), ([3, 1, 1, 3], 3), ([1, 3, 3, 1], 1), ([2, 0, 3, 1], 2)],
)
def test_four_values_become_one_of_them(tmp_path: Path, four: list[int], expected: int) -> None:
    mask = np.tile(np.array(four, np.uint8).reshape(2, 2), (16, 16))
    write_pyramid(tmp_path / "a.tif", [mask], 32, 32, 1.0, PALETTE, tile=16)
    assert (levels_of(tmp_path / "a.tif")[1] == expected).all()


def test_openslide_sees_all_levels_the_colours_and_the_size_of_a_pixel(tmp_path: Path) -> None:
    mask = class_map()
    write_pyramid(tmp_path / "a.tif", bands(mask, 50), HEIGHT, WIDTH, 0.4987, PALETTE, tile=48)
    colours = np.zeros((256, 3), np.uint8)
    colours[:4] = PALETTE
    levels = levels_of(tmp_path / "a.tif")
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.4987, rel=1e-6)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.4987, rel=1e-6)
        assert slide.level_dimensions == tuple(level.shape[::-1] for level in levels)
        for number, level in enumerate(levels):
            seen = np.asarray(slide.read_region((0, 0), number, slide.level_dimensions[number]))
            np.testing.assert_array_equal(seen[..., :3], colours[level])
            assert (seen[..., 3] == 255).all()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_gdal_sees_the_same_levels_and_palette(tmp_path: Path) -> None:
    mask = class_map()
    write_pyramid(tmp_path / "a.tif", [mask], HEIGHT, WIDTH, 0.5, PALETTE, tile=48)
    with rasterio.open(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.read(1), mask)
        assert file.overviews(1) == [2, 4, 8, 16]
        assert file.colormap(1)[2] == (50, 80, 200, 255)


def test_rgb_is_close_to_what_was_given_and_the_same_in_openslide_and_tifffile(tmp_path: Path) -> None:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    rgb = np.stack([120 + 100 * np.sin(y / 200), 90 + 80 * np.cos(x / 300), 140 + 0.2 * x], -1).astype(np.uint8)
    write_pyramid(tmp_path / "a.tif", bands(rgb, 50), HEIGHT, WIDTH, 0.25, tile=48, quality=95)
    levels = levels_of(tmp_path / "a.tif")
    expected = rgb
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        for number, level in enumerate(levels):
            seen = np.asarray(slide.read_region((0, 0), number, slide.level_dimensions[number]))[..., :3]
            np.testing.assert_array_equal(seen, level)
            assert np.abs(level.astype(int) - expected).mean() < 1.5
            padded = np.pad(expected, ((0, len(expected) % 2), (0, expected.shape[1] % 2), (0, 0)), mode="edge")
            four = padded.reshape(len(padded) // 2, 2, -1, 2, 3).astype(int)
            expected = ((four.sum((1, 3)) + 2) // 4).astype(np.uint8)
    assert [page.shape[:2] for page in levels][-1] == (21, 30)


def test_tiles_of_one_value_are_stored_once(tmp_path: Path) -> None:
    mask = np.full((640, 640), 255, np.uint8)
    mask[:320] = 2
    mask[100, 100] = 0
    write_pyramid(tmp_path / "a.tif", [mask], 640, 640, 0.5, PALETTE, tile=64)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert len(file.pages[0].dataoffsets) == 100
        assert len(set(file.pages[0].dataoffsets)) == 3  # class 2, outside, and the tile with the odd pixel
        np.testing.assert_array_equal(file.pages[0].asarray(), mask)
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        seen = np.asarray(slide.read_region((0, 0), 0, (640, 640)))
    assert (seen[:320, :, :3] == PALETTE[2]).all(-1).sum() == 320 * 640 - 1
    assert (seen[320:, :, :3] == 0).all()


def test_a_blank_value_of_its_own_is_what_the_readers_see(tmp_path: Path) -> None:
    rgb = np.full((300, 300, 3), (240, 236, 241), np.uint8)
    rgb[:40, :40] = (180, 60, 140)
    write_pyramid(tmp_path / "a.tif", [rgb], 300, 300, 0.5, blank=(240, 236, 241), tile=64)
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        seen = np.asarray(slide.read_region((128, 128), 0, (172, 172)))[..., :3].astype(int)
        small = np.asarray(slide.read_region((128, 128), 2, (40, 40)))[..., :3].astype(int)
    assert np.abs(seen - (240, 236, 241)).max() <= 1
    assert np.abs(small - (240, 236, 241)).max() <= 1


def test_a_slide_smaller_than_a_tile_has_one_level(tmp_path: Path) -> None:
    mask = np.array([[1, 2, 255]], np.uint8)
    write_pyramid(tmp_path / "a.tif", [mask], 1, 3, 0.5, PALETTE)
    levels = levels_of(tmp_path / "a.tif")
    assert len(levels) == 1
    np.testing.assert_array_equal(levels[0], mask)


@pytest.mark.parametrize("rows", [[100, 100], [300, 100], [100]])
def test_bands_that_do_not_add_up_leave_nothing_behind(tmp_path: Path, rows: list[int]) -> None:
    wrong = [np.zeros((count, 50), np.uint8) for count in rows]
    with pytest.raises(ValueError, match=r"band"):
        write_pyramid(tmp_path / "a.tif", wrong, 333, 50, 0.5, PALETTE)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_the_rows_are_made_keeps_the_file_that_was_there(tmp_path: Path) -> None:
    def failing() -> Iterator[Pixels]:
        yield np.zeros((100, 50), np.uint8)
        raise OSError(errno.ENOSPC, "no space left")

    (tmp_path / "a.tif").write_bytes(b"before")
    with pytest.raises(OSError, match="no space left"):
        write_pyramid(tmp_path / "a.tif", failing(), 333, 50, 0.5, PALETTE)
    assert (tmp_path / "a.tif").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_a_band_of_another_form_is_refused(tmp_path: Path) -> None:
    rgb = np.zeros((10, 50, 3), np.uint8)
    for band in (rgb, np.zeros((10, 49), np.uint8), np.zeros((10, 50), np.uint16)):
        with pytest.raises(ValueError, match="a band of"):
            write_pyramid(tmp_path / "a.tif", [band], 10, 50, 0.5, PALETTE)
    with pytest.raises(ValueError, match="multiple of 16"):
        write_pyramid(tmp_path / "a.tif", [rgb], 10, 50, 0.5, tile=100)
