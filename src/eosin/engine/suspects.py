"""Ranking training images whose tags are probably wrong, by models that never saw them.

The training items are dealt to folds, whole patients to one fold. The run's tag classifier is fitted again without
each fold, by its own settings, and answers for the tags of that fold; what it says is held against what is written
(``eosin.metrics.doubt``). Its epoch is chosen as in the run, on the validation split, which is not judged here, so a
fold's own tags touch nothing that its scores are made of. Each fold is a finished step in ``RUN/suspects``; nothing of
the run itself changes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosin.core.artifact import Trained, read_json, write_json, write_text
from eosin.core.errors import Stale, WrongUse
from eosin.core.fingerprint import digest
from eosin.data.dataset import Items
from eosin.data.module import WeakView
from eosin.data.split import _deal
from eosin.engine.device import open_device, seed_everything
from eosin.engine.evaluate import score_tags
from eosin.engine.journal import Journal
from eosin.engine.judge import judge_of
from eosin.engine.lab import EngineLab, Workplace
from eosin.engine.loop import Fit
from eosin.engine.steps import RECORD, Step, Steps
from eosin.metrics.doubt import doubts

FOLDER = "suspects"
FOLDS = 5
REVISION = 1  # raised when the meaning of a fold's scores changes
SCORES = "scores.npz"


class FinishedSteps(Steps):
    """The steps of a run that is read only: a plan finds what it made, and nothing is made."""

    def do(
        self,
        folder: str,
        name: str,
        settings: dict[str, Any],
        inputs: dict[str, str],
        work: Callable[[Path], dict[str, Any]],
    ) -> Step:
        """Load a finished step; see ``Steps.do``.

        Raises:
            WrongUse: if it is not there.
            Stale: if it was made by other settings or inputs.
        """
        if not (self.run / folder).exists():
            raise WrongUse(f"{self.run}: step {name!r} is not finished; run it to its end first")
        return super().do(folder, name, settings, inputs, work)


@dataclass(frozen=True, slots=True, eq=False)
class Folds:
    """How the training items are dealt.

    Attributes:
        unit: what is never split: ``patient``, ``slide``, ``parent`` or ``item``.
        of: int64 ``[N]``, the fold of each item, from 0.
    """

    unit: str
    of: NDArray[np.int64]


def deal_folds(items: Items, seed: int) -> Folds:
    """Deal items to five folds of even size and even tags, by the coarsest unit of which there are at least five.

    An item whose patient is not known stands for its slide, else for its parent image, else for itself.

    Raises:
        WrongUse: if there are fewer items than folds.
    """
    if len(items) < FOLDS:
        raise WrongUse(f"{items.folder}: {len(items)} training images are too few for {FOLDS} folds")
    columns = {"item": items.ids, "parent": items.parents, "slide": items.slides, "patient": items.patients}
    unit, names = "item", items.ids
    named: NDArray[np.str_] = np.empty(0, np.str_)
    for kind, column in columns.items():
        named = np.where(column == "", named, np.char.add(f"{kind} ", column)) if kind != "item" else column
        if (column != "").any() and len(np.unique(named)) >= FOLDS:
            unit, names = kind, named
    _, group = np.unique(names, return_inverse=True)
    counts = np.zeros((group.max() + 1, 1 + items.tags.shape[1]), np.int64)
    np.add.at(counts, group, np.column_stack([np.ones(len(items)), items.tags == 1]).astype(np.int64))
    return Folds(unit, _deal(counts, [1 / FOLDS] * FOLDS, stratify=True, seed=seed, stream=0)[group])


def rank(place: Workplace, lab: EngineLab) -> Path:
    """Rank the training items by how probably one of their tags is wrong.

    Args:
        place: the run's.
        lab: of that place, whose plan has been run.

    Returns:
        ``RUN/suspects/suspects.json``: an object an item with its most doubtful known tag, highest doubt first.
        ``suspects.csv`` beside it has every known tag. Both have the score of the model that did not see the item,
        and the doubt, which is the probability that the tag should be the other one.

    Raises:
        WrongUse: if no step was trained by tags alone, or there are too few items.
        Stale: if the folder holds folds of other settings.
    """
    source = _first_by_tags_alone(place, lab)
    folds = deal_folds(lab.items, lab.recipe.seed)
    folder = place.run / FOLDER
    scores = np.zeros(lab.items.tags.shape, np.float64)
    for number in range(FOLDS):
        step = _fold(place, lab, source, folds.of == number, number + 1)
        with np.load(step.folder / SCORES) as kept:
            scores[folds.of == number] = kept["scores"]
    rows = _rows(lab, scores, doubts(scores, lab.items.tags))
    write_text(folder / "suspects.csv", _csv(rows))
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(row["id"], row)
    told = {"schema": 1, "step": source.name, "folds": FOLDS, "grouped_by": folds.unit, "items": list(first.values())}
    write_json(folder / "suspects.json", told)
    return folder / "suspects.json"


def _first_by_tags_alone(place: Workplace, lab: EngineLab) -> Trained:
    """The first fit whose weights saw nothing but images and tags: no masks, no weights of another step."""
    if place.supervision == "truth":
        raise WrongUse(f"{place.run}: method {lab.recipe.method} is trained on true masks; tags play no part in it")
    for trained in lab.trained.values():
        form = read_json(trained.folder / RECORD)["form"]
        if form["kind"] == "fit" and not form["inputs"]:
            return trained
    raise WrongUse(f"{place.run}: method {lab.recipe.method} has no step that is trained by tags alone")


def _fold(place: Workplace, lab: EngineLab, source: Trained, held: NDArray[np.bool_], number: int) -> Step:
    """Fit the source's builder without the held-out items and score their tags."""
    name, seed = f"fold-{number}", lab.recipe.seed
    build, spec, items = lab.build_of(source), lab.recipe.fit_spec(source.name), lab.items.subset(held)
    folder = place.run / FOLDER

    def work(made: Path) -> dict[str, Any]:
        device = open_device(spec.precision)
        seed_everything(seed, number)
        learner = device.place(build())
        selection, judge = judge_of(spec, place.dataset, lab.protocol(lab.classes), lab.tiling, device)
        journal = Journal(folder / "journal.jsonl")
        journal.forget(name)
        view = WeakView(lab.items.subset(~held), spec.augment, seed)
        kept = Fit(name, learner, view, spec, seed, selection, judge, device, journal, place.progress).run()
        learner.load_state_dict(kept.weights)
        scores = score_tags(learner, WeakView(items, None, 0), open_device("fp32"))
        np.savez_compressed(made / SCORES, ids=items.ids, scores=scores)
        return {"selection": selection, "epoch": kept.epoch, "precision": device.precision}

    settings = {
        "kind": "fold",
        "revision": REVISION,
        "build": build,
        "spec": spec,
        "seed": seed,
        "data": place.dataset.digest,
        "judge": [lab.protocol.name, lab.tiling.tile, lab.tiling.margin],
        "held_out": digest([str(item) for item in items.ids]),
    }
    try:
        return Steps(folder).do(name, name, settings, {}, work)
    except Stale as stale:
        why = str(stale).partition(": add --redo")[0]
        raise Stale(f"{why}: remove {folder} and rank again") from None


def _rows(lab: EngineLab, scores: NDArray[np.float64], doubt: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Every known tag, the most doubtful first."""
    places = zip(*np.nonzero(~np.isnan(doubt)), strict=True)
    rows = [
        {
            "id": str(lab.items.ids[i]),
            "class": lab.classes.names[k],
            "tag": int(lab.items.tags[i, k]),
            "score": round(float(scores[i, k]), 6),
            "doubt": round(float(doubt[i, k]), 6),
        }
        for i, k in places
    ]
    return sorted(rows, key=lambda row: -row["doubt"])


def _csv(rows: list[dict[str, Any]]) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, ["id", "class", "tag", "score", "doubt"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
