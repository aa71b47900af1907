"""The picture shows each pixel's class, all colours, and a scale bar of the length that it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eosin.wsi.areas import areas
from eosin.wsi.overview import Sample, bar_length, fitting, write_overview
from eosin.wsi.tissues import Shown

SHOWN = (Shown(0, "tumour", "tumour", (200, 30, 30)), Shown(254, "uncertain", "uncertain", (150, 150, 150)))


def picture(folder: Path, classes: np.ndarray, um: float = 10.0, notes: tuple[str, ...] = ()) -> np.ndarray:
    grey = np.full((*classes.shape, 3), 230, np.uint8)
    found = areas(("tumour", "uncertain"), [3, 1], [1, 1], 0.5)
    write_overview(folder / "o.png", grey, classes, um, SHOWN, found, "a slide", notes)
    return np.asarray(Image.open(folder / "o.png"))


def test_a_sample_takes_the_pixel_in_the_middle_of_each_from_any_bands() -> None:
    classes = np.random.default_rng(0).integers(0, 9, (101, 83)).astype(np.uint8)
    for step, shape in ((7.3, (14, 12)), (0.4, (253, 208)), (1.0, (101, 83))):
        sample = Sample(shape, step, classes.shape)
        for top in range(0, 101, 9):
            sample.take(top, classes[top : top + 9])
        for y in range(shape[0]):
            for x in range(shape[1]):
                expected = classes[min(100, int((y + 0.5) * step)), min(82, int((x + 0.5) * step))]
                assert sample.classes[y, x] == expected


@pytest.mark.parametrize(
    ("most", "length"), [(0.9, 0.5), (1, 1), (4.9, 2), (5, 5), (99, 50), (1999, 1000), (25_000, 20_000)]
)
def test_a_scale_bar_has_a_round_length(most: float, length: float) -> None:
    assert bar_length(most) == pytest.approx(length)


def test_the_scale_bar_is_as_long_as_it_says(tmp_path: Path) -> None:
    found = picture(tmp_path, np.full((300, 700), 255, np.uint8), um=7.0)
    dark = (found < 60).all(2)
    runs = [len(run) for row in dark for run in "".join("#" if d else " " for d in row).split()]
    assert max(runs) == round(1000 / 7)  # a quarter of the picture is 1225 um, so the bar has 1 mm


def test_classes_and_uncertain_tissue_have_their_colours_and_glass_none(tmp_path: Path) -> None:
    classes = np.full((200, 700), 255, np.uint8)
    classes[50:150, 100:300], classes[50:150, 400:600] = 0, 254
    found = picture(tmp_path, classes).astype(int)
    top = next(y for y in range(len(found)) if (found[y, :700] == 230).all())
    for x, colour in ((200, SHOWN[0].colour), (500, SHOWN[1].colour)):
        expected = np.array([round(0.6 * 230 + 0.4 * c) for c in colour])
        assert abs(found[top + 100, x] - expected).max() <= 1
    assert (found[top + 100, 50] == 230).all()
    below = found[top + 200 :].reshape(-1, 3)
    assert all((below == colour).all(1).sum() >= 100 for colour in (shown.colour for shown in SHOWN))


def test_long_notes_are_broken_and_nothing_is_cut(tmp_path: Path) -> None:
    classes = np.full((20, 30), 255, np.uint8)
    short, long = (picture(tmp_path, classes, notes=notes) for notes in ((), ("word " * 60,)))
    assert short.shape[1] == long.shape[1] == 640 and long.shape[0] > short.shape[0] + 40
    assert (long[:, -10:] == 255).all() and (long[-4:] == 255).all()


def test_a_large_thumbnail_is_made_to_fit_and_its_scale_with_it() -> None:
    small, scale = fitting(np.zeros((1000, 4096, 3), np.uint8), 8.0)
    assert small.shape == (500, 2048, 3) and scale == 16.0
    same, scale = fitting(np.zeros((10, 20, 3), np.uint8), 8.0)
    assert same.shape == (10, 20, 3) and scale == 8.0
