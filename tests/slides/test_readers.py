"""Both readers of slides give the same pixels, and those that were written."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from eosin.slides.open import is_slide, open_slide
from eosin.slides.reference import BLOCK, ReferenceSlide, on_white
from eosin.slides.slide import BadSlide, Level, Slide, spans
from eosin.slides.tiles import Memory
from slides.written import JPEG, halved, tissue, write_aperio, write_slide

# name -> how it is written; all of them are read directly
FORMS: dict[str, dict[str, Any]] = {
    "not compressed": {},
    "deflate": {"compression": "deflate"},
    "deflate of differences": {"compression": "deflate", "predictor": True},
    "lzw": {"compression": "lzw"},
    "jpeg in rgb": JPEG,
    "jpeg in ycbcr 4:4:4": {**JPEG, "photometric": "ycbcr", "subsampling": (1, 1)},
    "jpeg in ycbcr 4:2:2": {**JPEG, "photometric": "ycbcr", "subsampling": (2, 1)},
    "jpeg in ycbcr 4:2:0": {**JPEG, "photometric": "ycbcr", "subsampling": (2, 2)},
    "tiles that are not square": {**JPEG, "tile": (64, 240)},
}
# name -> how it is written; what is not known to come out alike is left to OpenSlide
LEFT: dict[str, dict[str, Any]] = {
    "with an alpha channel": {"compression": "deflate", "extrasamples": ["unassalpha"]},
    "turned": {"extratags": [(274, 3, 1, 3, True)]},
    "packbits": {"compression": "packbits"},
}


def opensl(path: Path, level: int) -> np.ndarray:
    """A whole level by OpenSlide alone."""
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]).convert("RGB"))


def whole(slide: Slide, level: int) -> np.ndarray:
    size = slide.levels[level]
    return slide.read(level, 0, 0, size.height, size.width)


def same_everywhere(path: Path, levels: int) -> None:
    """tifffile reads each level as OpenSlide does, whole and in random rectangles, some of which reach beyond it."""
    draw = np.random.default_rng(0)
    with open_slide(path, "tifffile") as slide:
        assert slide.reader == "tifffile" and len(slide.levels) == levels
        for level, size in enumerate(slide.levels):
            expected = opensl(path, level)
            assert np.array_equal(whole(slide, level), expected)
            beyond = np.pad(expected, ((300, 300), (300, 300), (0, 0)), constant_values=255)
            for _ in range(30):
                height, width = draw.integers(1, 300, 2)
                top = int(draw.integers(-300, size.height + 300 - height))
                left = int(draw.integers(-300, size.width + 300 - width))
                part = beyond[top + 300 : top + 300 + height, left + 300 : left + 300 + width]
                assert np.array_equal(slide.read(level, top, left, int(height), int(width)), part)


@pytest.mark.parametrize("form", FORMS)
def test_a_pyramid_is_read_directly_as_openslide_reads_it(form: str, tmp_path: Path) -> None:
    same_everywhere(write_slide(tmp_path / "a.tif", tissue(451, 613), **FORMS[form]), 3)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("photometric", ["RGB", "YCBCR"])
def test_a_pyramid_of_another_writer_with_tables_of_its_own_is_read_alike(photometric: str, tmp_path: Path) -> None:
    """GDAL keeps the tables of JPEG tiles once for each page."""
    rasterio = pytest.importorskip("rasterio")
    form = {"driver": "GTiff", "tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "JPEG"}
    size = {"height": 451, "width": 613, "count": 3, "dtype": "uint8"}
    with rasterio.Env(JPEG_QUALITY_OVERVIEW=60):
        with rasterio.open(tmp_path / "a.tif", "w", photometric=photometric, jpeg_quality=80, **form, **size) as file:
            file.write(np.moveaxis(tissue(451, 613), 2, 0))
        with rasterio.open(tmp_path / "a.tif", "r+") as file:
            file.build_overviews([2], rasterio.enums.Resampling.average)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert all(page.jpegtables for page in file.pages)  # type: ignore[union-attr]
    same_everywhere(tmp_path / "a.tif", 2)


@pytest.mark.parametrize("form", [JPEG, {"compression": 33005, "compressionargs": {"level": 40}}])
def test_an_aperio_slide_is_read_directly_as_openslide_reads_it(form: dict[str, Any], tmp_path: Path) -> None:
    same_everywhere(write_aperio(tmp_path / "a.svs", tissue(450, 600), **form), 2)


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs"])
def test_a_real_slide_is_read_directly_as_openslide_reads_it(name: str, real_data: Path) -> None:
    same_everywhere(real_data / "slides" / name, 1 if name.startswith("CMU") else 2)


def test_lossless_pixels_are_those_that_were_written(tmp_path: Path) -> None:
    pixels = tissue(451, 613)
    path = write_slide(tmp_path / "a.tif", pixels, compression="deflate")
    for reader in ("openslide", "tifffile"):
        with open_slide(path, reader) as slide:  # type: ignore[arg-type]
            assert np.array_equal(whole(slide, 0), pixels)
            assert np.array_equal(slide.read(0, 100, 200, 50, 60), pixels[100:150, 200:260])
            assert slide.levels == (Level(451, 613, 1.0), Level(225, 306, 2.0), Level(112, 153, 4.0))
    with open_slide(path, "tifffile") as slide:
        assert np.array_equal(whole(slide, 1), halved(pixels))


@pytest.mark.parametrize("form", LEFT)
def test_what_is_not_known_is_left_to_openslide(form: str, tmp_path: Path) -> None:
    pixels = tissue(300, 400)
    if "alpha" in form:
        pixels = np.dstack([pixels, np.full((300, 400), 255, np.uint8)])
    path = write_slide(tmp_path / "a.tif", pixels, levels=1, **LEFT[form])
    with open_slide(path) as slide:
        assert slide.reader == "openslide"
        assert np.array_equal(whole(slide, 0), opensl(path, 0))
    with pytest.raises(BadSlide, match=r"a\.tif: tifffile might read other pixels \(.+\); read it by openslide"):
        open_slide(path, "tifffile")


def test_two_pages_of_one_size_are_left_to_openslide(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for kind, pixels in ((0, tissue(300, 400)), (2, np.zeros((300, 400, 3), np.uint8))):
            file.write(pixels, subfiletype=kind, tile=(128, 128), photometric="rgb", metadata=None)
    with open_slide(path) as slide:
        assert slide.reader == "openslide" and len(slide.levels) == 1
        assert np.array_equal(whole(slide, 0), tissue(300, 400))


def test_a_tile_that_is_not_stored_is_left_to_openslide_and_the_others_are_not(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", tissue(603, 803), levels=2, compression="deflate")
    with open_slide(path) as slide:
        stored = [whole(slide, level) for level in (0, 1)]
    with tifffile.TiffFile(path, mode="r+b") as file:
        for page, missing in zip(file.pages, (8, 6), strict=True):  # both at row 128, column 128 or 256
            tag = page.tags["TileByteCounts"]  # type: ignore[union-attr]
            tag.overwrite([0 if i == missing else count for i, count in enumerate(tag.value)])
    draw = np.random.default_rng(0)
    with open_slide(path) as slide, open_slide(path, "openslide") as reference:
        assert slide.reader == "tifffile" and slide.levels[1].downsample == 2
        for level, column in ((0, 128), (1, 256)):
            hole = slice(128, 256), slice(column, column + 128)
            assert np.array_equal(
                slide.read(level, 128, column, 128, 128), reference.read(level, 128, column, 128, 128)
            )
            seen = whole(slide, level)
            assert (seen[hole] == 255).mean() > 0.95  # at level 1 OpenSlide blends its rim with what lies around it
            expected = stored[level].copy()
            expected[hole] = seen[hole]
            assert np.array_equal(seen, expected)
            for _ in range(20):
                top, left = (int(value) for value in draw.integers(0, 200, 2))
                assert np.array_equal(slide.read(level, top, left, 90, 90), seen[top : top + 90, left : left + 90])


def test_label_macro_and_thumbnail_are_never_read(tmp_path: Path) -> None:
    pixels = tissue(450, 600)
    path = write_aperio(tmp_path / "a.svs", pixels)
    for reader in ("openslide", "tifffile"):
        with open_slide(path, reader) as slide:  # type: ignore[arg-type]
            assert [(level.height, level.width) for level in slide.levels] == [(450, 600), (112, 150)]
            for level in (0, 1):
                assert not (whole(slide, level) == (255, 0, 0)).all(2).any()
            assert slide.pixel_size is not None and slide.pixel_size.mpp == 0.499


def test_blank_tiles_that_share_their_bytes_are_decoded_once(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", np.full((512, 512, 3), 240, np.uint8), levels=1, compression="deflate")
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name in ("TileOffsets", "TileByteCounts"):
            tag = file.pages[0].tags[name]
            tag.overwrite([tag.value[0]] * len(tag.value))
    with open_slide(path, "tifffile") as slide:
        decoded = counting(slide)
        assert (whole(slide, 0) == 240).all()
        assert decoded == [0]


def test_overlapping_reads_decode_a_tile_once(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", tissue(256, 512), levels=1, **JPEG)
    with open_slide(path, "tifffile") as slide:
        decoded = counting(slide)
        for left in range(0, 300, 20):
            slide.read(0, 10, left, 200, 200)
        assert sorted(decoded) == list(range(8))


def counting(slide: Any) -> list[int]:
    """Make a directly read slide tell which tiles it decodes."""
    decoded: list[int] = []
    decode = slide._tiled[0].decode

    def told(data: bytes, index: int, **settings: Any) -> Any:
        decoded.append(index)
        return decode(data, index, **settings)

    object.__setattr__(slide._tiled[0], "decode", told)
    return decoded


def test_the_memory_of_tiles_forgets_the_one_that_was_not_asked_for_longest() -> None:
    memory = Memory(most=30)
    tiles = {name: np.full(10, i, np.uint8) for i, name in enumerate("abcd")}
    for name in "abc":
        memory.put(name, tiles[name])
    memory.get("a")
    memory.put("d", tiles["d"])
    assert [name for name in "abcd" if memory.get(name) is not None] == ["a", "c", "d"]
    assert memory.get("a") is tiles["a"]


@pytest.mark.parametrize("pread", [True, False])
@pytest.mark.parametrize("reader", ["openslide", "tifffile"])
def test_many_threads_may_read(reader: Any, pread: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not pread:
        monkeypatch.delattr(os, "pread", raising=False)
    path = write_slide(tmp_path / "a.tif", tissue(700, 900), levels=2, **JPEG)
    expected, gate = [opensl(path, 0), opensl(path, 1)], threading.Barrier(8)

    def look(seed: int) -> bool:
        draw = np.random.default_rng(seed)
        gate.wait()
        fine = True
        for _ in range(40):
            top, left = (int(value) for value in draw.integers(0, 300, 2))
            fine &= np.array_equal(slide.read(0, top, left, 90, 90), expected[0][top : top + 90, left : left + 90])
        return fine

    with open_slide(path, reader) as slide, ThreadPoolExecutor(8) as pool:
        slide._memory = Memory(most=3 * 128 * 128 * 3)  # type: ignore[attr-defined]  # so that tiles are forgotten
        assert all(pool.map(look, range(8)))


def test_a_level_that_openslide_shifts_is_read_the_same_wherever_it_is_cut(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", tissue(2 * BLOCK + 300, 2 * BLOCK + 401))
    draw = np.random.default_rng(1)
    with open_slide(path, "openslide") as slide, openslide.OpenSlide(path) as handle:
        assert handle.level_downsamples[2] % 1 and slide.levels[2].downsample == 4
        for level in (1, 2):
            size, all_of_it = slide.levels[level], whole(slide, level)
            for _ in range(20):
                top, left = int(draw.integers(0, size.height - 60)), int(draw.integers(0, size.width - 60))
                part = slide.read(level, top, left, 60, 60)
                assert np.array_equal(part, all_of_it[top : top + 60, left : left + 60])


class Scanned:
    """What OpenSlide tells of a slide of which a rectangle was scanned; pixels say where they lie."""

    level_dimensions = ((1000, 800), (250, 200))
    level_downsamples = (1.0, 4.0)
    properties = {  # noqa: RUF012
        "openslide.bounds-x": "120",
        "openslide.bounds-y": "80",
        "openslide.bounds-width": "403",
        "openslide.bounds-height": "300",
        "openslide.mpp-x": "0.25",
        "openslide.mpp-y": "0.2501",
    }

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        width, height = size
        step = int(self.level_downsamples[level])
        rows, columns = np.mgrid[0:height, 0:width]
        pixels = np.stack([(location[1] + rows * step) % 251, (location[0] + columns * step) % 251, rows * 0, rows], 2)
        pixels[..., 3] = 255
        return Image.fromarray(pixels.astype(np.uint8), "RGBA")

    def close(self) -> None:
        """Nothing is open."""


def test_what_was_not_scanned_is_no_part_of_the_slide() -> None:
    slide = ReferenceSlide(Path("a.mrxs"), Scanned())
    assert slide.levels == (Level(300, 403, 1.0), Level(75, 100, 4.0))
    for level, step in ((0, 1), (1, 4)):
        pixels = slide.read(level, 3, 5, 10, 10)
        assert tuple(pixels[0, 0]) == ((80 + 3 * step) % 251, (120 + 5 * step) % 251, 0)
        assert tuple(pixels[9, 9]) == ((80 + 12 * step) % 251, (120 + 14 * step) % 251, 0)
    assert (slide.read(0, -4, 399, 8, 8)[:4] == 255).all()
    assert (slide.read(0, -4, 399, 8, 8)[:, 4:] == 255).all()
    assert (slide.read(0, -4, 399, 8, 8)[4:, :4] != 255).all()


def test_what_is_transparent_lies_on_white() -> None:
    image = Image.new("RGBA", (4, 1), (0, 0, 0, 0))
    for x, colour in enumerate([(10, 20, 30, 255), (10, 20, 30, 0), (100, 0, 200, 128)]):
        image.putpixel((x, 0), colour)
    seen = on_white(image)[0].astype(int)
    assert seen[[0, 1, 3]].tolist() == [[10, 20, 30], [255, 255, 255], [255, 255, 255]]
    assert abs(seen[2] - [177, 127, 227]).max() <= 1  # 255 + (colour - 255) * 128 / 255


@pytest.mark.parametrize(
    ("full", "size", "spanned"),
    [
        ((4443, 3567), (2221, 1783), 2.0),  # a real slide: halved, and what is left over dropped
        ((4443, 3567), (2222, 1784), 2.0),  # rounded up
        ((1000, 800), (1000, 800), 1.0),
        ((1000, 1000), (15, 15), 64.0),  # 67 would explain it too
        ((3000, 3000), (1000, 1000), 3.0),
        ((1000, 1000), (400, 400), 2.5),
    ],
)
def test_a_pixel_of_a_level_spans_what_its_pyramid_was_made_by(
    full: tuple[int, int], size: tuple[int, int], spanned: float
) -> None:
    assert spans(full, size) == spanned


def test_an_image_is_a_slide_of_one_level(tmp_path: Path) -> None:
    pixels = tissue(50, 70)
    for name in ("a.png", "a.bmp", "a.tif"):
        Image.fromarray(pixels).save(tmp_path / name)
        assert not is_slide(tmp_path / name)
        with open_slide(tmp_path / name) as slide:
            assert (slide.reader, slide.levels, slide.pixel_size) == ("image", (Level(50, 70, 1.0),), None)
            assert np.array_equal(whole(slide, 0), pixels)
            corner = slide.read(0, 40, -5, 20, 20)
        assert np.array_equal(corner[:10, 5:], pixels[40:, :15])
        assert (corner[10:] == 255).all() and (corner[:, :5] == 255).all()


def test_tiled_tiff_files_are_slides_and_others_are_not(tmp_path: Path) -> None:
    assert is_slide(write_slide(tmp_path / "a.tif", tissue(300, 300), levels=1))
    tifffile.imwrite(tmp_path / "b.tif", tissue(300, 300), photometric="rgb", metadata=None)
    assert not is_slide(tmp_path / "b.tif")
    assert is_slide(tmp_path / "missing.svs")  # so that it is told as a slide


def test_a_slide_lets_go_of_its_file(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", tissue(300, 300), levels=1)
    with open_slide(path, "tifffile") as slide:
        pass
    with pytest.raises((BadSlide, ValueError)):
        slide.read(0, 0, 0, 10, 10)
