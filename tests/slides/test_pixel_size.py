"""How large a pixel is: told by the user, by a table or by the file, in this order, and never guessed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from eosin.core.errors import EosinError, WrongUse
from eosin.slides.open import open_slide
from eosin.slides.pixel_size import from_metadata, pixel_size, read_table
from eosin.slides.slide import BadSlide, PixelSize
from slides.written import tissue, write_slide


def test_the_user_comes_before_the_table_and_the_table_before_the_file(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.b.tif", tissue(200, 200), levels=1, mpp=0.5)
    with open_slide(path) as slide:
        assert pixel_size(slide, 0.3, {"a.b.tif": 0.4}) == PixelSize(0.3, "--mpp")
        assert pixel_size(slide, None, {"a.b.tif": 0.4, "a.b": 0.7}) == PixelSize(0.4, "--mpp-csv")
        assert pixel_size(slide, None, {"a.b": 0.4, "a": 0.9}) == PixelSize(0.4, "--mpp-csv")
        told = pixel_size(slide, None, {"c.tif": 0.4})
    assert told.mpp == pytest.approx(0.5) and told.source == "openslide.mpp-x and openslide.mpp-y"


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ({}, "its metadata lack openslide.mpp-x"),
        ({"resolution": (1, 1), "resolutionunit": "NONE"}, "its metadata lack openslide.mpp-x"),
        ({"resolution": (10000, 10000), "resolutionunit": "NONE"}, "its metadata lack openslide.mpp-x"),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, "say 352.* um, which no slide has"),
        ({"resolution": (10, 10), "resolutionunit": "CENTIMETER"}, "say 1000 x 1000 um, which no slide has"),
        ({"resolution": (20000, 10000), "resolutionunit": "CENTIMETER"}, "not square: 0.5 x 1 um"),
    ],
)
def test_an_unknown_pixel_size_names_both_options_and_says_why(
    form: dict[str, object], why: str, tmp_path: Path
) -> None:
    path = write_slide(tmp_path / "a.tif", tissue(200, 200), levels=1, mpp=None, **form)
    with open_slide(path) as slide:
        assert slide.pixel_size is None
        with pytest.raises(BadSlide, match=f"{why}.*--mpp.*--mpp-csv.*wsi,mpp") as caught:
            pixel_size(slide)
        assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
        assert pixel_size(slide, 0.5).mpp == 0.5


def test_a_real_slide_without_pixel_size_is_refused_and_one_with_it_is_not(real_data: Path) -> None:
    without, with_it = (
        real_data / "slides" / f"{name}.svs" for name in ("TCGA-CR-7395-01A-01-TS1", "CMU-1-Small-Region")
    )
    with open_slide(without) as slide, pytest.raises(BadSlide, match=r"TCGA.*--mpp.*--mpp-csv"):
        pixel_size(slide)
    with open_slide(with_it) as slide:
        assert pixel_size(slide).mpp == 0.499


def test_pixels_that_are_nearly_square_have_the_mean_of_both_sides() -> None:
    told = "openslide.mpp"
    assert from_metadata("0.500", "0.504", told) == (PixelSize(0.502, told), "")
    assert from_metadata("0.500", "0.506", told) == (None, "its pixels are not square: 0.500 x 0.506 um")


@pytest.mark.parametrize("x", ["0", "-0.5", "nan", "inf", "50.1", "wide", ""])
def test_nonsense_in_the_metadata_is_no_pixel_size(x: str) -> None:
    for pair in ((x, "0.5"), ("0.5", x)):
        size, why = from_metadata(*pair, "there")
        assert size is None and "which no slide has" in why
    assert from_metadata("50", "50", "there")[0] == PixelSize(50, "there")


@pytest.mark.parametrize("mpp", [0.0, -1.0, 51.0, math.nan, math.inf])
def test_nonsense_from_the_user_is_wrong_use(mpp: float, tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", tissue(200, 200), levels=1)
    with open_slide(path) as slide, pytest.raises(WrongUse, match="--mpp"):
        pixel_size(slide, mpp)


def test_a_table_is_read_by_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "mpp.csv"
    path.write_text("\ufeffnote,mpp,wsi\nx, 0.25 ,slides/a.svs\n,0.5,C:\\slides\\b\n", encoding="utf-8")
    assert read_table(path) == {"a.svs": 0.25, "b": 0.5}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has columns none; needs wsi,mpp"),
        ("slide,mpp\na,0.5\n", "has columns slide,mpp; needs wsi,mpp"),
        ("wsi,mpp\na.svs,0.5\nb.svs,0\n", "line 3: b.svs with mpp 0;"),
        ("wsi,mpp\na.svs,fine\n", "line 2: a.svs with mpp fine;"),
        ("wsi,mpp\na.svs\n", "line 2: a.svs with mpp empty;"),
        ("wsi,mpp\n,0.5\n", "line 2: no slide with mpp 0.5;"),
        ("wsi,mpp\na.svs,0.5\nx/a.svs,0.25\n", "line 3: a.svs stands there twice"),
    ],
)
def test_a_bad_table_is_told_with_its_line(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "mpp.csv"
    path.write_text(text)
    with pytest.raises(EosinError, match=told) as caught:
        read_table(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    with pytest.raises(EosinError, match="no such file"):
        read_table(tmp_path / "none.csv")
    path.write_bytes(b"wsi,mpp\n\xff\xfe,0.5\n")
    with pytest.raises(EosinError, match="not a CSV file"):
        read_table(path)
