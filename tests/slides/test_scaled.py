"""A slide at an asked pixel size: the right level, the right place, and the same pixels wherever a piece is cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eosin.core.errors import WrongUse
from eosin.slides import scaled as scaled_module
from eosin.slides.open import open_slide
from eosin.slides.scaled import Scaled
from eosin.slides.slide import BadSlide, Pixels, PixelSize, Slide
from oracles.resampling import resample
from slides.written import tissue, write_slide

HALF = PixelSize(0.5, "here")


def opened(folder: Path, pixels: Pixels, levels: int = 3) -> Slide:
    return open_slide(write_slide(folder / "a.tif", pixels, levels, compression="deflate"))


def all_of(view: Scaled) -> Pixels:
    return view.read(0, 0, *view.size)


@pytest.mark.parametrize(
    ("mpp", "level", "scale"),
    [
        (0.5, 0, 1.0),
        (0.508, 0, 1.0),  # agrees to 2 %
        (0.492, 0, 1.0),
        (0.8, 0, 1.6),
        (0.97, 0, 1.94),
        (0.985, 1, 2.0),
        (1.0, 1, 2.0),
        (1.5, 1, 3.0),
        (2.0, 2, 4.0),
        (3.3, 2, 6.6),
        (0.25, 0, 0.5),  # finer than the slide
    ],
)
def test_the_nearest_finer_level_is_read(mpp: float, level: int, scale: float, tmp_path: Path) -> None:
    with opened(tmp_path, tissue(512, 640)) as slide:
        asked: list[int] = []
        read = slide.read
        slide.read = lambda *where: asked.append(where[0]) or read(*where)  # type: ignore[method-assign,func-returns-value]
        view = Scaled(slide, mpp, HALF)
        all_of(view)
    assert set(asked) == {level}
    assert view.scale == pytest.approx(scale, rel=5e-4)
    assert view.mpp == pytest.approx(0.5 * view.scale)
    assert view.size == (int(512 / view.scale), int(640 / view.scale))


def test_a_level_that_agrees_is_taken_as_it_is(tmp_path: Path) -> None:
    pixels = tissue(301, 403)
    with opened(tmp_path, pixels) as slide:
        assert np.array_equal(all_of(Scaled(slide, 0.505, HALF)), pixels)
        assert np.array_equal(all_of(Scaled(slide, 1.0, HALF)), slide.read(1, 0, 0, 150, 201))
        assert Scaled(slide, 0.505, HALF).mpp == 0.5 and Scaled(slide, 1.0, HALF).mpp == 1.0


@pytest.mark.parametrize("mpp", [0.3, 0.52, 0.7, 0.8137, 1.31, 2.71, 5.3])
def test_a_piece_is_that_piece_of_the_whole_bit_by_bit(
    mpp: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    with opened(tmp_path, tissue(900, 1100)) as slide:
        view = Scaled(slide, mpp, HALF)
        whole = all_of(view)
        monkeypatch.setattr(scaled_module, "LARGEST", 300)  # so that pieces are made of pieces
        assert np.array_equal(all_of(view), whole)
        beyond = np.pad(whole, ((50, 50), (50, 50), (0, 0)), constant_values=255)
        for _ in range(60):
            height, width = (int(draw.integers(1, min(200, side))) for side in view.size)
            top = int(draw.integers(-50, view.size[0] + 50 - height))
            left = int(draw.integers(-50, view.size[1] + 50 - width))
            part = beyond[top + 50 : top + 50 + height, left + 50 : left + 50 + width]
            assert np.array_equal(view.read(top, left, height, width), part)


@pytest.mark.parametrize("mpp", [0.31, 0.8, 0.8137, 1.0])
def test_resampling_is_that_of_the_slow_formula(mpp: float, tmp_path: Path) -> None:
    pixels = tissue(61, 83)
    with opened(tmp_path, pixels, levels=1) as slide:
        view = Scaled(slide, mpp, HALF)
        expected = resample(pixels, view.scale, view.size)
        assert np.abs(all_of(view) - np.clip(expected, 0, 255)).max() <= 1.0  # both passes round
        assert view.scale == pytest.approx(mpp / 0.5, rel=5e-4)


def test_pillow_resamples_the_whole_in_one_piece_alike(tmp_path: Path) -> None:
    pixels = tissue(640, 1024)
    with opened(tmp_path, pixels, levels=1) as slide:
        view = Scaled(slide, 0.625, HALF)
        assert view.size == (512, 819)
        box = (0, 0, 819 * 1.25, 640)
        expected = Image.fromarray(pixels).resize((819, 512), Image.Resampling.HAMMING, box=box)
        assert np.array_equal(all_of(view), np.asarray(expected))


def test_places_far_from_the_origin_do_not_drift(tmp_path: Path) -> None:
    """A bright spot is found where scale says that it is, also 20,000 pixels away."""
    pixels = np.zeros((64, 20480, 3), np.uint8)
    pixels[30:34, 20000:20004] = 255
    with opened(tmp_path, pixels, levels=1) as slide:
        view = Scaled(slide, 0.8137, HALF)
        strip = view.read(0, view.size[1] - 400, view.size[0], 400)[..., 0].astype(float)
    middle = (strip.sum(0) @ (np.arange(400) + view.size[1] - 400 + 0.5)) / strip.sum()
    assert middle * view.scale == pytest.approx(20002, abs=0.05)


def test_nothing_but_white_lies_outside(tmp_path: Path) -> None:
    with opened(tmp_path, np.zeros((300, 300, 3), np.uint8)) as slide:
        view = Scaled(slide, 0.8, HALF)
        around = view.read(-10, -10, view.size[0] + 20, view.size[1] + 20)
        assert (around[10:-10, 10:-10] == 0).all()
        around[10:-10, 10:-10] = 255
        assert (around == 255).all()
        assert (view.read(1000, 1000, 5, 7) == 255).all() and (view.read(-50, 3, 5, 7) == 255).all()


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path, tissue(200, 200), levels=1) as slide:
        for mpp in (0.0, -1.0, float("nan")):
            with pytest.raises(WrongUse, match="must be above 0"):
                Scaled(slide, mpp, HALF)
        with pytest.raises(BadSlide, match=r"a\.tif: 200 x 200 pixels are less than one at 200 um"):
            Scaled(slide, 200, HALF)
        with pytest.raises(ValueError, match="0 x 5"):
            Scaled(slide, 0.8, HALF).read(0, 0, 0, 5)
