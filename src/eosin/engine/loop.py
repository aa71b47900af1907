"""The training loop: one learner, one plan of batches, a judge after each epoch, the best weights kept."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eosin.core.artifact import write_json
from eosin.core.errors import EosinError
from eosin.core.learner import Learner
from eosin.core.memory import kept_memory
from eosin.core.progress import Progress
from eosin.core.values import Batch, Clock, FitSpec, Selection
from eosin.data.module import Plan, WeakView, loader
from eosin.engine.checkpoint import Checkpoints
from eosin.engine.device import Device, cpu_seconds, seed_everything, workers
from eosin.engine.interrupt import Interrupted, Interrupts
from eosin.engine.journal import Journal
from eosin.engine.optim import Average, factor, optimizer
from eosin.engine.team import too_few

Judge = Callable[[Learner], dict[str, float]]
CHECKPOINTS = ".checkpoints"  # in the folder of a fit that is not finished
NOT_FINITE = ".not-finite.json"  # there too: the batch that stopped it


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
        folder: of the unfinished step; a fit that was stopped goes on from what lies there.
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
    folder: Path

    def run(self) -> tuple[Kept, dict[str, float]]:
        """Train to the end, from the newest checkpoint if there is one.

        Returns:
            The kept weights, on the CPU, and the wall and processor seconds of sittings before this one.

        Raises:
            EosinError: if a loss is not finite, naming the term and the batch's items.
            Interrupted: on Ctrl-C or SIGTERM, after a checkpoint.
        """
        now, spec, team = _State(self), self.spec, self.device.team
        saved = Checkpoints(self.folder / CHECKPOINTS)
        now.load(self.name, saved.newest())
        plan = self._plan(now.step)
        if team.leads:
            self.journal.forget(self.name, now.judged)
        for part, begin in self.learner.begins().items():
            if begin >= spec.epochs:
                self.progress.say(
                    f"{self.name}: {part} begins with epoch {begin + 1}, and there are {spec.epochs}: never"
                )
        advance = self.progress.start(self.name, plan.steps)
        if now.step:
            advance(now.step, f"goes on after step {now.step}")
        with Interrupts() as interrupts, kept_memory():
            try:
                if now.step and now.step == (now.judged + 1) * plan.per_epoch:  # stopped while it was judged
                    self._end_of_epoch(now, interrupts)
                for batch in loader(self.view, plan, workers(len(self.view))):
                    stop = self._step(now, batch, plan, interrupts)
                    epoch = f"epoch {now.judged + 1}/{spec.epochs}"
                    advance(1, f"{epoch} · {now.tally.rate():.0f} img/s · loss {now.tally.total():.3f}")
                    if stop:
                        raise Interrupted(interrupts.number or signal.SIGTERM)
                    self._save(saved, now)
                    if now.step % plan.per_epoch == 0:
                        self._end_of_epoch(now, interrupts)
                        self._save(saved, now)
                if team.sum(np.array([interrupts.number])).any():  # asked to stop after the last step
                    raise Interrupted(interrupts.number or signal.SIGTERM)
            except Interrupted:
                self._save(saved, now, at_once=True)
                raise
        if now.kept.epoch < 0:
            raise EosinError(
                f"{self.name}: the validation split has nothing to score; check its masks or use select = 'last'"
            )
        return now.kept, now.earlier

    def _save(self, saved: Checkpoints, now: _State, at_once: bool = False) -> None:
        """Write a checkpoint if it is time for one, and there is something sound to go on from."""
        if self.device.team.leads and (at_once or saved.due()) and now.step and now.sound():
            saved.save(now.step, now.dump())

    def _step(self, now: _State, batch: Batch, plan: Plan, interrupts: Interrupts) -> bool:
        """One optimizer step; returns whether any of the processes was asked to stop."""
        spec, team = self.spec, self.device.team
        clock = Clock(now.step, now.step // plan.per_epoch, plan.steps, spec.epochs)
        for group, rate in zip(now.optim.param_groups, now.rates, strict=True):
            group["lr"] = rate * factor(spec, clock.step, clock.steps)
        seed_everything(self.seed, clock.step, team.rank)
        now.net.train()
        now.optim.zero_grad(set_to_none=True)
        images = plan.images(clock.step)  # of all processes
        terms: dict[str, Tensor] = {}
        seen: dict[str, Tensor] = {}  # pairs of sum and count
        parts = self.device.send(batch).parts(spec.accumulate)
        for number, part in enumerate(parts, 1):
            with nullcontext() if number == len(parts) else self.device.apart(now.net):
                with self.device.autocast():
                    losses = self._losses(now.net, part, clock)
                # A part averages over its own images, DDP over processes: this makes it the mean over the batch. It is
                # the batch's own mean only as far as images weigh alike: unknown tags and ignored pixels may differ.
                share = len(part) / images
                total = torch.stack(list(losses.values())).sum()
                now.scaler.scale(total * (share * team.world)).backward()
            for term, value in losses.items():
                terms[term] = terms.get(term, torch.zeros_like(value)) + value.detach() * share
            for name, pair in self.learner.noticed().items():
                told = torch.stack(pair).detach().to(total)
                seen[name] = seen.get(name, torch.zeros_like(told)) + told
        told = torch.cat([torch.stack(list(terms.values())), *seen.values(), total.new_tensor([interrupts.number])])
        *values, stop = team.add(told).tolist()
        means = dict(zip(terms, values, strict=False))
        sums, counts = values[len(terms) :: 2], values[len(terms) + 1 :: 2]
        pairs = dict(zip(seen, zip(sums, counts, strict=True), strict=True))
        self._check(means, clock, plan)
        now.scaler.unscale_(now.optim)
        if spec.clip:
            torch.nn.utils.clip_grad_norm_(self.learner.parameters(), spec.clip)
        now.scaler.step(now.optim)
        now.scaler.update()
        self.learner.after_step(clock)
        if now.average is not None:
            now.average.update(self.learner, clock.step)
        now.tally.add(means, images, pairs)
        now.step += 1
        return bool(stop > 0)

    def _losses(self, net: nn.Module, part: Batch, clock: Clock) -> dict[str, Tensor]:
        try:
            losses: dict[str, Tensor] = net(part, clock)
        except ValueError as error:
            if len(part) > 1 or "more than 1 value per channel" not in str(error):
                raise
            told = f"fit.{self.name}.batch = {self.spec.batch}: a norm of this network cannot learn from one image"
            raise EosinError(f"{told}; take 2 or more") from None
        return losses

    def _check(self, losses: Mapping[str, float], clock: Clock, plan: Plan) -> None:
        """Stop at a loss that is not finite, before it reaches the weights."""
        for term, value in losses.items():
            if not math.isfinite(value):
                ids = [str(self.view.items.ids[index]) for _, index in plan.batch(clock.step)]
                path = self.folder / NOT_FINITE
                if self.device.team.leads:
                    told = {"step": clock.step, "losses": {k: str(v) for k, v in losses.items()}, "items": ids}
                    write_json(path, told)
                more = f" and {len(ids) - 8} more, all in {path}" if len(ids) > 8 else ""
                raise EosinError(
                    f"{self.name}: loss {term!r} is {value} at step {clock.step} (items {', '.join(ids[:8])}{more}): "
                    f"lower fit.{self.name}.lr or set its clip; what was saved before it is kept"
                )

    def _plan(self, step: int) -> Plan:
        """The batches from ``step`` on, of which this process gets its share.

        Raises:
            EosinError: if a batch has too few images for all processes.
        """
        spec, team = self.spec, self.device.team
        tags = self.view.items.tags
        plan = Plan(tags, spec.batch, spec.epochs, self.seed, spec.items, spec.sampler, step, team.rank, team.world)
        fewest = min(spec.batch, plan.items)
        if team.world > 1 and fewest < 2 * team.world:
            raise too_few(fewest, team)
        return plan

    def _end_of_epoch(self, now: _State, interrupts: Interrupts) -> None:
        epoch, spec = now.judged, self.spec
        if not now.sound():  # by gradients, where the losses were finite
            raise EosinError(
                f"{self.name}: weights are not finite at the end of epoch {epoch + 1}: "
                f"lower fit.{self.name}.lr or set its clip; what was saved before is kept"
            )
        last = epoch == spec.epochs - 1
        judged = now.average.learner if now.average is not None else self.learner
        self.device.team.agree(list(judged.state_dict().values()))  # running means differ between processes
        val: dict[str, float] | None = None
        seconds = now.tally.seconds()
        if self.selection != "last" and (last or (epoch + 1) % spec.every == 0):
            judged.eval()
            with interrupts.at_once() if self.device.team.world == 1 else nullcontext():
                val = self.judge(judged)
        score = next(iter(val.values())) if val else (0.0 if last and self.selection == "last" else -math.inf)
        better = score > now.kept.score
        if better:
            weights = {k: v.detach().cpu().clone() for k, v in judged.state_dict().items()}
            now.kept = Kept(epoch, score, weights)
        seen = now.tally.seen()
        if (line := self.learner.warning(seen)) is not None:
            self.progress.say(f"{self.name}, epoch {epoch + 1}: {line}")
        if self.device.team.leads:
            self.journal.write(
                {
                    "step": self.name,
                    "epoch": epoch,
                    "epochs": spec.epochs,
                    "losses": now.tally.means(),
                    **({"seen": seen} if seen else {}),
                    "lr": now.optim.param_groups[0]["lr"],
                    "seconds": round(seconds, 3),
                    "images_per_s": round(now.tally.images / max(seconds, 1e-9), 1),
                    "selection": self.selection,
                    "val": val,
                    "kept": better,
                }
            )
        now.judged += 1
        now.tally = Tally()


class Tally:
    """Means of the loss terms of an epoch."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.noticed: dict[str, tuple[float, float]] = {}  # sum and count
        self.images = 0
        self.steps = 0
        self.spent = 0.0  # seconds, in sittings before this one
        self.begin = time.perf_counter()

    def add(self, losses: Mapping[str, float], images: int, noticed: Mapping[str, tuple[float, float]]) -> None:
        """One step more."""
        for name, (total, count) in noticed.items():
            before = self.noticed.get(name, (0.0, 0.0))
            self.noticed[name] = before[0] + total, before[1] + count
        for term, value in losses.items():
            self.sums[term] = self.sums.get(term, 0.0) + value
        self.images += images
        self.steps += 1

    def means(self) -> dict[str, float]:
        """Mean of each term over the steps."""
        return {term: value / self.steps for term, value in self.sums.items()}

    def seen(self) -> dict[str, float]:
        """Mean of what was noticed; what never occurred is left out."""
        return {name: total / count for name, (total, count) in self.noticed.items() if count}

    def total(self) -> float:
        """Mean loss."""
        return sum(self.means().values())

    def seconds(self) -> float:
        """How long it has taken."""
        return self.spent + time.perf_counter() - self.begin

    def rate(self) -> float:
        """Images per second."""
        return self.images / max(self.seconds(), 1e-9)


class _State:
    """All that changes during a fit, and nothing else: what a checkpoint holds.

    Random numbers are not among it: they follow from seed and step.
    """

    def __init__(self, fit: Fit) -> None:
        self.learner, spec = fit.learner, fit.spec
        self.world = fit.device.team.world
        self.net = fit.device.prepare(fit.learner, spec.compile)
        self.optim = optimizer(fit.learner, spec)
        self.rates = [group["lr"] for group in self.optim.param_groups]
        self.scaler = fit.device.scaler()
        self.average = Average(fit.learner, spec.ema) if spec.ema else None
        self.step = self.judged = 0
        self.kept, self.tally = Kept(), Tally()
        self.earlier = {"wall_s": 0.0, "cpu_s": 0.0}
        self.began = time.perf_counter(), cpu_seconds()

    def sound(self) -> bool:
        """Whether all weights are finite, so that there is something to go on from."""
        return all(bool(weight.isfinite().all()) for weight in self.learner.parameters())

    def dump(self) -> dict[str, Any]:
        """As tensors and plain values."""
        wall, cpu = self.began
        return {
            "step": self.step,
            "judged": self.judged,
            "world": self.world,
            "learner": self.learner.state_dict(),
            "optimizer": self.optim.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.learner.state_dict() if self.average is not None else None,
            "kept": {"epoch": self.kept.epoch, "score": self.kept.score, "weights": self.kept.weights},
            "tally": {"sums": self.tally.sums, "images": self.tally.images, "steps": self.tally.steps},
            "noticed": self.tally.noticed,
            "epoch_s": self.tally.seconds(),
            "wall_s": self.earlier["wall_s"] + time.perf_counter() - wall,
            "cpu_s": self.earlier["cpu_s"] + cpu_seconds() - cpu,
        }

    def load(self, name: str, saved: dict[str, Any] | None) -> None:
        """Take up what ``dump`` gave; nothing if there is none.

        Raises:
            EosinError: if it was trained by another number of processes.
        """
        if saved is None:
            return
        if saved["world"] != self.world:
            raise EosinError(
                f"{name}: this fit was begun by {saved['world']} processes, not {self.world}, "
                "which gives other weights: go on with as many, or do the step again (--redo)"
            )
        self.step, self.judged = saved["step"], saved["judged"]
        self.learner.load_state_dict(saved["learner"])
        self.optim.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        if self.average is not None:
            self.average.learner.load_state_dict(saved["average"])
        self.kept = Kept(**saved["kept"])
        self.tally.sums, self.tally.images, self.tally.steps = (saved["tally"][k] for k in ("sums", "images", "steps"))
        self.tally.noticed = {name: (total, count) for name, (total, count) in saved.get("noticed", {}).items()}
        self.tally.spent = saved["epoch_s"]
        self.earlier = {key: saved[key] for key in self.earlier}
