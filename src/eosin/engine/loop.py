"""The training loop: one learner, one plan of batches, a judge after each epoch, the best weights kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eosin.core.errors import EosinError
from eosin.core.learner import Learner
from eosin.core.progress import Progress
from eosin.core.values import Batch, Clock, FitSpec, Selection
from eosin.data.module import Plan, WeakView, loader
from eosin.engine.device import Device, seed_everything, workers
from eosin.engine.journal import Journal
from eosin.engine.optim import Average, factor, optimizer

Judge = Callable[[Learner], dict[str, float]]


@dataclass(slots=True)
class Kept:
    """The best weights so far."""

    epoch: int = -1
    score: float = -math.inf
    weights: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fit:
    """All that a fit needs.

    Attributes:
        name: the step's name.
        learner: what is trained, already on its device.
        view: the training items.
        spec: the settings.
        seed: of order, augmentation and steps.
        selection: how the kept epoch is chosen.
        judge: scores a learner on the validation split; the first value decides. Not called for ``last``.
        device: where it runs.
        journal: gets a line an epoch.
        progress: is told what happens.
    """

    name: str
    learner: Learner
    view: WeakView
    spec: FitSpec
    seed: int
    selection: Selection
    judge: Judge
    device: Device
    journal: Journal
    progress: Progress

    def run(self) -> Kept:
        """Train to the end; the kept weights are on the CPU.

        Raises:
            EosinError: if a loss is not finite, naming the term and the batch's items.
        """
        spec = self.spec
        plan = Plan(self.view.items.tags, spec.batch, spec.epochs, self.seed, spec.items, spec.sampler)
        net, optim = self.device.prepare(self.learner, optimizer(self.learner, spec))
        rates = [group["lr"] for group in optim.param_groups]
        average = Average(self.learner, spec.ema) if spec.ema else None
        kept, tally = Kept(), _Tally()
        advance = self.progress.start(self.name, len(plan))
        for step, batch in enumerate(loader(self.view, plan, workers(len(self.view)))):
            clock = Clock(step, step // plan.per_epoch, len(plan), spec.epochs)
            for group, rate in zip(optim.param_groups, rates, strict=True):
                group["lr"] = rate * factor(spec, step, len(plan))
            self._step(net, optim, batch, clock, tally)
            self.learner.after_step(clock)
            if average is not None:
                average.update(self.learner, step)
            advance(1, f"epoch {clock.epoch + 1}/{spec.epochs} · {tally.rate():.0f} img/s · loss {tally.total():.3f}")
            if (step + 1) % plan.per_epoch == 0:
                judged = average.learner if average is not None else self.learner
                self._end_of_epoch(judged, clock, tally, optim.param_groups[0]["lr"], kept)
                tally = _Tally()
        if kept.epoch < 0:
            raise EosinError(
                f"{self.name}: the validation split has nothing to score; check its masks or use select = 'last'"
            )
        return kept

    def _step(
        self, net: torch.nn.Module, optim: torch.optim.Optimizer, batch: Batch, clock: Clock, tally: _Tally
    ) -> None:
        seed_everything(self.seed, clock.step)
        net.train()
        batch = self.device.send(batch)
        with self.device.autocast():
            losses: dict[str, Tensor] = net(batch, clock)
        for term, value in losses.items():
            if not torch.isfinite(value):
                raise EosinError(
                    f"{self.name}: loss {term!r} is {float(value.detach())} at step {clock.step} "
                    f"(items {', '.join(batch.ids[:4])} ...): lower fit.{self.name}.lr or set its clip"
                )
        optim.zero_grad(set_to_none=True)
        self.device.backward(torch.stack(list(losses.values())).sum())
        if self.spec.clip:
            torch.nn.utils.clip_grad_norm_(self.learner.parameters(), self.spec.clip)
        optim.step()
        tally.add(losses, len(batch.ids))

    def _end_of_epoch(self, judged: Learner, clock: Clock, tally: _Tally, lr: float, kept: Kept) -> None:
        last = clock.epoch == self.spec.epochs - 1
        seconds = tally.seconds()
        val: dict[str, float] | None = None
        if self.selection != "last" and (last or (clock.epoch + 1) % self.spec.every == 0):
            judged.eval()
            val = self.judge(judged)
        score = next(iter(val.values())) if val else (0.0 if last and self.selection == "last" else -math.inf)
        better = score > kept.score
        if better:
            kept.epoch, kept.score = clock.epoch, score
            kept.weights = {k: v.detach().cpu().clone() for k, v in judged.state_dict().items()}
        self.journal.write(
            {
                "step": self.name,
                "epoch": clock.epoch,
                "epochs": clock.epochs,
                "losses": tally.means(),
                "lr": lr,
                "seconds": round(seconds, 3),
                "images_per_s": round(tally.images / max(seconds, 1e-9), 1),
                "selection": self.selection,
                "val": val,
                "kept": better,
            }
        )


class _Tally:
    """Means of the loss terms of an epoch; values are read from the device once a step."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.images = 0
        self.steps = 0
        self.begin = time.perf_counter()

    def add(self, losses: Mapping[str, Tensor], images: int) -> None:
        for term, value in losses.items():
            self.sums[term] = self.sums.get(term, 0.0) + float(value.detach())
        self.images += images
        self.steps += 1

    def means(self) -> dict[str, float]:
        return {term: value / self.steps for term, value in self.sums.items()}

    def total(self) -> float:
        return sum(self.means().values())

    def seconds(self) -> float:
        return time.perf_counter() - self.begin

    def rate(self) -> float:
        return self.images / max(self.seconds(), 1e-9)
