"""Runs of a method on the drawn tissue, in a process of their own or in this one, and what they left behind."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from filelock import FileLock
from safetensors.torch import load_file
from torch import Tensor

from contracts import driver
from contracts.watch import Opened
from eosin.core.artifact import Trained, read_json, write_text
from eosin.core.learner import Learner
from eosin.core.progress import SILENT
from eosin.core.values import Batch, Clock, FitSpec
from eosin.data.dataset import Dataset
from eosin.data.module import Plan, WeakView, loader
from eosin.engine.lab import EngineLab
from eosin.engine.workplace import Workplace
from eosin.methods.method import Method
from eosin.recipe import Recipe
from eosin.verbs.train import resolve
from methods.fake_lab import Call, FakeLab
from warm import script

HERE = Path(__file__).parent
EPOCHS = 2
# Of each fit. The last epoch is kept, since what happens after another one that is kept would not be seen.
CUT = ("batch=8", f"epochs={EPOCHS}", "select=last", "precision=fp32")
AUDIT, SEEN, ENDED = "audit.txt", "seen.txt", "ended.txt"


@dataclass(frozen=True)
class Subject:
    """A method and the recipe that it is tried by: the shipped ``<method>-phantom``, cut short."""

    name: str
    kind: type[Method]
    recipe: str

    @classmethod
    def shipped(cls, name: str, kind: type[Method]) -> Subject:
        """A method of the package."""
        return cls(name, kind, f"{name.replace('_', '-')}-phantom")

    @property
    def overrides(self) -> list[str]:
        """What cuts the recipe short."""
        return [f"fit.{step}.{setting}" for step in self.kind.steps for setting in CUT]

    def words(self, data: Path, out: Path) -> list[str]:
        """The command, without ``eosin``."""
        sets = [word for text in self.overrides for word in ("--set", text)]
        return ["run", self.recipe, "--data", str(data), "--out", str(out), "--json", *sets]


@dataclass(frozen=True)
class Run:
    """What a run left: its folder, and what was noted from outside.

    Attributes:
        subject: what ran.
        data: the data set.
        place: holds ``run`` (the run's own folder) and the notes.
    """

    subject: Subject
    data: Path
    place: Path

    @property
    def folder(self) -> Path:
        """The run's own folder."""
        return self.place / "run"

    def steps(self, sitting: int = 0) -> list[tuple[str, int]]:
        """The training steps, (fit, step in it), that a sitting began: the first process, or a later one."""
        lines = [line.split() for line in (self.place / driver.STEPS).read_text().splitlines()]
        process = list(dict.fromkeys(line[0] for line in lines))[sitting]
        return [(name, int(step)) for pid, name, step in lines if pid == process]

    @property
    def audited(self) -> dict[str, set[int]]:
        """The files that Python code opened, and the processes that did."""
        found: dict[str, set[int]] = {}
        for line in (self.place / AUDIT).read_text().splitlines():
            process, _, path = line.partition(" ")
            found.setdefault(path, set()).add(int(process))
        return found

    @property
    def seen(self) -> set[str]:
        """The names of the masks that any code opened; Linux only."""
        return set((self.place / SEEN).read_text().splitlines())

    # -- what the run was made by, taken up again ----------------------------------------------------------------

    @cached_property
    def resolved(self) -> tuple[Recipe, Method]:
        """The recipe and the method with its options."""
        return resolve(self.subject.recipe, self.subject.overrides)

    @cached_property
    def dataset(self) -> Dataset:
        """The data set."""
        return Dataset.open(self.data)

    def replay(self, **options: Any) -> Replay:
        """Run the plan again, also with other options: every step is taken from this run's folder."""
        method = self.resolved[1]
        chosen = type(method).model_validate({**method.model_dump(), **options})
        lab = Replay(self)
        lab.final = chosen.plan(lab)  # type: ignore[arg-type]
        return lab

    def spec(self, step: str) -> FitSpec:
        """How a step was trained."""
        return self.resolved[0].fit_spec(step)

    def first(self, call: Call) -> Learner:
        """The learner of a fit before its first step."""
        return self._filled(call, self.place / driver.FIRST / f"{call.name}.safetensors")

    def trained(self, call: Call) -> Learner:
        """The learner of a fit or of a composition, as it was kept."""
        return self._filled(call, self.weights(call.name))

    def weights(self, step: str) -> Path:
        """Where the weights of a step lie."""
        return self.folder / "steps" / step / "weights.safetensors"

    def built(self, call: Call, plan: Replay | None = None) -> Learner:
        """A new learner of a fit of a plan (None: of the run's own), with its teacher as the run trained it.

        Where another plan's teacher is another network, it has those of the weights that both have in common.
        """
        learner: Learner = call.build()
        if call.teacher is not None:
            teacher = (plan or self.replayed).call(call.teacher.name).build()
            learner.taught_by(in_common(teacher, load_file(self.weights(call.teacher.name))).eval())
        return learner

    @cached_property
    def replayed(self) -> Replay:
        """The plan, run again."""
        return self.replay()

    def _filled(self, call: Call, weights: Path) -> Learner:
        learner = self.built(call)
        learner.load_state_dict(load_file(weights))
        return learner.eval()

    def batches(self, call: Call, count: int) -> list[Batch]:
        """The first batches of a fit, as many as asked for."""
        spec, items, seed = self.spec(call.name), self.dataset.items("train"), self.resolved[0].seed
        masks = {key: mask.path for key, mask in call.masks.items()}
        view = WeakView(items, spec.augment, seed, masks, self.dataset.classes.ignore)
        plan = Plan(items.tags, spec.batch, count, seed, spec.items, spec.sampler)
        return [batch for _, batch in zip(range(count), loader(view, plan, 0), strict=False)]

    def last(self, step: str, whole: bool = False) -> Clock:
        """The last moment of a fit; ``whole``: of the recipe as it is shipped, where every warm-up is over."""
        recipe = resolve(self.subject.recipe)[0] if whole else self.resolved[0]
        spec = recipe.fit_spec(step)
        plan = Plan(self.dataset.items("train").tags, spec.batch, spec.epochs, 0, spec.items)
        return Clock(len(plan) - 1, spec.epochs - 1, len(plan), spec.epochs)


def in_common(learner: Learner, weights: dict[str, Tensor]) -> Learner:
    """A learner with those weights that are called as its own and have their shapes."""
    shapes = learner.state_dict()
    fitting = {key: value for key, value in weights.items() if key in shapes and value.shape == shapes[key].shape}
    learner.load_state_dict(fitting, strict=False)
    return learner


class Replay(FakeLab):
    """A lab that gives what a finished run holds under each step's name."""

    final: Trained

    def __init__(self, run: Run) -> None:
        tags = run.dataset.items("train").tags
        counts = zip((tags == 1).sum(0).tolist(), (tags == 0).sum(0).tolist(), strict=True)
        super().__init__(type(run.resolved[1]).supervision, run.dataset.classes, tuple(counts))
        self._run = run

    def val_score(self, source: Trained) -> float:
        """As the run itself found."""
        entry = read_json(self._run.folder / "predictions" / source.name / "val" / "step.json")["notes"]["entry"]
        return float(entry["miou"])

    def place(self, kind: str, name: str) -> Path:
        if kind == "truth":
            return self._run.data / "masks"
        folder = self._run.folder / "steps" / name
        return folder / "masks" if kind == "label" else folder


# -- making runs ---------------------------------------------------------------------------------------------------


def child(run: Run, kept: int = 0, kill: int = 0, loaders: int = 0) -> CompletedProcess[str]:
    """Run the command line in a process of its own, which notes the files that it opens.

    Args:
        run: what and where; a place that holds a run already is gone on with.
        kept: the training step, counted over the whole run from 1, after which a checkpoint is saved.
        kill: the one at whose beginning the process kills itself.
        loaders: processes that load training items. A killed one leaves them behind.
    """
    run.place.mkdir(parents=True, exist_ok=True)
    paths = [HERE / "audit", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = {
        **os.environ,
        "EOSIN_AUDIT": str(run.place / AUDIT),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
    }
    words = [run.place, kept, kill, loaders, *run.subject.words(run.data, run.folder)]
    return script(HERE / "driver.py", words, environment)


def whole(subject: Subject, data: Path, place: Path) -> Run:
    """A run of the command line to its end, with two loading processes; what is in that place already is taken.

    It has a copy of the data to itself, so that whoever opens a mask there does it for this run.
    """
    run = Run(subject, place / "data", place)
    with FileLock(f"{place}.lock"):
        if not (place / ENDED).exists():
            shutil.copytree(data, run.data)
            watch = Opened(run.data / "masks") if sys.platform == "linux" else None
            ended = child(run, loaders=2)
            if watch is not None:
                write_text(place / SEEN, "\n".join(sorted(watch.names())))
            write_text(place / ENDED, f"{ended.returncode}\n{ended.stderr}")
    code, _, said = (place / ENDED).read_text().partition("\n")
    assert code == "0", f"{subject.name}: its plan does not run to the end (exit code {code}): {said[-2000:]}"
    return run


def torn(run: Run, kept: int, kill: int) -> int:
    """A run that is killed while it trains, and whose steps this process ends; the exit code of the first process."""
    killed = child(run, kept, kill)
    plan_only(run)
    return killed.returncode


def here(run: Run) -> Run:
    """Run the command line in this process: quicker, but without witnesses of what is opened."""
    run.place.mkdir(parents=True)
    try:
        driver.call(run.place, run.subject.words(run.data, run.folder))
    except SystemExit as end:
        assert not end.code, f"{run.subject.name}: the run ended with exit code {end.code}"
    return run


def plan_only(run: Run) -> Run:
    """Do in this process what the plan asks for: nothing is scored, exported or reported."""
    recipe, method = run.resolved
    run.folder.mkdir(parents=True, exist_ok=True)
    with driver.observed(run.place):
        method.plan(EngineLab(Workplace(run.folder, run.dataset, recipe, method.supervision, SILENT)))
    return run
