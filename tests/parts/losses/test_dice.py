"""Soft Dice: by hand, against the slow loop, ignored pixels without a trace."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.parts.losses.dice import SoftDice, dice
from oracles import noisy_masks as slow

HALF = torch.tensor([[0.8, 0.6], [0.4, 0.2]])


def drawn(seed: int, images: int = 2, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(images, classes, 3, 2, generator=generator)
    masks = torch.randint(0, classes + 1, (images, 3, 2), generator=generator)
    masks[masks == classes] = 255
    return logits, masks


@pytest.mark.parametrize(
    ("outputs", "targets", "expected"),
    [
        # the values of the MIL methods' specification
        (HALF, torch.ones(2, 2), 2 / 7),
        (HALF, torch.zeros(2, 2), 2 / 3),
        (HALF, torch.tensor([[0.9, 0.5], [0.5, 0.1]]), 0.304),
        (torch.tensor([[0.9, 0.5], [0.5, 0.1]]), torch.tensor([[0.9, 0.5], [0.5, 0.1]]), 0.272),
        (torch.full((2, 2), 0.5), torch.ones(2, 2), 2 / 7),
        (torch.full((256, 256), 0.5), torch.ones(256, 256), 0.333330),
        (torch.zeros(2, 2), torch.zeros(2, 2), 0.0),
        (torch.ones(2, 2), torch.ones(2, 2), 0.0),
    ],
)
def test_two_maps_by_hand(outputs, targets, expected):
    assert dice(outputs, targets).item() == pytest.approx(expected, abs=1e-6)
    stacked = dice(torch.stack([outputs, targets])[None], torch.stack([targets, targets])[None])
    assert stacked.shape == (1, 2) and stacked[0, 0].item() == pytest.approx(expected, abs=1e-6)


def test_masks_by_hand():
    # p of class 0: .75, .25, .75; labels 0, 1, 1
    three = math.log(3)
    logits = torch.tensor([[[[three, 0.0, three]], [[0.0, three, 0.0]]]])
    # class 0: o = 1.75, t = 1, ot = .75; class 1: o = 1.25, t = 2, ot = 1
    expected = ((1 - 2.5 / 3.75) + (1 - 3 / 4.25)) / 2
    assert SoftDice()(logits, torch.tensor([[[0, 1, 1]]])).item() == pytest.approx(expected, abs=1e-6)
    # without the last pixel both classes have o = 1, t = 1, ot = .75
    assert SoftDice()(logits, torch.tensor([[[0, 1, 255]]])).item() == pytest.approx(1 - 2.5 / 3, abs=1e-6)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(2, 5))
def test_value_is_that_of_the_loop(seed, images, classes):
    logits, masks = drawn(seed, images, classes)
    expected = slow.soft_dice(logits.tolist(), masks.tolist())
    assert SoftDice()(logits, masks).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_gradient_by_differences():
    logits, masks = drawn(2)
    logits.requires_grad_()
    SoftDice()(logits, masks).backward()
    for place in [(0, 0, 0, 0), (0, 2, 1, 1), (1, 1, 2, 0)]:
        sides = []
        for step in (1e-4, -1e-4):
            moved = logits.detach().double()
            moved[place] += step
            sides.append(slow.soft_dice(moved.tolist(), masks.tolist()))
        assert logits.grad[place].item() == pytest.approx((sides[0] - sides[1]) / 2e-4, abs=1e-5)


def test_ignored_pixels_have_no_gradient_and_no_share():
    logits, masks = drawn(4)
    masks[0, 0, 0], masks[1, 0, 0] = 255, 0
    logits.requires_grad_()
    loss = SoftDice()(logits, masks)
    loss.backward()
    left = (masks == 255)[:, None].expand_as(logits)
    assert left.any() and (logits.grad[left] == 0).all() and (logits.grad[~left] != 0).any()
    moved = torch.where(left, 30.0, logits.detach())
    torch.testing.assert_close(SoftDice()(moved, masks), loss.detach())


def test_an_image_without_labels_has_no_say():
    logits, masks = drawn(6)
    masks[0, 0, 0], masks[1] = 0, 255
    torch.testing.assert_close(SoftDice()(logits, masks), SoftDice()(logits[:1], masks[:1]))


def test_nothing_labelled_is_zero_with_a_gradient():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = SoftDice()(logits, torch.full((2, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0 and torch.equal(logits.grad, torch.zeros_like(logits))


def test_another_ignore_index():
    logits, masks = drawn(8)
    assert torch.equal(SoftDice(ignore=9)(logits, torch.where(masks == 255, 9, masks)), SoftDice()(logits, masks))


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(RuntimeError, match="num_classes"):
        SoftDice()(torch.randn(1, 2, 1, 1), torch.tensor([[[2]]]))


def test_float32_under_autocast():
    logits, masks = drawn(10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = SoftDice()(logits, masks)
        halved = SoftDice()(logits.bfloat16(), masks)
        maps = dice(HALF.bfloat16(), torch.ones(2, 2))
    assert loss.dtype == halved.dtype == maps.dtype == torch.float32
    assert torch.equal(loss, SoftDice()(logits, masks))
    assert torch.equal(halved, SoftDice()(logits.bfloat16().float(), masks))
