"""Normalised global weighted pooling with its penalty: the values worked out by hand, slow loops, and its limits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eosin.parts.losses.soft_margin import SoftMargin
from eosin.parts.pooling.ngwp import NGWP
from oracles import pooling as slow

KINDS = [(focal, background) for focal in (True, False) for background in (True, False)]


def halves() -> Tensor:
    """Two classes that each have one half of 2 x 2 patches, and two that have nothing."""
    maps = torch.zeros(1, 4, 2, 2)
    maps[0, 0, 0] = maps[0, 1, 1] = 2
    return maps


def close(found: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found, torch.tensor([expected]), rtol=0, atol=2e-6)


def test_the_values_worked_out_by_hand() -> None:
    close(NGWP(focal=False)(halves()), [1.087939, 1.087939, 0, 0])
    close(NGWP()(halves()) - NGWP(focal=False)(halves()), [-0.187074, -0.187074, -1.654841, -1.654841])
    close(NGWP()(halves()), [0.900865, 0.900865, -1.654841, -1.654841])
    close(NGWP(background=True)(halves()), [0.640419, 0.640419, -1.930943, -1.930943])
    tags = torch.tensor([[1.0, 1, 0, 0]])
    assert SoftMargin()(NGWP()(halves()), tags).item() == pytest.approx(0.257900, abs=2e-6)
    assert SoftMargin()(NGWP(background=True)(halves()), tags).item() == pytest.approx(0.279383, abs=2e-6)


def test_an_empty_map_and_a_saturated_one() -> None:
    empty, tags = torch.zeros(1, 4, 14, 14), torch.tensor([[1.0, 0, 0, 0]])
    close(NGWP()(empty), [-0.568297] * 4)
    assert SoftMargin()(NGWP()(empty), tags).item() == pytest.approx(0.590911, abs=2e-6)
    one = torch.full((1, 4, 14, 14), -1 / math.sqrt(3))
    one[0, 0] = math.sqrt(3)
    close(NGWP()(one), [1.717657, *[-2.468707] * 3])
    assert SoftMargin()(NGWP()(one), tags).item() == pytest.approx(0.102243, abs=2e-6)


@pytest.mark.parametrize(("focal", "background"), KINDS)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 5), width=st.integers(1, 5))
def test_maps_are_pooled_as_by_the_loop(focal: bool, background: bool, seed: int, height: int, width: int) -> None:
    maps = 3 * torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    expected = torch.tensor([slow.ngwp(image, focal, background) for image in maps.tolist()])
    torch.testing.assert_close(NGWP(focal, background)(maps), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("focal", "background"), KINDS)
def test_the_weights_have_gradients_too(focal: bool, background: bool) -> None:
    """Classes compete: a higher map of one class lowers the score of another."""
    maps = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    NGWP(focal, background)(maps)[0, 0].backward()
    assert maps.grad is not None and maps.grad[0, 1].abs().sum() > 1e-3


def test_float32_whatever_comes_in_and_nothing_to_train() -> None:
    maps = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = NGWP()(maps)
    assert pooled.dtype == torch.float32 and torch.equal(pooled, NGWP()(maps.float()))
    assert not NGWP().state_dict()
