"""The mask rule against the spec's hand values, a slow loop and its corner cases."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.parts.cams import Averaged
from eosin.parts.pseudo import TagGatedArgmax
from oracles import cam as slow

# ARML specification, E12.
FOUR = [[[4, 1], [0, -1]], [[2, 2], [1, 0]], [[9, 9], [9, 9]], [[-1, -1], [-1, -1]]]
TIE = [[[4, 1], [0, 0]], [[2, 2], [1, -1]], [[3, 3], [3, 3]], [[3, 3], [3, 3]]]


def rule(band: float = 0.0) -> TagGatedArgmax:
    return TagGatedArgmax(partial(Averaged), band=band)


def decide(maps: list, tags: list[float], band: float = 0.0) -> list:
    allowed = (torch.tensor([tags]) != 0)[:, :, None, None]
    mask = rule(band).decide(torch.tensor([maps], dtype=torch.float32), allowed)
    assert mask.dtype == torch.uint8
    return mask[0].tolist()


@pytest.mark.parametrize("scaled", [lambda maps: maps, slow.joint_min_max])
def test_hand_values(scaled) -> None:
    assert decide(scaled(FOUR), [1, 1, 0, 0]) == [[0, 1], [1, 1]]
    half = slow.joint_min_max(FOUR)
    assert half[0] == [[0.5, pytest.approx(0.2)], [pytest.approx(0.1), 0]]


@pytest.mark.parametrize("scaled", [lambda maps: maps, slow.joint_min_max])
def test_an_absent_class_wins_no_tie(scaled) -> None:
    """The released code sets absent classes to 0, so that class 0 wins where the present one is the joint minimum."""
    assert decide(scaled(TIE), [0, 1, 0, 0]) == [[1, 1], [1, 1]]


def test_an_unknown_tag_allows_its_class() -> None:
    assert decide(FOUR, [1, 1, math.nan, 0]) == [[2, 2], [2, 2]]
    assert decide(FOUR, [math.nan] * 4) == [[2, 2], [2, 2]]


def test_where_no_class_is_allowed_nothing_is_trained() -> None:
    assert decide(FOUR, [0, 0, 0, 0]) == [[255, 255], [255, 255]]
    assert decide(FOUR, [0, 0, 0, 0], band=0.5) == [[255, 255], [255, 255]]


def test_a_narrow_lead_is_left_out() -> None:
    assert decide(FOUR, [1, 1, 0, 0], band=1.0) == [[0, 1], [1, 1]]
    assert decide(FOUR, [1, 1, 0, 0], band=1.01) == [[0, 255], [255, 255]]
    assert decide(FOUR, [0, 1, 0, 0], band=9.0) == [[1, 1], [1, 1]], "a single class has nobody to lead"
    assert decide([[[0.1, -3.0]]], [1], band=0.5) == [[0, 0]], "one class in all"


def test_gates_may_differ_from_pixel_to_pixel() -> None:
    allowed = torch.tensor([[[[1, 0], [0, 0]], [[1, 1], [1, 0]], [[0, 0], [0, 0]], [[0, 0], [1, 0]]]]).bool()
    assert rule().decide(torch.tensor([FOUR]).float(), allowed)[0].tolist() == [[0, 1], [1, 255]]


def test_maps_come_from_the_maker_and_the_learner() -> None:
    class Learner:
        def predict(self, image: torch.Tensor) -> torch.Tensor:
            return image[:, :2] * 2

    image = torch.rand(1, 3, 4, 5)
    assert torch.equal(rule().maps(Learner(), image), image[:, :2] * 2)  # type: ignore[arg-type]


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), band=st.sampled_from([0.0, 0.25, 1.0]), data=st.data())
def test_every_pixel_is_as_by_the_loop(seed: int, band: float, data: st.DataObject) -> None:
    tags = data.draw(st.lists(st.sampled_from([0.0, 1.0, math.nan]), min_size=3, max_size=3))
    # Whole quarters: sums and differences are exact, and ties are frequent (torch and the loop take the first).
    maps = (torch.randint(-4, 5, (3, 3, 4), generator=torch.Generator().manual_seed(seed)) / 4).tolist()
    assert decide(maps, tags, band) == slow.gated_argmax(maps, tags, band)
