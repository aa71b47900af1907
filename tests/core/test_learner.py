"""Learners, their optimizer groups, and networks that never learn."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from eosin.core.learner import Frozen, Learner, Normalise, highest_mean, resized
from eosin.core.values import Batch, Clock
from oracles import pooling as slow

CLOCK = Clock(0, 0, 1, 1)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


class Pupil(Learner):
    def __init__(self) -> None:
        super().__init__()
        self.net = network()
        self.teacher = Frozen(network())
        self.net[2].weight.requires_grad_(False)

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {"distance": (self.net(batch.image) - self.teacher(batch.image)).square().mean()}

    def predict(self, image: Tensor) -> Tensor:
        return self.net(image).softmax(1)


def batch() -> Batch:
    return Batch(torch.rand(2, 3, 6, 6), torch.zeros(2, 2))


def test_calling_a_learner_is_asking_for_its_losses() -> None:
    pupil, one = Pupil().eval(), batch()
    assert torch.equal(pupil(one, CLOCK)["distance"], pupil.losses(one, CLOCK)["distance"])
    assert pupil.after_step(CLOCK) is None


def test_groups_hold_every_trained_parameter_once() -> None:
    pupil = Pupil()
    decay, plain = pupil.groups(0.1)
    assert decay["lr"] == plain["lr"] == 0.1
    assert plain["weight_decay"] == 0.0 and "weight_decay" not in decay
    names = {id(p): n for n, p in pupil.named_parameters()}
    assert [names[id(p)] for p in decay["params"]] == ["net.0.weight"]
    assert [names[id(p)] for p in plain["params"]] == ["net.0.bias", "net.1.weight", "net.1.bias", "net.2.bias"]


def test_the_default_tag_score_is_the_mean_of_the_highest_tenth() -> None:
    pupil, image = Pupil().eval(), torch.rand(2, 3, 5, 4)
    expected = [[slow.highest_mean(rows, 0.1) for rows in maps] for maps in pupil.predict(image).tolist()]
    torch.testing.assert_close(pupil.tag_scores(image), torch.tensor(expected))


def test_the_highest_mean_of_hand() -> None:
    maps = torch.tensor([[[[4.0, 1.0], [0.0, -1.0]]]])
    found = [highest_mean(maps, share).item() for share in (0.01, 0.25, 0.5, 0.75, 1.0)]
    assert found == pytest.approx([4, 4, 2.5, 5 / 3, 1])


def test_normalising_is_shifting_and_scaling_per_channel() -> None:
    normalise = Normalise((0.5, 0.4, 0.3), (0.5, 0.1, 0.2))
    image = torch.tensor([1.0, 0.5, 0.3]).view(1, 3, 1, 1).expand(2, 3, 4, 5)
    expected = torch.tensor([1.0, 1.0, 0.0]).view(1, 3, 1, 1).expand(2, 3, 4, 5)
    torch.testing.assert_close(normalise(image), expected)
    assert not normalise.state_dict(), "what a class says is no part of the weights"
    assert normalise.half().mean.dtype == torch.float16


def test_resizing() -> None:
    image = torch.rand(1, 3, 8, 10)
    assert resized(image, 1.0) is image
    assert resized(image, 0.5).shape == (1, 3, 4, 5)
    assert resized(image, 1.25).shape == (1, 3, 10, 12)
    assert resized(torch.rand(1, 3, 112, 112), 4 / 7).shape == (1, 3, 64, 64)
    assert resized(image, 0.01).shape == (1, 3, 1, 1)
    torch.testing.assert_close(resized(torch.full_like(image, 0.3), 0.3), torch.full((1, 3, 2, 3), 0.3))
    stripes = ((torch.arange(64) + 1) // 2 % 2).float().expand(1, 3, 64, 64)
    assert (resized(stripes, 0.25) - 0.5).abs().max() < 0.2, "fine stripes must not alias into a flat colour"


class TestFrozen:
    def test_it_is_outside_of_parameters_and_weights(self) -> None:
        pupil = Pupil()
        assert not [n for n, _ in pupil.named_parameters() if n.startswith("teacher")]
        assert not [n for n in pupil.state_dict() if n.startswith("teacher")]
        assert not [n for n, _ in pupil.named_buffers() if n.startswith("teacher")]
        pupil.load_state_dict(copy.deepcopy(pupil.state_dict()))

    def test_it_stays_in_eval_mode(self) -> None:
        pupil = Pupil().train()
        assert pupil.net.training and not any(m.training for m in pupil.teacher.net.modules())
        before = copy.deepcopy(pupil.teacher.net.state_dict())
        pupil(batch(), CLOCK)["distance"].backward()
        after = pupil.teacher.net.state_dict()
        assert all(torch.equal(before[k], after[k]) for k in before), "batch norms must not move"

    def test_it_has_no_gradient(self) -> None:
        pupil = Pupil().requires_grad_(True)
        pupil(batch(), CLOCK)["distance"].backward()
        assert all(p.grad is not None for p in pupil.parameters())
        assert not any(p.requires_grad or p.grad is not None for p in pupil.teacher.net.parameters())
        assert not pupil.teacher(torch.rand(1, 3, 4, 4, requires_grad=True)).requires_grad

    def test_it_follows_dtype_and_device(self) -> None:
        pupil = Pupil().to(torch.float64)
        assert all(t.dtype == torch.float64 for t in pupil.teacher.net.state_dict().values() if t.is_floating_point())
        pupil.to("meta")
        assert next(pupil.teacher.net.parameters()).is_meta

    def test_it_is_not_reset_with_the_pupil(self) -> None:
        pupil = Pupil()
        pupil.apply(lambda m: nn.init.zeros_(m.weight) if isinstance(m, nn.Conv2d) else None)
        assert pupil.net[0].weight.abs().sum() == 0 and pupil.teacher.net[0].weight.abs().sum() > 0

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
    def test_copies_are_whole(self, copied) -> None:
        pupil, image = Pupil(), torch.rand(1, 3, 4, 4)
        twin = copied(pupil)
        assert torch.equal(twin.teacher(image), pupil.teacher(image))
        assert twin.teacher.net is not pupil.teacher.net
