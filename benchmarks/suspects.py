"""Are wrong tags found? Ranks drawn patches of which one in twenty has one tag flipped; exits with 1 below the promise.

Usage: ``python benchmarks/suspects.py [--seeds 0 1 2] [--runs runs/doubtful-tags] [--write PAGE]``.

For each seed new tissue is drawn with flipped tags, the classifier of the recipe ``cam-phantom`` is trained on them and
the training patches are ranked as by ``eosin report RUN --masks``. A patch counts as wrong if its tags are not those of
its mask, which no model sees. Finished fits are found again in the folder of the runs.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from _page import commit, table, write
from numpy.typing import NDArray
from safetensors.torch import load_file

import eosin  # noqa: F401  (before segmentation_models_pytorch, which imports torchvision)
from eosin.core.artifact import MaskSet, read_json
from eosin.core.progress import SILENT
from eosin.data.dataset import Dataset
from eosin.data.phantom import PhantomSpec, draw_dataset, tags_of
from eosin.engine.device import open_device
from eosin.engine.lab import EngineLab
from eosin.engine.suspects import FOLDS, SHARES, deal_folds, evidence_of, rank
from eosin.engine.weights import without_weights
from eosin.engine.workplace import Workplace
from eosin.metrics.doubt import doubts, presence
from eosin.slides.image import read_mask
from eosin.verbs.train import resolve

Flags = NDArray[np.bool_]
NOISE = 0.05  # share of the patches with a flipped tag
LOOKED_AT = 0.10  # share of the patches that a person looks at again
PROMISE = 0.80  # share of the wrong patches that are among them
BLOCK = "doubtful-tags"


class Enough(Exception):
    """The classifier is trained; nothing else of the recipe is needed."""


class FirstStep(EngineLab):
    """Ends a plan where it would draw masks."""

    def label(self, name: str, source: object, rule: object) -> MaskSet:
        """Stop."""
        raise Enough


@dataclass(frozen=True)
class Outcome:
    """What was found for one seed: shares in 0..1 of the wrong patches, as a rule among the first 10 %.

    Attributes:
        seed: of tissue, flips and training.
        wrong: number of patches with a wrong tag.
        found: by the ranking.
        added: likewise of the patches that were given a tag.
        removed: likewise of the patches that lost one.
        first: by the ranking, among as many as there are wrong ones.
        tried: by other rankings, by name.
        minutes: processor time of the five fits and of the run's classifier.
    """

    seed: int
    wrong: int
    found: float
    added: float
    removed: float
    first: float
    tried: dict[str, float]
    minutes: tuple[float, float]


def among(doubt: NDArray[np.float64], wrong: Flags, share: float = LOOKED_AT) -> float:
    """The share of the wrong ones among the most doubtful, by doubt ``[N]``."""
    first = np.argsort(-doubt, kind="stable")[: round(share * len(doubt))]
    return float(wrong[first].sum() / wrong.sum())


def outcome(seed: int, runs: Path) -> Outcome:
    data = runs / f"data-{seed}"
    if not data.exists():
        draw_dataset(data, PhantomSpec(seed=seed, tag_noise=NOISE))
    dataset = Dataset.open(data)
    recipe, method = resolve("cam-phantom", [f"seed={seed}"])
    place = Workplace(runs / f"run-{seed}", dataset, recipe, "tags", SILENT)
    lab = FirstStep(place)
    with suppress(Enough):
        method.plan(lab)
    said = {item["id"]: item["doubt"] for item in read_json(rank(place, lab))["items"]}

    items, truth = lab.items, dataset.truth("train")
    assert truth is not None
    true = np.stack([tags_of(read_mask(truth.path(i))) for i in range(len(truth))])
    wrong = (true != items.tags).any(1)
    doubt = np.array([said[str(name)] for name in items.ids])

    folds = deal_folds(items, seed)
    folders = [place.run / "suspects" / f"fold-{k + 1}" for k in range(FOLDS)]
    evidence = np.zeros((*items.tags.shape, 1 + len(SHARES)))
    for k, folder in enumerate(folders):
        with np.load(folder / "evidence.npz") as kept:
            evidence[folds.of == k] = kept["evidence"]
    trained = lab.trained["classifier"]
    learner = without_weights(lab.build_of(trained))()
    learner.load_state_dict(load_file(trained.folder / "weights.safetensors"))
    in_sample = evidence_of(learner, items)
    alone = np.arange(len(items))  # groups of one: nothing is known of others
    score = evidence[:, :, :1]
    tried = {
        "tag score as it is": score[:, :, 0],
        "tag score, regression": presence(score, items.tags, folds.of, alone),
        "tag score and shares, regression": presence(evidence, items.tags, folds.of, alone),
        "tag score and the patient's other patches, regression": presence(score, items.tags, folds.of, folds.groups),
        "in-sample: tag score as it is": in_sample[:, :, 0],
        "in-sample: all, regression": presence(in_sample, items.tags, folds.of, folds.groups),
    }
    notes = [read_json(folder / "step.json")["notes"] for folder in [*folders, trained.folder]]
    minutes = [note["cpu_s"] / 60 for note in notes]
    return Outcome(
        seed,
        int(wrong.sum()),
        among(doubt, wrong),
        among(doubt, (items.tags > true).any(1)),
        among(doubt, (items.tags < true).any(1)),
        among(doubt, wrong, NOISE),
        {name: among(doubts(found, items.tags).max(1), wrong) for name, found in tried.items()},
        (sum(minutes[:FOLDS]), minutes[FOLDS]),
    )


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def page_tables(outcomes: list[Outcome]) -> str:
    """What the ranking found, and what others find, as Markdown with what they were measured on."""
    found = [
        ["Seed", "Wrong patches", "Found", "of tags added", "of tags removed", "in the first 5 %", "Five fits", "One"]
    ]
    for o in outcomes:
        shares = (o.found, o.added, o.removed, o.first)
        times = [f"{minutes:.1f} min" for minutes in o.minutes]
        found.append([str(o.seed), str(o.wrong), *map(percent, shares), *times])
    tried = [["Found in the first 10 %", *(f"seed {o.seed}" for o in outcomes), "mean"]]
    rankings = [("**all of it, regression: the ranking**", [o.found for o in outcomes])]
    rankings += [(name, [o.tried[name] for o in outcomes]) for name in outcomes[0].tried]
    rankings.append(("by chance", [LOOKED_AT] * len(outcomes)))
    for name, shares in sorted(rankings, key=lambda ranking: -sum(ranking[1])):
        tried.append([name, *map(percent, [*shares, sum(shares) / len(shares)])])
    made = f"Times are processor time. Device {open_device('fp32').name}, torch {torch.__version__}, commit {commit()}."
    return "\n\n".join([table(found), table(tried), made])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/doubtful-tags"), help="where data and fits are kept")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables into this page")
    arguments = parser.parse_args()
    print(f"share of the wrong patches among the {100 * LOOKED_AT:.0f} % that are looked at\n")
    outcomes = []
    for seed in arguments.seeds:
        o = outcome(seed, arguments.runs)
        outcomes.append(o)
        verdict = "ok" if o.found >= PROMISE else "BROKEN"
        print(f"seed {seed}: {o.found:.2f} >= {PROMISE:.2f} {verdict}", flush=True)
        for name, share in {**o.tried, "by chance": LOOKED_AT}.items():
            print(f"        {share:.2f} {name}", flush=True)
    if arguments.write:
        write(arguments.write, BLOCK, page_tables(outcomes))
    return 0 if min(o.found for o in outcomes) >= PROMISE else 1


if __name__ == "__main__":
    sys.exit(main())
