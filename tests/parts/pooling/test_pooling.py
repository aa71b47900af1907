"""GAP and the mean of the highest pixels, against slow loops and at their limits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from eosin.parts.pooling.gap import GAP
from eosin.parts.pooling.highest import HighestMean
from oracles import pooling as slow

POOLINGS = [
    (GAP(), slow.gap),
    (HighestMean(0.1), lambda rows: slow.highest_mean(rows, 0.1)),
    (HighestMean(0.5), lambda rows: slow.highest_mean(rows, 0.5)),
]


@pytest.mark.parametrize(("pooling", "oracle"), POOLINGS)
@settings(deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 6), width=st.integers(1, 6))
def test_each_map_is_pooled_as_by_the_loop(pooling, oracle, seed, height, width):
    maps = 3 * torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    found = pooling(maps)
    expected = torch.tensor([[oracle(rows) for rows in image] for image in maps.tolist()])
    assert found.shape == (2, 3)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("pooling", "oracle"), POOLINGS)
@settings(deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.floats(-50, 50))
def test_between_mean_and_maximum_and_moves_with_the_map(pooling, oracle, seed, shift):
    maps = torch.randn(1, 2, 4, 5, generator=torch.Generator().manual_seed(seed))
    pooled = pooling(maps)
    assert (pooled >= maps.mean((2, 3)) - 1e-5).all()
    assert (pooled <= maps.amax((2, 3)) + 1e-5).all()
    torch.testing.assert_close(pooling(maps + shift), pooled + shift, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("pooling", "oracle"), POOLINGS)
def test_gradients_add_up_to_one(pooling, oracle):
    maps = torch.randn(2, 3, 5, 4, requires_grad=True)
    pooling(maps).sum().backward()
    torch.testing.assert_close(maps.grad.sum((2, 3)), torch.ones(2, 3))


@pytest.mark.parametrize(("pooling", "oracle"), POOLINGS)
def test_float32_whatever_comes_in(pooling, oracle):
    maps = torch.randn(2, 3, 9, 9).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = pooling(maps)
    assert pooled.dtype == torch.float32
    assert torch.equal(pooled, pooling(maps.float()))


def test_limits():
    maps = torch.randn(2, 3, 6, 6)
    mean, maximum = maps.mean((2, 3)), maps.amax((2, 3))
    torch.testing.assert_close(HighestMean(1.0)(maps), mean)
    torch.testing.assert_close(HighestMean(1e-6)(maps), maximum)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, float("nan")])
def test_a_share_outside_its_range_is_refused(share):
    with pytest.raises(ValueError, match="share"):
        HighestMean(share)


def test_poolings_have_nothing_to_train_or_save():
    for pooling, _ in POOLINGS:
        assert isinstance(pooling, nn.Module)
        assert not list(pooling.parameters())
        assert not pooling.state_dict()
