"""Shares add up, and the overlay shows image, classes, borders and a legend that fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eosin.wsi import result
from eosin.wsi.result import shares, write_overlay
from small_model import CLASSES


def halves(height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 :] = 1
    return mask


def overlay(folder: Path, mask: np.ndarray, grey: int = 200) -> np.ndarray:
    image = np.full((*mask.shape, 3), grey, np.uint8)
    write_overlay(folder / "overlay.png", image, mask, CLASSES, shares(mask, CLASSES, 0.5))
    with Image.open(folder / "overlay.png") as written:
        assert written.mode == "RGB"
        return np.array(written)


def test_shares_add_up() -> None:
    found = shares(halves(10, 30), CLASSES, 2.0)
    assert [s.pixels for s in found] == [150, 150, 0]
    assert [s.fraction for s in found] == [0.5, 0.5, 0]
    assert [s.mm2 for s in found] == pytest.approx([150 * 4e-6, 150 * 4e-6, 0])
    assert [s.mm2 for s in shares(halves(4, 4), CLASSES, None)] == [None] * 3


def test_classes_are_laid_over_thinly_and_their_borders_fully(tmp_path: Path) -> None:
    found = overlay(tmp_path, halves(200, 400)).astype(int)
    for column, colour in ((50, CLASSES.colours[0]), (350, CLASSES.colours[1])):
        expected = np.array([round(0.6 * 200 + 0.4 * c) for c in colour])
        assert abs(found[100, column] - expected).max() <= 1
    assert tuple(found[100, 199]) == CLASSES.colours[0]
    assert tuple(found[100, 200]) == CLASSES.colours[1]


def test_the_legend_shows_every_colour_below_the_image(tmp_path: Path) -> None:
    found = overlay(tmp_path, halves(200, 400))
    assert found.shape[1] == 400 and found.shape[0] > 200
    below = found[200:].reshape(-1, 3)
    for colour in CLASSES.colours:
        assert (below == colour).all(1).sum() >= 100
    assert (below == 255).all(1).mean() > 0.5


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 700), (300, 2)])
def test_tiny_images_get_a_legend_that_fits(tmp_path: Path, height: int, width: int) -> None:
    found = overlay(tmp_path, np.zeros((height, width), np.uint8))
    assert found.shape[1] == max(width, 320)
    # Nothing is cut: the last columns of the strip stay white.
    assert (found[height:, -4:] == 255).all()


def test_large_images_are_shown_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result, "LONGEST", 400)
    found = overlay(tmp_path, halves(500, 1000))
    assert found.shape[1] == 400
    assert (found[190, 380] == found[10, 210]).all() and (found[199] != 255).any() and found.shape[0] > 200
