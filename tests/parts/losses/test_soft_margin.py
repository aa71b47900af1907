"""Soft margin: the published numbers, the slow loop, and unknown tags that leave no trace."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from eosin.parts.losses.soft_margin import SoftMargin
from oracles import losses as slow

NAN = float("nan")


@st.composite
def tagged(draw):
    images, classes = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    shape = {"min_size": classes, "max_size": classes}
    logits = draw(st.lists(st.lists(st.floats(-12, 12, width=32), **shape), min_size=images, max_size=images))
    tag = st.sampled_from([0.0, 1.0, NAN])
    tags = draw(st.lists(st.lists(tag, **shape), min_size=images, max_size=images))
    return logits, tags


@pytest.mark.parametrize(("logits", "expected"), [([0.0, 0.0], 0.6931472), ([2.0, -1.0], 0.2200949)])
def test_published_values(logits, expected):
    loss = SoftMargin()(torch.tensor([logits]), torch.tensor([[1.0, 0.0]]))
    assert loss.item() == pytest.approx(expected, abs=1e-7)


@settings(deadline=None)
@given(tagged())
def test_value_and_gradient_are_those_of_the_loop(case):
    logits, tags = case
    variable = torch.tensor(logits, requires_grad=True)
    loss = SoftMargin()(variable, torch.tensor(tags))
    loss.backward()
    assert loss.item() == pytest.approx(slow.soft_margin(logits, tags), rel=1e-4, abs=1e-5)
    expected = torch.tensor(slow.soft_margin_gradient(logits, tags))
    torch.testing.assert_close(variable.grad, expected, rtol=1e-4, atol=1e-6)
    assert (variable.grad[torch.tensor(tags).isnan()] == 0).all()


def test_is_torchs_own_when_all_is_known():
    logits, tags = torch.randn(7, 4), (torch.rand(7, 4) > 0.5).float()
    torch.testing.assert_close(SoftMargin()(logits, tags), functional.multilabel_soft_margin_loss(logits, tags))


def test_an_unknown_tag_is_as_if_it_were_not_there():
    logits = torch.tensor([[1.0, -2.0, 30.0]], requires_grad=True)
    loss = SoftMargin()(logits, torch.tensor([[1.0, 1.0, NAN]]))
    loss.backward()
    fewer = torch.tensor([[1.0, -2.0]], requires_grad=True)
    expected = SoftMargin()(fewer, torch.ones(1, 2))
    expected.backward()
    assert loss.item() == expected.item()
    assert torch.equal(logits.grad[:, :2], fewer.grad)
    assert logits.grad[0, 2] == 0


def test_nothing_known_is_zero_with_a_gradient():
    logits = torch.randn(3, 2, requires_grad=True)
    loss = SoftMargin()(logits, torch.full((3, 2), NAN))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(3, 2))


def test_extreme_logits_stay_finite():
    loss = SoftMargin()(torch.tensor([[1e4, -1e4]]), torch.tensor([[0.0, 1.0]]))
    assert loss.item() == 1e4


def test_float32_under_autocast():
    logits, tags = torch.randn(6, 4), (torch.rand(6, 4) > 0.5).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = SoftMargin()(logits, tags)
        halved = SoftMargin()(logits.bfloat16(), tags)
    assert loss.dtype == halved.dtype == torch.float32
    assert torch.equal(loss, SoftMargin()(logits, tags))
    assert torch.equal(halved, SoftMargin()(logits.bfloat16().float(), tags))
    assert not math.isnan(halved.item())
