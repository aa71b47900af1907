"""Optimizers, schedules and averaged weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from eosin.core.learner import Frozen, Learner
from eosin.core.values import Batch, Clock, FitSpec
from eosin.engine.optim import Average, factor, optimizer
from oracles import schedules

SCHEDULES = ["constant", "poly", "cosine", "onecycle"]


class Net(Learner):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
        self.teacher = Frozen(nn.Conv2d(3, 2, 1))

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {"mean": self.net(batch.image).mean()}

    def predict(self, image: Tensor) -> Tensor:
        return self.net(image).softmax(1)


class Ours(Net):
    def groups(self, lr: float) -> list[dict[str, Any]]:
        head, *rest = self.net.parameters()
        return [{"params": [head], "lr": 10 * lr, "weight_decay": 0.5}, {"params": rest}, {"params": []}]


def test_poly_of_hand() -> None:
    """ARML specification, E11."""
    expected = [0.01, 0.00909533, 0.00818052, 0.00725418, 0.00631446, 0.00535887, 0.00438383, 0.00338383]
    expected += [0.00234924, 0.00125893]
    spec = FitSpec(schedule="poly")
    assert [0.01 * factor(spec, t, 10) for t in range(10)] == pytest.approx(expected, abs=5e-9)
    assert 5e-3 * factor(spec, 5860, 11720) == pytest.approx(0.00267943, abs=5e-9)
    assert 5e-3 * factor(spec, 9 * 1172, 11720) == pytest.approx(0.00062946, abs=5e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 7, 100])
def test_schedules_are_as_written_out(schedule: str, steps: int) -> None:
    found = [factor(FitSpec(schedule=schedule), t, steps) for t in range(steps)]
    assert found == pytest.approx([getattr(schedules, schedule)(t, steps) for t in range(steps)], abs=1e-12)
    assert all(0 < f <= 1 for f in found)


def test_power_and_floor_of_hand() -> None:
    """Linear decay of LPD and TPRO (power 1); OEEM's poly of 0.9 from 5e-3 down to 1e-4; cosine from 1e-3 to 1e-4."""
    linear = FitSpec(schedule="poly", power=1)
    assert [factor(linear, t, 4) for t in range(4)] == [1, 0.75, 0.5, 0.25]
    oeem = FitSpec(schedule="poly", floor=0.02)
    assert 5e-3 * factor(oeem, 0, 10_000) == 5e-3
    assert 5e-3 * factor(oeem, 5_000, 10_000) == pytest.approx(1e-4 + 4.9e-3 * 0.5**0.9)
    assert 5e-3 * factor(oeem, 9_999, 10_000) == pytest.approx(1e-4 + 4.9e-3 * 1e-4**0.9)
    cosine = FitSpec(schedule="cosine", floor=0.1)
    assert [1e-3 * factor(cosine, t, 4) for t in (0, 2)] == pytest.approx([1e-3, 5.5e-4])
    assert factor(FitSpec(schedule="constant", floor=0.5), 3, 4) == 1


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_warmup_multiplies_by_a_linear_rise(schedule: str) -> None:
    plain, warm = FitSpec(schedule=schedule), FitSpec(schedule=schedule, warmup=0.1)
    found = [factor(warm, t, 100) / factor(plain, t, 100) for t in range(100)]
    assert found == pytest.approx([min(1.0, (t + 1) / 10) for t in range(100)])
    assert factor(warm, 0, 5) == factor(plain, 0, 5), "a tenth of five steps is no step"


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_weights_decay_and_biases_do_not(kind: str) -> None:
    learner = Net()
    optim = optimizer(learner, FitSpec(optimizer=kind, lr=0.3, weight_decay=0.05, momentum=0.8))
    assert type(optim) is {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[kind]
    assert [(g["lr"], g["weight_decay"], len(g["params"])) for g in optim.param_groups] == [(0.3, 0.05, 1), (0.3, 0, 3)]
    if kind == "sgd":
        assert {g["momentum"] for g in optim.param_groups} == {0.8}
    held = {id(p) for g in optim.param_groups for p in g["params"]}
    assert held == {id(p) for p in learner.parameters()}


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_takes_the_steps_of_its_formula(nesterov: bool) -> None:
    """As PyTorch writes it: ``v = m v + g``, then a step along ``v``, or of Nesterov's kind along ``g + m v``."""
    learner, spec = Net(), FitSpec(optimizer="sgd", lr=0.5, weight_decay=0, momentum=0.8, nesterov=nesterov)
    optim, (weight, *_) = optimizer(learner, spec), learner.parameters()
    expected, speed = weight.detach().clone(), torch.zeros_like(weight)
    for k in range(3):
        for parameter in learner.parameters():
            parameter.grad = torch.full_like(parameter, 0.1 * (k + 1))
        optim.step()
        gradient = torch.full_like(weight, 0.1 * (k + 1))
        speed = 0.8 * speed + gradient
        expected -= 0.5 * (gradient + 0.8 * speed if nesterov else speed)
        torch.testing.assert_close(weight.detach(), expected)


@pytest.mark.parametrize("settings", [{}, {"optimizer": "sgd", "momentum": 0.0}])
def test_nesterov_without_a_momentum_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="nesterov = true: only with optimizer sgd"):
        FitSpec(nesterov=True, **settings)


class Faster(Net):
    """ARML, A4: a new head ten times, biases twice as fast (its own biases: twenty times)."""

    def rate(self, name: str) -> float:
        return (10 if name.startswith("net.0") else 1) * (2 if name.endswith("bias") else 1)


def test_rates_are_multiplied_by_name() -> None:
    learner = Faster()
    optim = optimizer(learner, FitSpec(lr=0.01, weight_decay=0.05))
    names = {id(p): name for name, p in learner.named_parameters()}
    found = {names[id(p)]: (g["lr"] / 0.01, g["weight_decay"]) for g in optim.param_groups for p in g["params"]}
    assert {name: (round(rate, 9), decay) for name, (rate, decay) in found.items()} == {
        "net.0.weight": (10, 0.05),
        "net.0.bias": (20, 0),
        "net.1.weight": (1, 0),
        "net.1.bias": (2, 0),
    }


def test_a_learner_may_have_groups_of_its_own() -> None:
    optim = optimizer(Ours(), FitSpec(lr=0.1, weight_decay=0.02))
    assert [(g["lr"], g["weight_decay"]) for g in optim.param_groups] == [(1.0, 0.5), (0.1, 0.02)]


def fill(learner: Net, value: float) -> None:
    with torch.no_grad():
        for tensor in learner.state_dict().values():
            tensor.fill_(value)


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_averages_are_as_written_out(decay: float) -> None:
    learner = Net()
    fill(learner, 5)
    mean = Average(learner, decay)
    values = [1.0, -2.0, 4.0, 4.0, 0.5, 3.0] * 8
    for step, expected in enumerate(schedules.average(values, decay, 5.0)):
        fill(learner, values[step])
        mean.update(learner, step)
        for name, tensor in mean.learner.state_dict().items():
            if name.endswith("num_batches_tracked"):
                assert tensor.item() == int(values[step])
            else:
                torch.testing.assert_close(tensor, torch.full_like(tensor, expected))


def test_the_average_is_apart_and_does_not_learn() -> None:
    learner = Net()
    mean = Average(learner, 0.9)
    assert not any(p.requires_grad for p in mean.learner.parameters())
    assert all(p.requires_grad for p in learner.parameters())
    assert not {id(p) for p in mean.learner.parameters()} & {id(p) for p in learner.parameters()}
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    mean.update(learner, 0)
    assert all(torch.equal(before[k], v) for k, v in learner.state_dict().items())


def test_the_average_of_what_stands_still_is_itself() -> None:
    learner, image = Net().eval(), torch.rand(1, 3, 2, 2)
    mean = Average(learner, 0.99)
    for step in range(3):
        mean.update(learner, step)
    torch.testing.assert_close(mean.learner.predict(image), learner.predict(image))
