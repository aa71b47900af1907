"""Reactivation and progressive dropout attention: what they multiply features by."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from eosin.core.values import Clock
from eosin.parts.attention.dropout_attention import DropoutAttention
from eosin.parts.attention.reactivation import ReactivationGate
from oracles import attention as slow


def gate(weight: Tensor | float) -> ReactivationGate:
    module = ReactivationGate()
    with torch.no_grad():
        module.conv.weight.copy_(torch.as_tensor(weight).expand(1, 1, 7, 7))
    return module


def at(epoch: int) -> Clock:
    return Clock(epoch, epoch, 20, 20)


class TestReactivation:
    def test_without_weights_nothing_is_changed(self) -> None:
        """ARML spec, E3: the printed gate is 1 there, the released one 0.8."""
        x = torch.randn(2, 5, 6, 7)
        assert torch.equal(gate(0.0)(x), x)

    def test_it_has_the_49_weights_of_one_kernel(self) -> None:
        assert sum(p.numel() for p in ReactivationGate().parameters()) == 49

    def test_strong_features_are_damped(self) -> None:
        """By hand: a kernel of its centre alone, one pixel of mean 2: exp(-2)."""
        centre = torch.zeros(7, 7)
        centre[3, 3] = 1
        x = torch.zeros(1, 2, 3, 3)
        x[0, :, 1, 1] = torch.tensor([1.0, 3.0])
        assert gate(centre)(x)[0, :, 1, 1].tolist() == pytest.approx([math.exp(-2), 3 * math.exp(-2)])

    @pytest.mark.parametrize("size", [(4, 6), (1, 9), (1, 1)])
    @torch.no_grad()
    def test_it_is_that_of_the_loop(self, size) -> None:
        torch.manual_seed(0)
        module, x = gate(torch.randn(7, 7)), torch.randn(2, 3, *size)
        for found, image in zip(module(x), x.tolist(), strict=True):
            expected = slow.reactivated(image, module.conv.weight[0, 0].tolist())
            torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(("weight", "factor"), [(1e3, math.exp(-5)), (-1e3, math.exp(5))])
    def test_it_is_kept_within_bounds(self, weight: float, factor: float) -> None:
        torch.testing.assert_close(gate(weight)(torch.ones(1, 2, 3, 3)), torch.full((1, 2, 3, 3), factor))

    def test_it_learns(self) -> None:
        module = ReactivationGate()
        module(torch.rand(2, 4, 8, 8)).square().sum().backward()
        assert (module.conv.weight.grad != 0).all()

    def test_in_half_precision_it_keeps_the_type_of_the_features(self) -> None:
        torch.manual_seed(0)
        module, x = ReactivationGate(), torch.rand(2, 16, 8, 8)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = module(x.bfloat16())
        assert out.dtype == torch.bfloat16 and (out - module(x)).abs().max() < 0.02


class TestDropoutAttention:
    def test_by_hand(self) -> None:
        """Bound 0.64: of 4 2 1 -3 the 4 is dropped, of a constant 1 all is; halves of what is left."""
        module = DropoutAttention(begin=0, decay=0.8, least=0.1)
        maps = torch.tensor([[[[4.0, 2.0], [1.0, -3.0]], [[1.0, 1.0], [1.0, 1.0]]]])
        out = module(torch.full((1, 1, 2, 2), 10.0), maps, at(2))
        assert out[0, 0].flatten().tolist() == pytest.approx([0.0, 10.0, 5.0, 0.0])

    @pytest.mark.parametrize("epoch", [3, 9, 19])
    def test_it_is_that_of_the_loop(self, epoch: int) -> None:
        torch.manual_seed(0)
        module = DropoutAttention()
        features, maps = torch.rand(2, 3, 4, 5), torch.randn(2, 4, 4, 5)
        out = module(features, maps, at(epoch))
        for found, image, shown in zip(out, features.tolist(), maps.tolist(), strict=True):
            torch.testing.assert_close(found, torch.tensor(slow.dropped(image, shown, 0.98**epoch)))

    def test_the_bound_falls_to_its_least_value(self) -> None:
        bounds = [DropoutAttention().bound(epoch) for epoch in (0, 1, 3, 21, 22, 50)]
        assert bounds == pytest.approx([1, 0.98, 0.98**3, 0.98**21, 0.65, 0.65]) and bounds[3] > 0.65

    def test_it_waits_for_the_first_epochs(self) -> None:
        features, maps = torch.rand(1, 2, 4, 4), torch.randn(1, 3, 4, 4)
        module = DropoutAttention(begin=3)
        assert all(torch.equal(module(features, maps, at(epoch)), features) for epoch in (0, 1, 2))
        assert not torch.equal(module(features, maps, at(3)), features)

    def test_where_no_class_is_seen_nothing_is_left(self) -> None:
        assert not DropoutAttention(begin=0)(torch.rand(1, 2, 3, 3), -torch.ones(1, 2, 3, 3), at(0)).any()

    def test_maps_learn_by_it_too(self) -> None:
        maps = torch.randn(1, 2, 3, 3, requires_grad=True)
        DropoutAttention()(torch.ones(1, 1, 3, 3), maps, at(5)).sum().backward()
        assert maps.grad.any()

    def test_it_has_nothing_to_store_and_keeps_the_type_of_the_features(self) -> None:
        module = DropoutAttention()
        assert isinstance(module, nn.Module) and not module.state_dict()
        assert module(torch.rand(1, 2, 3, 3).bfloat16(), torch.randn(1, 2, 3, 3), at(5)).dtype == torch.bfloat16
