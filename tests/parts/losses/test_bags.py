"""Losses of bags: the values of the specification, the slow loops, and no trace of unknown tags."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eosin.parts.losses.bag_cross_entropy import BagCrossEntropy
from eosin.parts.losses.dice import BagDice
from eosin.parts.losses.mining import Mining
from eosin.parts.pooling.generalised import GeneralisedMean
from oracles import bags as slow

NAN = float("nan")
P = torch.tensor([[0.8, 0.6], [0.4, 0.2]])  # the maps of the specification: a student's,
T = torch.tensor([[0.9, 0.5], [0.5, 0.1]])  # and a teacher's
ONE, NONE = torch.ones(1, 1), torch.zeros(1, 1)


def one(a_map: Tensor) -> Tensor:
    """A map as a bag: ``[1, 1, 1, H, W]``."""
    return a_map[None, None, None]


def drawn(seed: int, sides: int = 3, classes: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Maps, the teacher's maps and tags of three images, some unknown."""
    generator = torch.Generator().manual_seed(seed)
    maps, taught = (torch.rand(3, sides, classes, 3, 4, generator=generator) * 0.98 + 0.01 for _ in range(2))
    tags = torch.randint(0, 3, (3, classes), generator=generator).float()
    tags[0] = 1
    tags[tags == 2] = NAN
    return maps, taught, tags


class TestBagDice:
    @pytest.mark.parametrize(
        ("a_map", "tag", "target", "expected"),
        [
            (P, ONE, None, 0.285714),
            (P, NONE, None, 0.285714),  # inverted
            (P, ONE, T, 0.304000),
            (T, ONE, T, 0.272000),
            (torch.full((2, 2), 0.5), ONE, T, 0.400000),
            (torch.full((2, 2), 0.5), NONE, T, 0.285714),  # ones, whatever the teacher says
            (torch.full((256, 256), 0.5), ONE, None, 0.333330),
        ],
    )
    def test_one_map_by_hand(self, a_map, tag, target, expected):
        found = BagDice()(one(a_map), tag, None if target is None else one(target))
        assert found.item() == pytest.approx(expected, abs=1e-6)

    def test_stage_one_of_two_images_by_hand(self):
        maps, tags = torch.full((2, 4, 1, 2, 2), 0.5), torch.tensor([[1.0], [0.0]])
        assert 2 * BagDice()(maps, tags).item() == pytest.approx(2.285714, abs=1e-5)  # printed as a sum over images

    def test_a_clean_negative_costs_nothing(self):
        assert BagDice()(torch.zeros(1, 4, 1, 8, 8), NONE).item() == 0

    @settings(deadline=None, max_examples=40)
    @given(st.integers(0, 10**6), st.sampled_from(["none", "all", "fused"]))
    def test_the_value_is_that_of_the_loop(self, seed, kind):
        maps, taught, tags = drawn(seed)
        targets = {"none": None, "all": taught, "fused": taught[:, -1:]}[kind]
        expected = slow.bag_dice(maps.tolist(), tags.tolist(), None if targets is None else targets.tolist())
        assert BagDice()(maps, tags, targets).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)

    def test_the_teacher_has_no_gradient(self):
        maps, taught, tags = drawn(1)
        maps.requires_grad_(), taught.requires_grad_()
        BagDice()(maps, tags, taught).backward()
        assert taught.grad is None and maps.grad.abs().sum() > 0


class TestBagCrossEntropy:
    loss = BagCrossEntropy(partial(GeneralisedMean, 4))

    def test_by_hand(self):
        bag = one(torch.tensor([[0.1, 0.2], [0.9, 0.4]]))
        assert GeneralisedMean(4)(bag).item() == pytest.approx(0.642915, abs=1e-6)
        assert self.loss(bag, ONE).item() == pytest.approx(0.441742, abs=1e-5)
        assert self.loss(bag, NONE).item() == pytest.approx(1.029782, abs=1e-5)

    @settings(deadline=None, max_examples=40)
    @given(st.integers(0, 10**6), st.sampled_from([1.0, 2.5, 4.0]))
    def test_the_value_is_that_of_the_loop(self, seed, r):
        maps, _, tags = drawn(seed)
        expected = slow.bag_cross_entropy(maps.tolist(), tags.tolist(), r)
        assert BagCrossEntropy(partial(GeneralisedMean, r))(maps, tags).item() == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize("value", [0.0, 1e-30, 1.0])
    @pytest.mark.parametrize("tag", [0.0, 1.0])
    def test_maps_at_the_ends_have_a_finite_loss_and_gradient(self, value, tag):
        bag = torch.full((1, 1, 1, 4, 4), value, requires_grad=True)
        loss = self.loss(bag, torch.tensor([[tag]]))
        loss.backward()
        assert loss.isfinite() and bag.grad.isfinite().all()


class TestGeneralisedMean:
    def test_one_is_the_mean_and_many_nearly_the_maximum(self):
        maps = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05
        torch.testing.assert_close(GeneralisedMean(1)(maps), maps.mean((2, 3)))
        torch.testing.assert_close(GeneralisedMean(200)(maps), maps.amax((2, 3)), rtol=0.03, atol=0)

    def test_float32_under_autocast(self):
        maps = torch.rand(1, 1, 4, 4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = GeneralisedMean()(maps)
        assert found.dtype == torch.float32 and torch.equal(found, GeneralisedMean()(maps))


class TestMining:
    @pytest.mark.parametrize(("target", "expected"), [("hard", 0.396170), ("soft", 0.507043), ("printed", 0.256434)])
    def test_the_values_of_the_specification(self, target, expected):
        found = Mining(target)(P[None, None], T[None, None], ONE)
        assert found.item() == pytest.approx(expected, abs=1e-6)

    def test_weights_are_the_normalised_probabilities_of_the_target(self):
        q = torch.tensor([[[[0.9, 0.5, 0.1]]]])  # given to the targets 1, 1, 0 by p = .9, .5, .9
        p, t = torch.tensor([[[[0.9, 0.5, 0.9]]]]), torch.tensor([[[[0.7, 0.6, 0.2]]]])
        weights = q / q.sum()
        torch.testing.assert_close(weights.flatten(), torch.tensor([0.6, 1 / 3, 1 / 15]))
        assert Mining()(p, t, ONE).item() == pytest.approx(0.447771, abs=1e-6)

    def test_a_map_of_one_class_weighs_all_pixels_alike(self):
        p = P[None, None]
        assert Mining()(p, torch.ones_like(p), ONE).item() == pytest.approx(-P.log().mean().item(), abs=1e-6)
        assert Mining()(p, torch.ones_like(p), NONE).item() == pytest.approx(-(1 - P).log().mean().item(), abs=1e-6)

    def test_without_weights_all_pixels_weigh_alike(self):
        ce = torch.tensor([0.8, 0.6, 0.4, 0.8]).log().neg()
        assert Mining(weighted=False)(P[None, None], T[None, None], ONE).item() == pytest.approx(ce.mean().item())

    def test_the_printed_loss_says_nothing_of_negatives_and_never_pulls_down(self):
        student = P[None, None].clone().requires_grad_()
        assert Mining("printed")(student, T[None, None], NONE).item() == 0
        Mining("printed")(student, T[None, None], ONE).backward()
        assert (student.grad < 0).all()

    def test_the_weights_have_no_gradient(self):
        student = P[None, None].clone().requires_grad_()
        Mining()(student, T[None, None], ONE).backward()
        weights = torch.tensor([0.8, 0.6, 0.4, 0.8]) / 2.6
        expected = weights / torch.tensor([-0.8, -0.6, -0.4, 0.8])  # of -log p, and of -log(1 - p) at the last
        torch.testing.assert_close(student.grad.flatten(), expected)

    @settings(deadline=None, max_examples=40)
    @given(st.integers(0, 10**6), st.sampled_from(["hard", "soft", "printed"]), st.booleans())
    def test_the_value_is_that_of_the_loop(self, seed, target, weighted):
        maps, taught, tags = drawn(seed, sides=1)
        expected = slow.mining(maps[:, 0].tolist(), taught[:, 0].tolist(), tags.tolist(), target, weighted)
        found = Mining(target, weighted)(maps[:, 0], taught[:, 0], tags)
        assert found.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)

    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_a_sure_student_has_a_finite_loss(self, value):
        assert Mining()(torch.full((1, 1, 2, 2), value), T[None, None], ONE).isfinite()


LOSSES = {
    "dice": lambda maps, taught, tags: BagDice()(maps, tags),
    "distillation": lambda maps, taught, tags: BagDice()(maps, tags, taught),
    "cross-entropy": lambda maps, taught, tags: TestBagCrossEntropy.loss(maps, tags),
    "mining": lambda maps, taught, tags: Mining()(maps[:, -1], taught[:, -1], tags),
}


@pytest.mark.parametrize("name", LOSSES)
def test_an_unknown_tag_leaves_no_trace(name):
    loss = LOSSES[name]
    maps, taught, tags = drawn(3)
    tags[:] = torch.tensor([[1.0, 0.0], [NAN, 1.0], [NAN, NAN]])
    maps.requires_grad_()
    value = loss(maps, taught, tags)
    value.backward()
    assert (maps.grad[1, :, 0] == 0).all() and (maps.grad[2] == 0).all() and maps.grad.isfinite().all()
    single = [loss(maps[b : b + 1, :, k : k + 1], taught[b : b + 1, :, k : k + 1], tags[b : b + 1, k : k + 1])
              for b, k in ((0, 0), (0, 1), (1, 1))]  # fmt: skip
    assert value.item() == pytest.approx(torch.stack(single).mean().item(), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_no_known_tag_is_zero_with_a_gradient(name):
    maps, taught, tags = drawn(4)
    maps.requires_grad_()
    loss = LOSSES[name](maps, taught, torch.full_like(tags, NAN))
    loss.backward()
    assert loss.item() == 0 and torch.equal(maps.grad, torch.zeros_like(maps))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_float32_under_autocast(name):
    maps, taught, tags = drawn(5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain, halved = LOSSES[name](maps, taught, tags), LOSSES[name](maps.bfloat16(), taught.bfloat16(), tags)
    assert plain.dtype == halved.dtype == torch.float32
    assert torch.equal(plain, LOSSES[name](maps, taught, tags))
    assert math.isclose(halved.item(), plain.item(), rel_tol=0.02)
