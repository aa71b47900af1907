"""Small pieces of masks are turned, large ones are not, as by labels of all cells."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from eosin.slides.pieces import turn_small


def by_labels(mask: NDArray[np.bool_], value: bool, least: float) -> NDArray[np.bool_]:
    _, labels, stats, _ = cv2.connectedComponentsWithStats((mask == value).astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < least
    small[0] = False
    return np.where(small[labels], not value, mask)


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.45, 0.6, 0.9, 1.0])
def test_the_same_pieces_are_turned_as_by_labels(share: float, value: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eosin.slides.pieces._ROWS", 7)
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (1, 30), (30, 1), (41, 60), (64, 37)):
        mask = rng.random((height, width)) < share
        for least in (0.0, 2.0, 5.5, 40.0):
            found = mask.copy()
            turn_small(found, value, least)
            np.testing.assert_array_equal(found, by_labels(mask, value, least))


def test_pieces_that_touch_at_corners_are_two() -> None:
    mask = np.zeros((6, 6), np.bool_)
    mask[:3, :3] = mask[3:, 3:] = True
    turn_small(mask, True, 9)
    assert mask.sum() == 18
    turn_small(mask, True, 10)
    assert not mask.any()
