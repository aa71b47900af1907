"""Optimizers and learning-rate schedules from settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import nn

from eosin.core.learner import Learner
from eosin.core.values import FitSpec


def optimizer(learner: Learner, spec: FitSpec) -> torch.optim.Optimizer:
    """The optimizer over the learner's own groups; a group may carry its own rate and decay.

    It runs as one kernel where there is one (CPU, CUDA): half the time of the plain form for a ResNet-18 on a CPU.
    """
    groups = [g for g in learner.groups(spec.lr) if g["params"]]
    fused = all(p.device.type in ("cpu", "cuda") for group in groups for p in group["params"])
    if spec.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=spec.lr, weight_decay=spec.weight_decay, fused=fused)
    return torch.optim.SGD(
        groups, spec.lr, spec.momentum, weight_decay=spec.weight_decay, nesterov=spec.nesterov, fused=fused
    )


def factor(spec: FitSpec, step: int, steps: int) -> float:
    """By what the base rates are multiplied at ``step`` of ``steps``.

    ``poly`` is ``(1 - t/T)**power`` (ARML, section A4, with 0.9); ``cosine`` falls to 0; ``onecycle`` rises from 1/25
    to 1 over the first 30 % and falls to 0. All fall to ``floor`` instead of 0 where it is set. ``warmup`` multiplies
    all of them by a linear rise.
    """
    warm = min(1.0, (step + 1) / (spec.warmup * steps)) if spec.warmup * steps >= 1 else 1.0
    return warm * (spec.floor + (1 - spec.floor) * _curve(spec, step / max(1, steps)))


def _curve(spec: FitSpec, t: float) -> float:
    """The schedule at the share ``t`` of the steps, between 0 and 1."""
    if spec.schedule == "poly":
        return float((1 - t) ** spec.power)
    if spec.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * t))
    if spec.schedule == "onecycle":
        if t < 0.3:
            return 1 / 25 + (1 - 1 / 25) * 0.5 * (1 - math.cos(math.pi * t / 0.3))
        return 0.5 * (1 + math.cos(math.pi * (t - 0.3) / 0.7))
    return 1.0


class Average:
    """Exponential moving average of a learner's weights and buffers.

    Args:
        learner: whose weights are averaged.
        decay: weight of the past; at step ``t`` it is at most ``(1 + t) / (10 + t)``, so that the start is forgotten.
    """

    def __init__(self, learner: Learner, decay: float) -> None:
        self.learner = deepcopy(learner).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, learner: nn.Module, step: int) -> None:
        """Take in the weights after a step."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current: Mapping[str, torch.Tensor] = learner.state_dict()
        for name, mean in self.learner.state_dict().items():
            value = current[name].detach()
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)
