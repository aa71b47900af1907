"""Tissue is found however pale, dust and ink are not, and what somebody drew is taken as it was drawn."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openslide
import pytest
from numpy.typing import NDArray
from PIL import Image

from eosin.core.errors import EosinError
from eosin.slides.slide import Level, PixelSize
from eosin.slides.tissue import BadTissue, Tissue, find_tissue, read_tissue

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

SIZE = PixelSize(4.0, "test")  # of a pixel of the slides that are drawn here: two to a pixel of the mask


class Drawn:
    """A slide in memory, of one level or of several that are halves of each other."""

    def __init__(self, pixels: Pixels, levels: int = 1) -> None:
        self.path, self.pixel_size, self.unsized, self.reader = Path("drawn.tif"), SIZE, "", "image"
        self._levels = [pixels]
        for _ in range(levels - 1):
            self._levels.append(cv2.resize(self._levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
        self.levels = tuple(Level(*p.shape[:2], 2.0**k) for k, p in enumerate(self._levels))
        self.most = 0

    def read(self, level: int, top: int, left: int, height: int, width: int) -> Pixels:
        assert top >= 0 and left >= 0
        assert top + height <= self.levels[level].height and left + width <= self.levels[level].width
        self.most = max(self.most, height * width)
        return self._levels[level][top : top + height, left : left + width]

    def close(self) -> None:
        """Nothing to let go of."""


def glass(colour: tuple[int, int, int] = (243, 240, 244), seed: int = 0) -> Pixels:
    """An empty slide with the noise and the uneven light of a scanner."""
    rng = np.random.default_rng(seed)
    light = 3 * np.sin(np.arange(600) / 90)[:, None, None]
    return np.clip(np.array(colour) + light + rng.normal(0, 2, (600, 800, 3)), 0, 254).round().astype(np.uint8)


def ellipse(centre: tuple[int, int] = (400, 300), axes: tuple[int, int] = (200, 130)) -> Mask:
    canvas = np.zeros((600, 800), np.uint8)
    cv2.ellipse(canvas, centre, axes, 20, 0, 360, 1, -1)
    return canvas > 0


def painted(pixels: Pixels, where: Mask, colour: tuple[int, int, int], grain: float = 6.0) -> Pixels:
    rng = np.random.default_rng(1)
    texture = np.clip(np.array(colour) + rng.normal(0, grain, pixels.shape), 0, 255)
    return np.where(where[..., None], texture, pixels).round().astype(np.uint8)


def found(pixels: Pixels) -> Mask:
    """The tissue that is found, at full resolution."""
    return find_tissue(Drawn(pixels), SIZE).at(0, 0, *pixels.shape[:2], 1.0)


def overlap(a: Mask, b: Mask) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize(
    "colour",
    [(200, 120, 170), (90, 60, 140), (150, 30, 90), (232, 208, 226), (236, 222, 234), (225, 200, 205)],
    ids=["usual", "dark nuclei", "dark eosin", "pale", "very pale", "pale pink"],
)
@pytest.mark.parametrize("empty", [(243, 240, 244), (225, 226, 222), (240, 237, 222)], ids=["usual", "dim", "yellow"])
def test_tissue_is_found_however_pale_on_glass_of_any_colour(
    colour: tuple[int, int, int], empty: tuple[int, int, int]
) -> None:
    light = np.array(colour) * np.array(empty) / np.array((243, 240, 244))
    pixels = painted(glass(empty), ellipse(), (int(light[0]), int(light[1]), int(light[2])), grain=3)
    assert overlap(found(pixels), ellipse()) > 0.93


def test_an_empty_slide_has_no_tissue() -> None:
    for colour in ((243, 240, 244), (225, 226, 222), (240, 237, 222), (254, 254, 254)):
        assert not found(glass(colour)).any()
    assert not found(np.full((600, 800, 3), 255, np.uint8)).any()


@pytest.mark.parametrize("colour", [(200, 120, 170), (228, 196, 220), (110, 80, 160)])
def test_a_slide_full_of_tissue_is_tissue(colour: tuple[int, int, int]) -> None:
    pixels = painted(glass(), np.ones((600, 800), np.bool_), colour, grain=12)
    assert found(pixels).mean() > 0.99


def test_white_that_the_scanner_filled_in_is_not_taken_for_glass() -> None:
    pixels = painted(glass((238, 232, 216)), ellipse(), (205, 150, 170))
    pixels[:, :250] = 255
    pixels[400:] = 255
    expected = ellipse()
    expected[:, :250] = expected[400:] = False
    assert overlap(found(pixels), expected) > 0.93


@pytest.mark.parametrize(
    "ink",
    [(25, 25, 28), (30, 60, 160), (100, 150, 220), (30, 140, 80)],
    ids=["black", "blue", "light blue", "green"],
)
def test_ink_is_no_tissue(ink: tuple[int, int, int]) -> None:
    drawn = np.zeros((600, 800), np.uint8)
    cv2.line(drawn, (30, 30), (160, 560), 1, 14)
    cv2.circle(drawn, (690, 100), 60, 1, 10)
    pixels = painted(painted(glass(), ellipse(), (200, 120, 170)), drawn > 0, ink)
    pixels = cv2.GaussianBlur(pixels, (0, 0), 1.2)
    mask = found(pixels)
    assert overlap(mask, ellipse()) > 0.9
    assert (mask & (drawn > 0)).sum() < 0.01 * drawn.sum()


def test_dust_is_dropped_and_small_holes_are_filled_but_large_ones_are_kept() -> None:
    pixels = painted(glass(), ellipse(axes=(300, 200)), (200, 120, 170))
    hole, lumen = ellipse((400, 300), (60, 60)), ellipse((250, 250), (10, 10))
    speck, fragment = ellipse((740, 560), (8, 8)), ellipse((720, 60), (30, 20))
    pixels = np.where((hole | lumen)[..., None], glass(seed=4), pixels)
    pixels = painted(painted(pixels, speck, (120, 90, 160)), fragment, (200, 120, 170))
    mask = found(pixels)
    assert mask[lumen].all() and not mask[speck].any()
    assert mask[fragment].mean() > 0.9 and mask[hole].mean() < 0.1


def test_a_slide_that_is_smaller_than_what_is_dropped_elsewhere_has_tissue_all_the_same() -> None:
    pixels = painted(glass(), ellipse((24, 24), (12, 12)), (200, 120, 170))
    assert not found(pixels).any()
    assert overlap(found(pixels[:48, :48]), ellipse((24, 24), (12, 12))[:48, :48]) > 0.7


def test_a_grey_shadow_is_no_tissue() -> None:
    pixels = painted(glass(), ellipse(), (200, 120, 170))
    pixels[:, 700:] = (pixels[:, 700:] * 0.6).astype(np.uint8)
    assert overlap(found(pixels), ellipse()) > 0.93


def test_reading_in_strips_and_from_a_coarser_level_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = painted(glass(), ellipse(), (200, 120, 170))
    fine = PixelSize(1.0, "test")
    whole = find_tissue(Drawn(pixels), fine)
    assert whole.mask.shape == (75, 100)
    monkeypatch.setattr("eosin.slides.tissue._READ", 3 * 800 * 40)
    slide = Drawn(pixels)
    np.testing.assert_array_equal(find_tissue(slide, fine).mask, whole.mask)
    assert slide.most <= 800 * (41 + 2 * 8 * 9)  # nine rows of the mask above and below have a say
    monkeypatch.setattr("eosin.slides.tissue._STRIP", 11 * 100)
    np.testing.assert_array_equal(find_tissue(slide, fine).mask, whole.mask)
    monkeypatch.undo()
    pyramid = Drawn(pixels, levels=4)
    assert overlap(find_tissue(pyramid, fine).mask, whole.mask) > 0.99  # means of means are rounded twice
    assert pyramid.most == 150 * 200  # of the level at 4 um, not of a finer or a coarser one


def test_a_rectangle_is_that_piece_of_the_whole_at_any_scale() -> None:
    mask = np.random.default_rng(2).random((30, 37)) < 0.5
    mask[:10, :12] = True
    mask[20:] = False
    tissue = Tissue(mask, (1003, 1237))
    for scale in (1.0, 2.7, 8.0, 50.0):
        height, width = int(1003 / scale) + 5, int(1237 / scale) + 5
        whole = tissue.at(-2, -2, height, width, scale)
        for top, left, rows, columns in ((0, 0, 5, 5), (3, 7, 11, 9), (1, 2, height - 4, 3), (9, 1, 1, width - 6)):
            piece = tissue.at(top - 2, left - 2, rows, columns, scale)
            np.testing.assert_array_equal(piece, whole[top : top + rows, left : left + columns])


def test_what_is_large_is_interpolated_in_blocks_that_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    tissue = Tissue(np.random.default_rng(2).random((30, 37)) < 0.5, (300, 370))
    whole = tissue.at(-3, -3, 320, 380, 1.0)
    monkeypatch.setattr("eosin.slides.tissue._BLOCK", 7)
    np.testing.assert_array_equal(tissue.at(-3, -3, 320, 380, 1.0), whole)


def test_values_between_the_centres_of_the_mask_are_interpolated() -> None:
    tissue = Tissue(np.array([[1, 0, 0], [1, 0, 0]], np.bool_), (80, 120))
    assert tissue.at(0, 0, 2, 3, 40.0).tolist() == tissue.mask.tolist()
    assert tissue.at(0, 0, 80, 120, 1.0).sum() == 80 * 40  # an edge lies where it was
    corner = Tissue(np.array([[1, 0], [0, 0]], np.bool_), (80, 80)).at(0, 0, 80, 80, 1.0)
    for y, x in ((0, 0), (20, 39), (39, 20), (30, 30), (39, 39), (20, 41)):
        down, right = (max(0.0, (place + 0.5 - 20) / 40) for place in (y, x))
        assert corner[y, x] == ((1 - down) * (1 - right) >= 0.5)


def test_there_is_no_tissue_outside_the_slide() -> None:
    tissue = Tissue(np.ones((4, 4), np.bool_), (40, 40))
    there = tissue.at(-5, 30, 20, 20, 1.0)
    assert there[5:, :10].all() and there.sum() == 15 * 10
    assert tissue.share == 1.0


def test_a_written_mask_is_read_back_as_it_was(tmp_path: Path) -> None:
    slide = Drawn(painted(glass(), ellipse(), (200, 120, 170)))
    tissue = find_tissue(slide, SIZE)
    tissue.write(tmp_path / "tissue.png")
    again = read_tissue(tmp_path / "tissue.png", slide, SIZE)
    np.testing.assert_array_equal(again.mask, tissue.mask)
    assert again.size == tissue.size == (600, 800)
    with Image.open(tmp_path / "tissue.png") as image:
        assert image.mode == "L" and set(np.unique(np.asarray(image)).tolist()) == {0, 255}


def square(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def feature(kind: str, coordinates: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": {}}


def geojson(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_polygons_are_tissue_and_their_holes_are_not(tmp_path: Path) -> None:
    features = [
        feature("Polygon", [square(80, 40, 400, 360), square(160, 120, 240, 200)]),
        feature("MultiPolygon", [[square(480, 80, 560, 160)], [square(640, 400, 800, 600)]]),
        feature("Point", [10, 10]),
    ]
    expected = np.zeros((600, 800), np.bool_)
    expected[40:360, 80:400] = True
    expected[120:200, 160:240] = False
    expected[80:160, 480:560] = True
    expected[400:, 640:] = True
    slide = Drawn(glass())
    for content in ({"type": "FeatureCollection", "features": features}, features):
        tissue = read_tissue(geojson(tmp_path / "a.geojson", content), slide, SIZE)
        assert tissue.mask.shape == (300, 400) and tissue.size == (600, 800)
        np.testing.assert_array_equal(tissue.mask, expected[::2, ::2])
    single = read_tissue(geojson(tmp_path / "a.json", features[0]), slide, SIZE)
    assert single.mask.sum() == (320 * 320 - 80 * 80) / 4


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"type": "FeatureCollection", "features": []}, "no polygons in it"),
        ([feature("LineString", [[1, 2], [3, 4]])], "no polygons in it"),
        ("tissue", "not GeoJSON features"),
        ({"type": "FeatureCollection"}, "not GeoJSON features"),
        ([feature("Circle", [1, 2])], 'feature 1: geometry "Circle"'),
        ([feature("Polygon", [square(80, 40, 400, 360)]), {"type": "Feature"}], "feature 2: geometry null"),
        ([feature("Polygon", [[[1, 2], [3, 4]]])], "feature 1: its polygon is damaged"),
        ([feature("Polygon", [[[1, 2], [3, "x"], [5, 6], [1, 2]]])], "feature 1: its polygon is damaged"),
        ([feature("Polygon", [])], "feature 1: its polygon is damaged"),
        ([feature("Polygon", 7)], "feature 1: its polygon is damaged"),
        ([feature("Polygon", [[[math.nan, 1], [2, 2], [3, 1]]])], "feature 1: its polygon is damaged"),
        ([feature("Polygon", [square(900, 40, 1000, 360)])], "cover nothing of the slide of 600 x 800 pixels"),
    ],
)
def test_wrong_geojson_is_told_in_one_line(tmp_path: Path, content: Any, says: str) -> None:
    path = geojson(tmp_path / "a.geojson", content)
    with pytest.raises(BadTissue) as error:
        read_tissue(path, Drawn(glass()), SIZE)
    assert says in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_missing_or_no_json_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text("{", encoding="utf-8")
    for name in ("a.geojson", "b.geojson", "c.png"):
        with pytest.raises(EosinError, match=name):
            read_tissue(tmp_path / name, Drawn(glass()), SIZE)


def test_a_mask_of_any_size_counts_if_it_has_the_slides_aspect_ratio(tmp_path: Path) -> None:
    for height, width in ((60, 80), (600, 800), (7, 9)):
        mask = np.zeros((height, width), np.uint8)
        mask[: height // 2] = 1
        Image.fromarray(mask).save(tmp_path / "a.png")
        tissue = read_tissue(tmp_path / "a.png", Drawn(glass()), SIZE)
        assert tissue.at(0, 0, 600, 800, 1.0).mean() == pytest.approx((height // 2) / height, abs=0.002)
    Image.fromarray(np.ones((80, 60), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(BadTissue, match=r"80 x 60 pixels, and the slide has 600 x 800"):
        read_tissue(tmp_path / "a.png", Drawn(glass()), SIZE)


class Opened:
    """A slide file by OpenSlide, as plainly as can be."""

    def __init__(self, path: Path) -> None:
        self._file = openslide.OpenSlide(path)
        sizes = zip(self._file.level_dimensions, self._file.level_downsamples, strict=True)
        self.levels = tuple(Level(height, width, factor) for (width, height), factor in sizes)
        self.path, self.pixel_size, self.unsized, self.reader = path, None, "", "openslide"

    def read(self, level: int, top: int, left: int, height: int, width: int) -> Pixels:
        factor = self.levels[level].downsample
        place = round(left * factor), round(top * factor)
        return np.asarray(self._file.read_region(place, level, (width, height)))[..., :3]

    def close(self) -> None:
        self._file.close()


def test_the_tissue_of_real_slides_is_found(real_data: Path) -> None:
    small = find_tissue(Opened(real_data / "slides" / "CMU-1-Small-Region.svs"), PixelSize(0.499, "test"))
    assert 0.38 < small.share < 0.44
    assert small.at(100, 60, 60, 20, 16.0).all()  # the dermis
    assert not small.at(0, 0, 185, 20, 16.0)[100:].any()  # glass at the left
    carcinoma = find_tissue(Opened(real_data / "slides" / "TCGA-CR-7395-01A-01-TS1.svs"), PixelSize(0.25, "test"))
    assert 0.64 < carcinoma.share < 0.72
    assert not carcinoma.at(0, 0, 10, 60, 32.0).any()  # glass and what the scanner left out, at the top left
