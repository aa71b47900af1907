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
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosin.core.artifact import Trained, read_json, write_json, write_text
from eosin.core.errors import Stale, WrongUse
from eosin.core.fingerprint import digest
from eosin.core.learner import Learner
from eosin.data.dataset import Items
from eosin.data.module import InOrder, WeakView, batch_size, loader
from eosin.data.split import deal
from eosin.engine.device import open_device, seed_everything, workers
from eosin.engine.evaluate import TAG_PIXELS
from eosin.engine.journal import Journal
from eosin.engine.judge import judge_of
from eosin.engine.lab import EngineLab
from eosin.engine.loop import Fit
from eosin.engine.steps import RECORD, Step, Steps
from eosin.engine.workplace import Workplace
from eosin.metrics.doubt import doubts, presence

FOLDER = "suspects"
FOLDS = 5
REVISION = 1  # raised when the meaning of a fold's scores changes
EVIDENCE = "evidence.npz"
SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of the pixels of a map; how much of a tissue makes a tag is not known
MIRRORED: tuple[tuple[int, ...], ...] = ((), (2,), (3,), (2, 3))


class FinishedSteps(Steps):
    """The steps of a run that is read only: a plan finds what it made, and nothing is made."""

    def do(
        self,
        folder: str,
        name: str,
        settings: dict[str, Any],
        inputs: dict[str, str],
        work: Callable[[Path], dict[str, Any]],
        resumes: bool = False,
        together: bool = False,
        adopt: Callable[[Path], bool] = lambda run: True,
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
        groups: int64 ``[N]``, which one each item is of, from 0.
        of: int64 ``[N]``, the fold of each item, from 0.
    """

    unit: str
    groups: NDArray[np.int64]
    of: NDArray[np.int64]


def deal_folds(items: Items, seed: int) -> Folds:
    """Deal items to five folds of even size and even tags, by the coarsest unit of which there are at least five.

    An item whose patient is not known stands for its slide, else for its parent image, else for itself.

    Raises:
        WrongUse: if there are fewer items than folds.
    """
    if len(items) < FOLDS:
        raise WrongUse(f"{items.folder}: {len(items)} training images are too few for {FOLDS} folds")
    unit, named = "item", np.char.add("item ", items.ids)
    chosen = named
    for kind, column in (("parent", items.parents), ("slide", items.slides), ("patient", items.patients)):
        named = np.where(column == "", named, np.char.add(f"{kind} ", column))
        if (column != "").any() and len(np.unique(named)) >= FOLDS:
            unit, chosen = kind, named
    _, groups = np.unique(chosen, return_inverse=True)
    counts = np.zeros((groups.max() + 1, 1 + items.tags.shape[1]), np.int64)
    np.add.at(counts, groups, np.column_stack([np.ones(len(items)), items.tags == 1]).astype(np.int64))
    dealt = deal(counts, [1 / FOLDS] * FOLDS, stratify=True, seed=seed, stream=0)
    return Folds(unit, groups, dealt[groups])


def rank(place: Workplace, lab: EngineLab) -> Path:
    """Rank the training items by how probably one of their tags is wrong.

    Args:
        place: the run's.
        lab: of that place, whose plan has been run.

    Returns:
        ``RUN/suspects/suspects.json``: an object an item with its most doubtful known tag, highest doubt first.
        ``suspects.csv`` beside it has every known tag. ``score`` is the probability that the class is present, found
        without the item's tags; ``doubt`` is the probability that the tag should be the other one.

    Raises:
        WrongUse: if no step was trained by tags alone, or there are too few items.
        Stale: if the folder holds folds of other settings.
    """
    source = _first_by_tags_alone(place, lab)
    folds = deal_folds(lab.items, lab.recipe.seed)
    folder = place.run / FOLDER
    evidence = np.zeros((*lab.items.tags.shape, 1 + len(SHARES)), np.float32)
    for number in range(FOLDS):
        step = _fold(place, lab, source, folds.of == number, number + 1)
        with np.load(step.folder / EVIDENCE) as kept:
            evidence[folds.of == number] = kept["evidence"]
    rows = _rows(lab, presence(evidence, lab.items.tags, folds.of, folds.groups))
    write_text(folder / "suspects.csv", _csv(rows))
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(row["id"], row)
    told = {"schema": 1, "step": source.name, "folds": FOLDS, "grouped_by": folds.unit, "items": list(first.values())}
    write_json(folder / "suspects.json", told)
    return folder / "suspects.json"


def _first_by_tags_alone(place: Workplace, lab: EngineLab) -> Trained:
    """The first fit whose weights saw nothing but images and tags: no masks, no weights of another step."""
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
        view = WeakView(lab.items.subset(~held), spec.augment, seed)
        fit = Fit(name, learner, view, spec, seed, selection, judge, device, journal, place.progress, made)
        kept, earlier = fit.run()
        learner.load_state_dict(kept.weights)
        np.savez_compressed(made / EVIDENCE, ids=items.ids, evidence=evidence_of(learner, items))
        return {"selection": selection, "epoch": kept.epoch, "precision": device.precision, "earlier": earlier}

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
        return Steps(folder).do(name, name, settings, {}, work, resumes=True)
    except Stale as stale:
        why = str(stale).partition(": add --redo")[0]
        raise Stale(f"{why}: remove {folder} and rank again") from None


def evidence_of(learner: Learner, items: Items) -> NDArray[np.float32]:
    """What a learner says of the tags of items, float32 ``[N, K, 1 + shares]`` in 0..1, means over mirror images.

    First its tag score, then the mean of each share of the highest pixels of its class map.
    """
    device = open_device("fp32")
    device.place(learner).eval()
    found = []
    view = WeakView(items, None, 0)
    for batch in loader(view, InOrder(items, batch_size(items, TAG_PIXELS)), workers(len(items))):
        image = device.send(batch).image
        with torch.inference_mode():
            said = [_said(learner, image.flip(sides)) for sides in MIRRORED]
            found.append(torch.stack(said).mean(0).cpu().numpy())
    return np.concatenate(found)


def _said(learner: Learner, image: Tensor) -> Tensor:
    highest = learner.predict(image).float().flatten(2).sort(2, descending=True).values
    means = highest.cumsum(2) / torch.arange(1, highest.shape[2] + 1, device=highest.device)
    ends = [max(1, round(share * highest.shape[2])) - 1 for share in SHARES]
    return torch.cat([learner.tag_scores(image).float()[:, :, None], means[:, :, ends]], 2)


def _rows(lab: EngineLab, scores: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Every known tag, the most doubtful first."""
    tags = lab.items.tags
    doubt = doubts(scores, tags)
    rows = [
        {
            "id": str(lab.items.ids[i]),
            "class": lab.classes.names[k],
            "tag": int(tags[i, k]),
            "score": round(float(scores[i, k]), 6),
            "doubt": round(float(doubt[i, k]), 6),
        }
        for i, k in zip(*np.nonzero(~np.isnan(doubt)), strict=True)
    ]
    return sorted(rows, key=lambda row: -row["doubt"])


def _csv(rows: list[dict[str, Any]]) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, ["id", "class", "tag", "score", "doubt"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
