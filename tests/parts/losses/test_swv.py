"""Peers vote: by hand, against the slow loop, and what the weights do to the gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.parts.losses.cross_entropy import PixelCrossEntropy
from eosin.parts.losses.swv import SWV
from oracles import peers as slow

THREE, INF = math.log(3), math.inf
# one row of four pixels: (0, 0), (ln 3, 0), (0, 0), (0, ln 3)
LOGITS = torch.tensor([[[[0.0, THREE, 0.0, 0.0]], [[0.0, 0.0, 0.0, THREE]]]])
MASKS = torch.tensor([[[0, 0, 1, 0]]])
VOTES = [torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 1, 1, 0]]])]  # of one mind at pixels 0 and 2


def drawn(seed: int, peers: int = 2, dtype: torch.dtype = torch.float32) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 3, 3, 4, generator=generator).to(dtype)
    masks = torch.randint(0, 4, (2, 3, 4), generator=generator)
    masks[masks == 3] = 255
    return logits, masks, [torch.randint(0, 3, (2, 3, 4), generator=generator) for _ in range(peers)]


@pytest.mark.parametrize(
    ("omega", "expected"),
    [
        (2.0, 0.9023942),  # (2 * 1.386294 + 1.673976 / 2) / 4
        (1.0, 0.7650677),
        (5.0, 1.8165664),  # (5 * 1.386294 + 1.673976 / 5) / 4
        (INF, 0.3465736),  # 1.386294 / 4
    ],
)
def test_by_hand(omega, expected):
    assert SWV(omega)(LOGITS, MASKS, VOTES).item() == pytest.approx(expected, abs=1e-6)


def test_only_labelled_pixels_are_counted():
    masks = torch.tensor([[[0, 255, 1, 0]]])  # 2 * 1.386294 + 1.386294 / 2 over three
    assert SWV(2.0)(LOGITS, masks, VOTES).item() == pytest.approx((2.5 * 1.3862944) / 3, abs=1e-6)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.sampled_from([1.0, 2.0, 3.0, 5.0, INF]))
def test_value_is_that_of_the_loop(seed, peers, omega):
    logits, masks, votes = drawn(seed, peers)
    expected = slow.swv(logits.tolist(), masks.tolist(), [vote.tolist() for vote in votes], omega)
    assert SWV(omega)(logits, masks, votes).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("omega", [1.0, 2.0, INF])
def test_gradient_by_differences(omega):
    logits, masks, votes = drawn(3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: SWV(omega)(x, masks, votes), logits.requires_grad_())


def test_omega_1_is_plain_cross_entropy_and_2_about_twice_of_it_where_all_agree():
    logits, masks, votes = drawn(5)
    plain = PixelCrossEntropy()(logits, masks)
    torch.testing.assert_close(SWV(1.0)(logits, masks, votes), plain)
    torch.testing.assert_close(SWV(2.0)(logits, masks, [votes[0], votes[0]]), 2 * plain)
    for few in (votes[:1], []):
        torch.testing.assert_close(SWV(2.0)(logits, masks, few), 2 * plain)


def test_where_peers_differ_an_infinite_omega_leaves_no_gradient():
    logits, masks, votes = drawn(7)
    logits.requires_grad_()
    SWV(INF)(logits, masks, votes).backward()
    kept = (votes[0] == votes[1]) & (masks != 255)
    assert kept.any() and (~kept).any()
    assert torch.equal(logits.grad.abs().sum(1) > 0, kept)


def test_one_of_three_peers_that_differs_is_enough():
    logits, masks, votes = drawn(9)
    same = [votes[0], votes[0]]
    three = SWV(2.0)(logits, masks, [*same, votes[1]])
    assert torch.equal(three, SWV(2.0)(logits, masks, votes)) and three < SWV(2.0)(logits, masks, same)


def test_nothing_labelled_is_zero_with_a_gradient():
    logits, masks, votes = drawn(11)
    logits.requires_grad_()
    loss = SWV(2.0)(logits, torch.full_like(masks, 255), votes)
    loss.backward()
    assert loss.item() == 0 and torch.equal(logits.grad, torch.zeros_like(logits))


def test_another_ignore_index():
    logits, masks, votes = drawn(13)
    moved = torch.where(masks == 255, 9, masks)
    assert torch.equal(SWV(2.0, ignore=9)(logits, moved, votes), SWV(2.0)(logits, masks, votes))


def test_float32_under_autocast():
    logits, masks, votes = drawn(15)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, halved = SWV(2.0)(logits, masks, votes), SWV(2.0)(logits.bfloat16(), masks, votes)
    assert loss.dtype == halved.dtype == torch.float32
    assert torch.equal(loss, SWV(2.0)(logits, masks, votes))
    assert torch.equal(halved, SWV(2.0)(logits.bfloat16().float(), masks, votes))
