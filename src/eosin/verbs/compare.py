"""Comparing methods: run what is missing, reuse what is finished, and write the tables."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eosin.core.errors import EosinError, WrongUse
from eosin.core.lock import alone
from eosin.core.progress import SILENT, Progress
from eosin.data.dataset import Dataset
from eosin.recipe import load_ablation, shipped
from eosin.report.compare.arms import positions
from eosin.report.compare.build import build
from eosin.report.compare.form import Comparison
from eosin.report.compare.read import Run, read_run, settings_digest
from eosin.report.compare.write import write_comparison
from eosin.verbs.budget import budgeted
from eosin.verbs.cells import POLL_S, Cell, Plan, cell, run_cells
from eosin.verbs.train import drawn, resolve

PHANTOM = "phantom"  # name of the data that are drawn
SAID = 60  # letters that may tell how runs differ


def compare(  # noqa: PLR0913 - the options of the command
    runs: Sequence[Path] = (),
    *,
    methods: Sequence[str] = (),
    ablation: str | Path | None = None,
    base: str | None = None,
    data: Path | None = None,
    seeds: int | None = None,
    out: Path = Path("runs/compare"),
    overrides: Sequence[str] = (),
    budget: float | None = None,
    groups: Sequence[Sequence[str]] = (),
    split: str = "test",
    command: str = "",
    progress: Progress = SILENT,
) -> Comparison:
    """Compare finished runs, or methods or the rows of an ablation on one data set; the first is the baseline.

    Args:
        runs: finished runs; those that differ in seed or fold alone are one row.
        methods: methods or recipes to run; a method takes its recipe for the data, else its default one.
        ablation: a shipped ablation's name, or a YAML file, whose rows are run.
        base: the recipe that the rows of the ablation change, in place of its own.
        data: a data set, or a folder of folds that ``eosin data split --folds`` made; phantom recipes draw their own.
        seeds: how many; 3 by default, 1 with folds.
        out: where tables and runs go.
        overrides: ``key=value`` changes to every recipe.
        budget: minutes of training that every arm gets; None leaves each recipe its own epochs.
        groups: names of classes whose mean IoU is shown beside that of all.
        split: which split is compared.
        command: that is shown with the tables, so that others can make them again.
        progress: is told what happens.

    Returns:
        What was written to ``out`` as csv, json, md, tex, html and png.

    Raises:
        WrongUse: if what is asked for contradicts itself, or runs cannot be compared.
        EosinError: if no run could be made; if some failed, the others are compared and ``failures`` says which.
    """
    if sum(map(bool, (runs, methods, ablation))) != 1:
        raise WrongUse("compare takes either runs, or --methods, or --ablation")
    if base and not ablation:
        raise WrongUse(f"--base {base}: it is what the rows of an ablation change; add --ablation FILE")
    if runs:
        if data or seeds or overrides or budget:
            raise WrongUse("compare of finished runs takes no --data, --seeds, --set or --budget; they are as they are")
        read = _named([read_run(Path(run), split) for run in runs])
        comparison = build(read, command=command, groups=groups)
    else:
        cells = _cells(
            asked_for(methods, str(ablation or ""), data, overrides, base),
            seeds,
            out,
            budget,
            (split, groups),
            progress,
        )
        failures = run_cells(cells, progress)
        made = [_read(one, split) for one in cells if one.finished]
        if not made:
            raise EosinError(f"no run could be made; the first: {failures[0]}")
        names = list(dict.fromkeys(one.arm for one in cells))
        made.sort(key=lambda run: names.index(run.arm))  # the baseline is the first that was asked for
        comparison = build(made, command=command, groups=groups, budget=budget, failures=failures, baseline=names[0])
    write_comparison(comparison, out)
    return comparison


@dataclass(frozen=True)
class Asked:
    """What is to be run: the arms, and the data sets, none where the first arm's recipe draws its own."""

    plans: list[Plan]
    sets: list[Dataset]


def asked_for(
    methods: Sequence[str], ablation: str, data: Path | None, overrides: Sequence[str], base: str | None = None
) -> Asked:
    """The arms and data sets of the command's options.

    Raises:
        WrongUse: if something is not known, or the arms would be scored by different protocols.
    """
    for override in overrides:
        if override.partition("=")[0].strip() == "seed":
            raise WrongUse(f"--set {override}: the seeds are 0 to N-1 of --seeds N")
    sets = _sets(data) if data else []
    name = sets[0].name if sets else PHANTOM
    plans = _rows(ablation, base, overrides) if ablation else _methods(methods, name, overrides)
    protocols = {plan.name: resolve(plan.recipe, plan.overrides)[0].protocol for plan in plans}
    if len(set(protocols.values())) > 1:
        said = ", ".join(f"{name}: {protocol}" for name, protocol in protocols.items())
        raise WrongUse(f"scored by different protocols ({said}); add --set protocol=strict or another one for all")
    return Asked(plans, sets)


def _cells(
    asked: Asked,
    seeds: int | None,
    out: Path,
    budget: float | None,
    wanted: tuple[str, Sequence[Sequence[str]]],
    progress: Progress,
) -> list[Cell]:
    """All runs that a comparison needs, arm by arm within each seed; ``wanted`` are its split and groups of classes.

    Raises:
        WrongUse: for what would else be found out only after all runs were made.
    """
    if seeds is not None and seeds < 1:
        raise WrongUse(f"--seeds {seeds}: at least 1")
    plans, sets = asked.plans, asked.sets
    with alone(out / ".lock", lambda: time.sleep(POLL_S)):  # drawing and measuring: once, also if started twice
        sets = sets or [Dataset.open(drawn(resolve(plans[0].recipe, plans[0].overrides)[0], out / "data", progress))]
        for dataset in sets:
            can_be_scored(dataset, *wanted)
        if budget is not None:
            plans = [budgeted(plan, sets[0], budget, out, progress) for plan in plans]
    count = seeds or (1 if len(sets) > 1 else 3)
    return [cell(plan, dataset, seed, out / "runs") for seed in range(count) for dataset in sets for plan in plans]


def can_be_scored(dataset: Dataset, split: str, groups: Sequence[Sequence[str]]) -> None:
    """See that a split has masks to compare by, and the data the classes of the groups.

    Raises:
        WrongUse: if not.
    """
    if split == "train" or dataset.truth(split) is None:
        raise WrongUse(f"--split {split}: {dataset.folder} has no masks there to compare by; give another split")
    for names in groups:
        positions(names, dataset.classes.names)


def _methods(methods: Sequence[str], dataset: str, overrides: Sequence[str]) -> list[Plan]:
    """A plan for each method or recipe."""
    recipes = shipped()
    plans: dict[str, Plan] = {}
    for method in methods:
        own, path = f"{method.replace('_', '-')}-{dataset}", Path(method)
        name = path.stem if path.suffix in (".yaml", ".yml") else method
        if name in plans:
            raise WrongUse(f"--methods {','.join(methods)}: two are called {name}; give each once, by its own name")
        plans[name] = Plan(name, own if own in recipes else method, tuple(overrides))
    return list(plans.values())


def _rows(ablation: str, base: str | None, overrides: Sequence[str]) -> list[Plan]:
    """A plan for each row of an ablation, over its own recipe or another one."""
    table = load_ablation(ablation)
    return [Plan(row.name, base or table.base, (*overrides, *table.overrides(k))) for k, row in enumerate(table.rows)]


def _sets(data: Path) -> list[Dataset]:
    """The data set itself, or the folds in its folder, in the order of their numbers.

    Raises:
        WrongUse: if there is none, or a fold is missing.
    """
    heads = [data / "dataset.yaml"] if (data / "dataset.yaml").is_file() else sorted(data.glob("fold-*/dataset.yaml"))
    found = [Dataset.open(head.parent) for head in heads]
    if not found:
        raise WrongUse(
            f"{data}: neither a data set nor folds (no dataset.yaml, no fold-1); see 'eosin data split --help'"
        )
    if len(found) == 1 and found[0].fold is None:
        return found
    folds = {one.fold.number: one for one in found if one.fold}
    kinds = {(one.fold.of, one.fold.source) if one.fold else (0, "") for one in found}
    if len(kinds) > 1 or set(folds) != set(range(1, min(kinds)[0] + 1)):
        have = ", ".join(map(str, sorted(folds))) or "none"
        raise WrongUse(f"{data}: holds fold {have}, not all folds of one split; give the folder that has them all")
    return [folds[number] for number in sorted(folds)]


def _read(one: Cell, split: str) -> Run:
    """A run with the claim that its recipe has today."""
    run = read_run(one.folder, split, one.arm)
    return replace(run, settings={**run.settings, "claim": one.claim})


def _named(runs: Sequence[Run]) -> list[Run]:
    """Give runs of one recipe's name and other settings names of their own: by what differs, else by a digest."""
    named: dict[tuple[str, str], str] = {}
    for arm in dict.fromkeys(run.arm for run in runs):
        kinds = {settings_digest(run): dict(_flat(run.settings)) for run in runs if run.arm == arm}
        keys = dict.fromkeys(key for flat in kinds.values() for key in flat if key not in ("seed", "claim"))
        differ = [key for key in keys if len({json.dumps(flat.get(key)) for flat in kinds.values()}) > 1]
        for mark, flat in kinds.items():
            said = ", ".join(f"{key.rpartition('.')[2]} {flat.get(key, 'default')}" for key in differ)
            named[arm, mark] = arm if len(kinds) == 1 else f"{arm} ({said if len(said) <= SAID else mark[:6]})"
    return [replace(run, arm=named[run.arm, settings_digest(run)]) for run in runs]


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested settings; a claim is one value."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value and key != "claim":
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
