"""Domain adaptation: train on one data set, go on with a share of another, score there; both ways."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from eosin.core.artifact import atomic_folder, read_json, write_json
from eosin.core.errors import WrongUse
from eosin.core.fingerprint import digest
from eosin.core.lock import alone
from eosin.core.progress import SILENT, Progress
from eosin.data.dataset import Dataset
from eosin.report.adapt.build import UNTOUCHED, Trials, build
from eosin.report.adapt.form import Adaptation, Stage
from eosin.report.adapt.write import write_adaptation
from eosin.report.compare.read import Run, read_run
from eosin.verbs.cells import POLL_S, Cell, Plan, cell, run_cells
from eosin.verbs.compare import asked_for, can_be_scored
from eosin.verbs.models import keep_score
from eosin.verbs.train import resolve

METHODS = ("oeem", "gland")
FRACTIONS = (0.2, 0.1, 0.05, 0.01)
SEEDS = 5
RATE = 0.1
SCORE = "score.json"


@dataclass(frozen=True)
class _Side:
    """A data set of the two: what tells it from the other, and the arms by the recipes for it."""

    name: str
    data: Dataset
    plans: list[Plan]


def adapt(  # noqa: PLR0913 - the options of the command
    source: Path,
    target: Path,
    *,
    methods: Sequence[str] = METHODS,
    fractions: Sequence[float] = FRACTIONS,
    seeds: int = SEEDS,
    rate: float = RATE,
    scratch: bool = False,
    out: Path = Path("runs/compare"),
    overrides: Sequence[str] = (),
    split: str = "test",
    command: str = "",
    progress: Progress = SILENT,
) -> Adaptation:
    """See how methods do on another data set than they were trained on, as it is and after a share of it, both ways.

    Every run is a process of its own, found again when it is finished, as in ``eosin compare``.

    Args:
        source: a data set.
        target: another one with the same classes.
        methods: methods or recipes; the first is the baseline. Those for the data that are trained on first are taken.
        fractions: shares of the other one's training items, each above 0 and below 1.
        seeds: how many, from 0; a seed's source run, its share of the items and its adapted run have that seed.
        rate: learning rates of the second training, as a share of the recipes', above 0 and at most 1.
        scratch: also train on each share alone, without the source.
        out: where tables and runs go.
        overrides: ``key=value`` changes to every recipe.
        split: which split is scored.
        command: that is shown with the tables, so that others can make them again.
        progress: is told what happens.

    Returns:
        What was written to ``out`` as csv, json, md, svg and html.

    Raises:
        WrongUse: if what is asked for contradicts itself, or the data sets do not fit each other.
        EosinError: if no run could be made; if some failed, ``failures`` says which.
    """
    shares = _shares(fractions)
    if not 0 < rate <= 1:
        raise WrongUse(f"--rate {rate:g}: give a share of the recipes' learning rates above 0 and at most 1, as 0.1")
    if seeds < 1:
        raise WrongUse(f"--seeds {seeds}: at least 1")
    sides = _sides(source, target, methods, overrides, split)
    ways = [(sides[0], sides[1]), (sides[1], sides[0])]
    runs = out / "runs"
    first = {(k, n): _cells(side.plans, side.data, n, runs) for n in range(seeds) for k, side in enumerate(sides)}
    failures = run_cells([one for some in first.values() for one in some], progress)
    planned = [
        (k, stage, one)
        for n in range(seeds)
        for k, (begun, aim) in enumerate(ways)
        for share in shares
        for stage, some in _adapted(begun, aim, first[k, n], n, share, rate, scratch, runs)
        for one in some
    ]
    failures += run_cells([one for *_, one in planned], progress)
    sources = [[one for n in range(seeds) for one in first[k, n] if one.finished] for k in range(2)]
    advance = progress.start("sources' models on the other data", sum(map(len, sources)))
    trials = []
    for k, (begun, aim) in enumerate(ways):
        made: dict[Stage, list[Run]] = {}
        for one in sources[k]:
            made.setdefault(UNTOUCHED, []).append(_untouched(one, aim.data, split, out / "untouched"))
            advance(1, one.folder.name)
        here = [(stage, one) for at, stage, one in planned if at == k and one.finished]
        for stage, one in [*here, *((Stage(1.0, scratch=True), one) for one in sources[1 - k])]:
            made.setdefault(stage, []).append(_alike(read_run(one.folder, split, one.arm)))
        trials.append(Trials(begun.name, aim.name, made))
    names = [plan.name for plan in sides[0].plans]
    colours = sides[0].data.classes.colours
    adaptation = build(trials, methods=names, colours=colours, rate=rate, command=command, failures=failures)
    write_adaptation(adaptation, out)
    return adaptation


def _shares(fractions: Sequence[float]) -> list[float]:
    """The shares from the largest down.

    Raises:
        WrongUse: if one is not between 0 and 1, or there are two of one or none.
    """
    said = ",".join(f"{share:g}" for share in fractions)
    if not fractions or len(set(fractions)) < len(fractions) or not all(0 < share < 1 for share in fractions):
        raise WrongUse(f"--fractions {said}: give shares above 0 and below 1, each once, as 0.2,0.1,0.05,0.01")
    return sorted(fractions, reverse=True)


def _sides(
    source: Path, target: Path, methods: Sequence[str], overrides: Sequence[str], split: str
) -> tuple[_Side, _Side]:
    """Both data sets with what is run on them.

    Raises:
        WrongUse: for what would else be found out only after runs were made.
    """
    asked = [asked_for(methods, "", folder, overrides) for folder in (source, target)]
    for folder, one in zip((source, target), asked, strict=True):
        if one.sets[0].fold is not None or len(one.sets) > 1:
            raise WrongUse(f"--adapt {folder}: holds folds; give a single data set, as 'eosin data import' makes it")
        can_be_scored(one.sets[0], split, ())
    a, b = (one.sets[0] for one in asked)
    if a.digest == b.digest:
        raise WrongUse(f"--adapt {source} {target}: the same data twice; give two data sets")
    if a.classes.names != b.classes.names:
        told = f"{', '.join(a.classes.names)} and {', '.join(b.classes.names)}"
        raise WrongUse(f"--adapt {source} {target}: their classes are {told}; they must be the same in the same order")
    protocols = [resolve(one.plans[0].recipe, one.plans[0].overrides)[0].protocol for one in asked]
    if len(set(protocols)) > 1:
        said = " and ".join(protocols)
        raise WrongUse(f"--adapt: the recipes for the two are scored by {said}; add --set protocol=strict or another")
    names = next(
        pair
        for pair in ((a.name, b.name), (a.folder.name, b.folder.name), (str(source), str(target)))
        if pair[0] != pair[1]
    )
    return _Side(names[0], a, asked[0].plans), _Side(names[1], b, asked[1].plans)


def _cells(plans: Sequence[Plan], data: Dataset, seed: int, out: Path) -> list[Cell]:
    """The runs of a seed on all of a data set."""
    return [cell(plan, data, seed, out) for plan in plans]


def _adapted(
    begun: _Side, aim: _Side, sources: Sequence[Cell], seed: int, share: float, rate: float, scratch: bool, out: Path
) -> list[tuple[Stage, list[Cell]]]:
    """The runs of a seed on a share of the target: those that begin with a finished source, and with nothing."""
    make = partial(cell, dataset=aim.data, seed=seed, out=out, fraction=share)
    pairs = zip(begun.plans, sources, strict=True)
    found = [(Stage(share), [make(_slower(plan, rate), start=one) for plan, one in pairs if one.finished])]
    return [*found, (Stage(share, scratch=True), [make(plan) for plan in begun.plans])] if scratch else found


def _slower(plan: Plan, rate: float) -> Plan:
    """The plan with a share of its recipe's learning rates, each step's own."""
    fit = resolve(plan.recipe, plan.overrides)[0].fit
    changed = (f"fit.{step}.lr={settings['lr'] * rate:e}" for step, settings in fit.items())
    return replace(plan, overrides=(*plan.overrides, *changed))


def _untouched(one: Cell, data: Dataset, split: str, out: Path) -> Run:
    """A run whose model, which never saw these data, is scored on them once; predictions and score stay in ``out``."""
    origin = _alike(read_run(one.folder, split, one.arm))
    protocol = str(origin.entry["protocol"])
    place = out / f"{one.folder.name}-on-{digest([one.model, data.digest, split, protocol])[:8]}"
    with alone(out / ".lock", lambda: time.sleep(POLL_S)):
        if not place.exists():
            with atomic_folder(place) as made:
                kept = made / "predictions" / "model" / split
                kept.mkdir(parents=True)
                write_json(made / SCORE, keep_score(one.folder, data.folder, split, protocol, kept))
    said = {"name": data.name, "digest": data.digest, "licence": data.licence, "known": data.known}
    provenance = {**origin.provenance, "dataset": said}
    return replace(origin, folder=place, entry=read_json(place / SCORE), provenance=provenance)


def _alike(run: Run) -> Run:
    """The run with settings that are alike for all seeds of an arm: each seed begins with a run of its own."""
    return replace(run, settings={key: value for key, value in run.settings.items() if key not in ("start", "claim")})
