"""The mask rule against the spec's hand values, a slow loop and its corner cases."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eosin.parts.cams import Averaged
from eosin.parts.pseudo import RefinedArgmax, TagGatedArgmax
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


def test_where_the_best_two_are_equal_neither_is_drawn() -> None:
    empty = [[[0, 4], [0, 1]], [[0, 0], [0, 1]]]
    assert decide(empty, [1, 1]) == [[255, 0], [255, 255]]
    assert decide(empty, [0, 1]) == [[1, 1], [1, 1]], "a single class has no equal"


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
    # Whole quarters: sums and differences are exact, and ties are frequent.
    maps = (torch.randint(-4, 5, (3, 3, 4), generator=torch.Generator().manual_seed(seed)) / 4).tolist()
    assert decide(maps, tags, band) == slow.gated_argmax(maps, tags, band)


# -- from another source, and refined ------------------------------------------------------------------------------


class Scorer:
    """Predicts one thing, shows another, and is sure of its tags to different degrees."""

    def predict(self, image: Tensor) -> Tensor:
        raise AssertionError("the source was to be asked")

    def shown(self, image: Tensor) -> Tensor:
        return image * 2

    def tag_scores(self, image: Tensor) -> Tensor:
        return torch.tensor([[0.5, 1.0, 0.25]]).expand(len(image), -1)


class Shown:
    def __call__(self, learner: Scorer, image: Tensor) -> Tensor:
        return learner.shown(image)


class More:
    """A step that adds a map, and notes what it was given."""

    def __init__(self, value: float, notes: list) -> None:
        self.value, self.notes = value, notes

    def __call__(self, maps: Tensor, allowed: Tensor, image: Tensor) -> Tensor:
        self.notes.append((self.value, tuple(maps.shape), tuple(allowed.shape), tuple(image.shape)))
        return torch.cat([maps, torch.full_like(maps[:, :1], self.value)], 1)


def refined(scored: bool = False, steps: tuple = (), **settings) -> RefinedArgmax:
    return RefinedArgmax(partial(Shown), partial(Averaged), scored=scored, steps=steps, **settings)


IMAGE = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))


def test_maps_come_from_the_source_in_every_view() -> None:
    assert torch.equal(refined().maps(Scorer(), IMAGE), 2 * IMAGE)  # type: ignore[arg-type]
    turned = RefinedArgmax(partial(Shown), partial(Averaged, (1.0,), 8)).maps(Scorer(), IMAGE)  # type: ignore[arg-type]
    torch.testing.assert_close(turned, 2 * IMAGE)


def test_scores_multiply_each_map() -> None:
    found = refined(scored=True).maps(Scorer(), IMAGE)  # type: ignore[arg-type]
    torch.testing.assert_close(found, IMAGE * torch.tensor([1.0, 2.0, 0.5]).view(3, 1, 1))


def test_steps_are_done_in_their_order() -> None:
    notes: list = []
    rule = refined(steps=(partial(More, 0.1, notes), partial(More, 0.2, notes)))
    allowed = torch.ones(2, 3, 1, 1).bool()
    found = rule.refine(IMAGE, allowed, IMAGE)
    assert notes == [(0.1, (2, 3, 4, 5), (2, 3, 1, 1), (2, 3, 4, 5)), (0.2, (2, 4, 4, 5), (2, 3, 1, 1), (2, 3, 4, 5))]
    assert torch.equal(found[:, :3], IMAGE) and found[0, 3:, 0, 0].tolist() == pytest.approx([0.1, 0.2])
    assert torch.equal(refined().refine(IMAGE, allowed, IMAGE), IMAGE), "without steps nothing changes"


def test_what_is_no_tissue_is_left_out_and_not_gated() -> None:
    maps = torch.tensor([[0.5, 0.2], [0.4, 0.9], [0.3, 0.3]]).view(1, 3, 1, 2)

    def mask(tags: list[float], other: float, band: float = 0.0) -> list[int]:
        allowed = (torch.tensor([tags]) != 0)[:, :, None, None]
        more = torch.cat([maps, torch.full_like(maps[:, :1], other)], 1)
        found = refined(band=band).decide(more, allowed)
        assert found.dtype == torch.uint8
        return found[0, 0].tolist()

    assert mask([1, 1, 0], 0.1) == [0, 1] and mask([1, 1, 0], 0.6) == [255, 1]
    assert mask([1, 0, 0], 0.3) == [0, 255] and mask([0, 0, 0], 0.0) == [255, 255]
    assert mask([1, 1, 0], 0.45, band=0.1) == [255, 1], "its lead over what is no tissue counts, too"


def test_without_more_maps_it_decides_as_its_parent() -> None:
    for tags in ([1.0, 1, 0, 0], [0.0] * 4, [math.nan] * 4):
        allowed = (torch.tensor([tags]) != 0)[:, :, None, None]
        for maps in (FOUR, TIE):
            pixels = torch.tensor([maps], dtype=torch.float32)
            assert torch.equal(refined().decide(pixels, allowed), rule().decide(pixels, allowed))
