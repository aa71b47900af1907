"""Soft margin: the published numbers, the slow loop, and unknown tags that leave no trace."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from eosin.parts.losses.soft_margin import BOUND, SoftMargin, balancing
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


@st.composite
def weighted(draw):
    logits, tags = draw(tagged())
    classes = len(logits[0])
    return logits, tags, tuple(draw(st.lists(st.floats(0.125, 10, width=32), min_size=classes, max_size=classes)))


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


class TestPositiveWeights:
    def test_values_by_hand(self):
        # s(2) = 0.880797, s(-1) = 0.268941: 3 * -log 0.880797 = 0.380784, 0.5 * -log 0.268941 = 0.656631,
        # -log(1 - 0.880797) = 2.126928, -log(1 - 0.268941) = 0.313262
        logits, weights = torch.tensor([[2.0, -1.0], [2.0, -1.0]]), (3.0, 0.5)
        loss = SoftMargin(weights)
        assert loss(logits[:1], torch.tensor([[1.0, 1.0]])).item() == pytest.approx((0.380784 + 0.656631) / 2, abs=1e-6)
        assert loss(logits[:1], torch.tensor([[0.0, 0.0]])).item() == pytest.approx((2.126928 + 0.313262) / 2, abs=1e-6)
        tags = torch.tensor([[1.0, NAN], [0.0, 1.0]])
        assert loss(logits, tags).item() == pytest.approx((0.380784 + 2.126928 + 0.656631) / 3, abs=1e-6)

    @settings(deadline=None)
    @given(weighted())
    def test_value_and_gradient_are_those_of_the_loop(self, case):
        logits, tags, weights = case
        variable = torch.tensor(logits, requires_grad=True)
        loss = SoftMargin(weights)(variable, torch.tensor(tags))
        loss.backward()
        assert loss.item() == pytest.approx(slow.soft_margin(logits, tags, weights), rel=1e-4, abs=1e-4)
        expected = torch.tensor(slow.soft_margin_gradient(logits, tags, weights))
        torch.testing.assert_close(variable.grad, expected, rtol=1e-4, atol=1e-5)
        assert (variable.grad[torch.tensor(tags).isnan()] == 0).all()

    def test_they_are_torchs_own_when_all_is_known(self):
        logits, tags = torch.randn(7, 4), (torch.rand(7, 4) > 0.5).float()
        weights = (0.1, 1.0, 2.5, 10.0)
        own = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(weights))
        torch.testing.assert_close(SoftMargin(weights)(logits, tags), own(logits, tags))
        assert not torch.allclose(SoftMargin(weights)(logits, tags), SoftMargin()(logits, tags))

    def test_weights_of_one_are_no_weights(self):
        logits, tags = torch.randn(7, 3), torch.tensor([0.0, 1.0, NAN])[torch.randint(0, 3, (7, 3))]
        assert torch.equal(SoftMargin((1.0, 1.0, 1.0))(logits, tags), SoftMargin()(logits, tags))

    def test_nothing_known_is_zero_with_a_gradient(self):
        logits = torch.randn(3, 2, requires_grad=True)
        loss = SoftMargin((10.0, 0.1))(logits, torch.full((3, 2), NAN))
        loss.backward()
        assert loss.item() == 0
        assert torch.equal(logits.grad, torch.zeros(3, 2))

    def test_they_are_float32_under_autocast_and_no_part_of_the_weights_that_are_kept(self):
        logits, tags = torch.randn(6, 4), (torch.rand(6, 4) > 0.5).float()
        loss = SoftMargin((0.1, 0.5, 2.0, 10.0))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = loss(logits, tags)
        assert found.dtype == torch.float32 and torch.equal(found, loss(logits, tags))
        assert not loss.state_dict()
        assert loss.to("meta").positive.device.type == "meta", "they follow the learner to its device"

    @pytest.mark.parametrize("weights", [(2.0,), (2.0, 2.0)])
    def test_another_number_of_weights_than_classes_is_refused(self, weights):
        with pytest.raises(ValueError, match=f"{len(weights)} positive weights for 3 classes"):
            SoftMargin(weights)(torch.zeros(1, 3), torch.zeros(1, 3))


class TestBalancing:
    def test_present_and_absent_count_alike(self):
        counts = [(20, 60), (60, 20), (40, 40), (10, 1)]
        weights = balancing(counts)
        assert weights == (3.0, 1 / 3, 1.0, 0.1)
        assert [present * w for (present, _), w in zip(counts, weights, strict=True)] == pytest.approx([60, 20, 40, 1])

    def test_they_are_bounded(self):
        assert balancing([(1, 5000), (5000, 1), (1, 11), (11, 1)]) == (BOUND, 1 / BOUND, BOUND, 1 / BOUND)
        assert balancing([(1, 10), (1, 9)]) == (10.0, 9.0)

    def test_a_class_that_is_never_or_always_there_or_never_known_weighs_one(self):
        assert balancing([(0, 5000), (5000, 0), (0, 0)]) == (1.0, 1.0, 1.0)

    @given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), max_size=8))
    def test_every_weight_is_positive_and_within_its_bounds(self, counts):
        weights = balancing(counts)
        assert len(weights) == len(counts) and all(1 / BOUND <= w <= BOUND for w in weights)
        mirrored = balancing([(absent, present) for present, absent in counts])
        assert [w * m for w, m in zip(weights, mirrored, strict=True)] == pytest.approx([1.0] * len(counts))
