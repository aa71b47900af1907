"""Maps of classes: values come out as they are, at any scale, and damage is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from data.formats.drawing import draw_pyramid
from eosin.slides.maps import SlideMap
from eosin.slides.slide import BadSlide


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, (150, 200), dtype=np.uint8)


def test_a_rectangle_is_that_of_the_map_and_nothing_outside(values: np.ndarray, tmp_path: Path) -> None:
    with SlideMap(draw_pyramid(tmp_path / "m.tif", values)) as drawn:
        assert [(level.height, level.width, level.downsample) for level in drawn.levels][:2] == [
            (150, 200, 1.0),
            (75, 100, 2.0),
        ]
        np.testing.assert_array_equal(drawn.at(0, 0, 150, 200, 1.0), values)
        np.testing.assert_array_equal(drawn.at(60, 130, 10, 7, 1.0), values[60:70, 130:137])
        around = drawn.at(-5, 190, 20, 20, 1.0)
        np.testing.assert_array_equal(around[5:, :10], values[:15, 190:])
        assert not around[:5].any() and not around[:, 10:].any()
        assert not drawn.at(500, 500, 4, 4, 1.0).any()


def test_at_a_scale_the_values_at_the_centres_are_taken(values: np.ndarray, tmp_path: Path) -> None:
    one = draw_pyramid(tmp_path / "one.tif", values, levels=1)
    with SlideMap(one) as drawn:
        rows, columns = ((np.arange(n) + 0.5) * 3 for n in (20, 30))
        expected = values[np.ix_(rows.astype(int), columns.astype(int))]
        np.testing.assert_array_equal(drawn.at(0, 0, 20, 30, 3.0), expected)
        np.testing.assert_array_equal(drawn.at(4, 6, 10, 10, 3.0), expected[4:14, 6:16])
    with SlideMap(draw_pyramid(tmp_path / "m.tif", values)) as drawn:  # the level of every second pixel
        np.testing.assert_array_equal(drawn.at(0, 0, 75, 100, 2.0), values[::2, ::2])


def test_tiles_that_a_file_leaves_out_are_nothing(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "m.tif") as tiff:
        tiles = (tile for tile in (np.full((64, 64), 2, np.uint8), None))
        tiff.write(tiles, shape=(64, 128), dtype=np.uint8, tile=(64, 64), compression="zlib", photometric="minisblack")
    with SlideMap(tmp_path / "m.tif") as drawn:
        assert drawn.at(0, 0, 64, 128, 1.0).sum(0).tolist() == [128] * 64 + [0] * 64


def test_what_is_no_map_is_told_in_one_line(values: np.ndarray, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "strips.tif", values)
    tifffile.imwrite(tmp_path / "deep.tif", values.astype(np.uint16), tile=(64, 64))
    draw_pyramid(tmp_path / "rgb.tif", np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "text.tif").write_text("no TIFF")
    (tmp_path / "empty.tif").write_bytes(b"")
    says = {
        "strips": "without tiles",
        "deep": "1 x uint16",
        "rgb": "3 x uint8",
        "text": "no TIFF file",
        "empty": "no TIFF file",
        "nowhere": "no such file",
    }
    for name, message in says.items():
        with pytest.raises(BadSlide, match=rf"{name}.tif: .*{message}") as caught:
            SlideMap(tmp_path / f"{name}.tif")
        assert "\n" not in str(caught.value)


def test_a_damaged_tile_is_told(values: np.ndarray, tmp_path: Path) -> None:
    file = draw_pyramid(tmp_path / "m.tif", values, levels=1)
    with tifffile.TiffFile(file) as tiff:
        place = tiff.pages.first.dataoffsets[0]
    content = bytearray(file.read_bytes())
    content[place : place + 40] = bytes(40)
    file.write_bytes(content)
    with SlideMap(file) as drawn, pytest.raises(BadSlide, match=r"m.tif: tile 0 is damaged"):
        drawn.at(0, 0, 10, 10, 1.0)
