"""What the verbs hand to the engine: where a plan runs, and with what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from eosin import __version__
from eosin.core.artifact import Trained, read_json
from eosin.core.classes import Classes
from eosin.core.errors import WrongUse, nearest
from eosin.core.progress import Progress
from eosin.data.dataset import Dataset
from eosin.engine.device import open_device
from eosin.engine.journal import Listener
from eosin.engine.steps import RECORD
from eosin.engine.team import Team
from eosin.engine.weights import WEIGHTS
from eosin.predictor.spec import CARD, Card
from eosin.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Start:
    """Another run, with whose weights the steps of the same names begin.

    Attributes:
        run: its folder.
        licences: the terms that its model has and passes on.
    """

    run: Path
    licences: tuple[str, ...]

    @classmethod
    def of(cls, run: Path) -> Start:
        """Look at a finished run.

        Raises:
            WrongUse: if it is none.
        """
        if not (run / "model" / CARD).is_file():
            raise WrongUse(f"--start {run}: not a finished run (no model/{CARD}); run it to its end first")
        return cls(run, Card.read(run / "model").licences)

    def check(self, out: Path, classes: Classes, steps: Iterable[str]) -> None:
        """See that a run in ``out``, of these tissues and trained steps, can begin with it.

        Raises:
            WrongUse: if it is that run itself, or was trained on other tissues or by other steps.
        """
        if self.run.resolve() == out.resolve():
            raise WrongUse(f"--start {self.run}: a run cannot begin with itself; choose another --out")
        known = Card.read(self.run / "model").classes.names
        if known != classes.names:
            told = f"{', '.join(known)}, these data {', '.join(classes.names)}"
            raise WrongUse(f"--start {self.run}: its tissues are {told}; they must be the same in the same order")
        for step in steps:
            self.step(step)

    def step(self, name: str) -> Trained:
        """A trained step of it, to begin with.

        Raises:
            WrongUse: if there is none of that name, naming those there are.
        """
        folder = self.run / "steps" / name
        if not (folder / WEIGHTS).is_file() or not (folder / RECORD).is_file():
            known = sorted(path.parent.name for path in self.run.glob(f"steps/[!.]*/{WEIGHTS}"))
            raise WrongUse(f"--start {self.run}: has no trained step {name!r}{nearest(name, known)}")
        return Trained(name, folder, read_json(folder / RECORD)["content"])


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where and with what a plan runs.

    Attributes:
        run: the run's folder.
        dataset: the data.
        recipe: the settings.
        supervision: what the method may see.
        progress: is told what happens.
        again: steps to do again.
        start: another run, with whose weights the steps of the same names begin.
        team: the processes that share the work.
        listeners: are told what the journal says.
        weights: the terms of the pretrained weights that training begins with.
        others: a folder of runs, whose steps are taken where they are the same.
    """

    run: Path
    dataset: Dataset
    recipe: Recipe
    supervision: Literal["tags", "truth"]
    progress: Progress
    again: frozenset[str] = frozenset()
    start: Start | None = None
    team: Team = field(default_factory=Team)
    listeners: tuple[Listener, ...] = ()
    weights: tuple[str, ...] = ()
    others: Path | None = None

    @property
    def made(self) -> dict[str, Any]:
        """What results depend on that the digests of steps do not hold."""
        device = open_device("auto")
        return {
            "data": str(self.dataset.folder.resolve()),
            "device": device.name,
            "precision": device.precision,
            "processes": self.team.world,
            "eosin": __version__,
            "torch": torch.__version__,
        }

    @property
    def licences(self) -> tuple[str, ...]:
        """The terms that the model inherits: of its data, and of the weights that it began with."""
        return (
            f"data {self.dataset.name}: {self.dataset.licence}",
            *self.weights,
            *(f"began with weights of {line}" for line in (self.start.licences if self.start else ())),
        )
