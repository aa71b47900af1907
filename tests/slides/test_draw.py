"""Overlays and legends, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from eosin.core.classes import Classes, Tissue
from eosin.slides.draw import edges, legend, overlay

CLASSES = Classes(tissues=(Tissue(name="gland", colour=(200, 0, 0)), Tissue(name="rest", colour=(0, 100, 0))))


def halves() -> np.ndarray:
    mask = np.zeros((12, 12), np.uint8)
    mask[:, 6:] = 1
    return mask


def test_overlay_tints_inside_and_draws_each_class_own_edge() -> None:
    rgb = np.full((12, 12, 3), 100, np.uint8)
    drawn = overlay(rgb, halves(), CLASSES, alpha=0.5)
    assert drawn.dtype == np.uint8 and drawn.shape == rgb.shape
    assert tuple(drawn[3, 1]) == (150, 50, 50)
    assert tuple(drawn[3, 10]) == (50, 100, 50)
    assert tuple(drawn[3, 5]) == (200, 0, 0)
    assert tuple(drawn[3, 6]) == (0, 100, 0)
    assert (rgb == 100).all(), "the input is left alone"


@pytest.mark.parametrize("value", [255, 7])
def test_ignored_and_unknown_pixels_keep_their_colour(value: int) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    mask = halves()
    mask[4:8, 4:8] = value
    drawn = overlay(rgb, mask, CLASSES)
    assert (drawn[mask == value] == rgb[mask == value]).all()
    assert tuple(drawn[3, 4]) == (200, 0, 0), "the class beside an ignored area has an edge there"


def test_edges_are_found_against_a_slow_oracle() -> None:
    mask = np.random.default_rng(1).integers(0, 3, (9, 11)).astype(np.uint8)
    for width in (1, 2):
        slow = np.zeros(mask.shape, bool)
        for y in range(9):
            for x in range(11):
                near = mask[max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1]
                slow[y, x] = bool((near != mask[y, x]).any())
        assert (edges(mask, width) == slow).all()


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="one size"):
        overlay(np.zeros((4, 5, 3), np.uint8), np.zeros((4, 4), np.uint8), CLASSES)


def test_legend_holds_every_colour_and_wraps() -> None:
    many = Classes(
        tissues=tuple(Tissue(name=f"tissue number {k}", colour=(10 * k, 255 - 10 * k, 77)) for k in range(9))
    )
    wide, narrow = legend(many, 624), legend(many, 300, texts=[f"{name} 11.1%" for name in many.names])
    assert wide.shape[1] == 624 and narrow.shape[1] == 300
    assert narrow.shape[0] > wide.shape[0]
    for drawn in (wide, narrow):
        colours = {tuple(c) for c in drawn.reshape(-1, 3)}
        assert set(many.colours) <= colours
    assert legend(many, 624, note="").shape[0] < wide.shape[0]
