"""Comparing methods: run what is missing, reuse what is finished, and write the tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eosin.core.errors import EosinError, WrongUse
from eosin.core.progress import SILENT, Progress
from eosin.data.dataset import Dataset
from eosin.recipe import load_ablation, shipped
from eosin.report.compare.build import build
from eosin.report.compare.form import Comparison
from eosin.report.compare.read import Run, read_run, settings_digest
from eosin.report.compare.write import write_comparison
from eosin.verbs.budget import budgeted
from eosin.verbs.cells import Cell, Plan, cell, run_cells
from eosin.verbs.train import drawn, resolve


def compare(  # noqa: PLR0913 - the options of the command
    runs: Sequence[Path] = (),
    *,
    methods: Sequence[str] = (),
    ablation: Path | None = None,
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
        ablation: a file whose rows are run.
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
        EosinError: if a run failed; what could be made is written all the same.
    """
    if sum(map(bool, (runs, methods, ablation))) != 1:
        raise WrongUse("compare takes either runs, or --methods, or --ablation")
    failures: list[str] = []
    if runs:
        if data or seeds or overrides or budget:
            raise WrongUse("compare of finished runs takes no --data, --seeds, --set or --budget; they are as they are")
        read = _named([read_run(Path(run), split) for run in runs])
    else:
        cells = _cells(methods, ablation, data, seeds, out, overrides, budget, progress)
        failures = run_cells(cells, progress)
        read = [read_run(one.folder, split, one.arm) for one in cells if one.finished]
        if not read:
            raise EosinError(f"no run could be made; the first: {failures[0]}")
    comparison = build(read, command=command, groups=groups, budget=budget, failures=failures)
    write_comparison(comparison, out)
    return comparison


def _cells(
    methods: Sequence[str],
    ablation: Path | None,
    data: Path | None,
    seeds: int | None,
    out: Path,
    overrides: Sequence[str],
    budget: float | None,
    progress: Progress,
) -> list[Cell]:
    """All runs that a comparison needs, arm by arm within each seed, so that early tables hold all arms."""
    plans = _rows(ablation, overrides) if ablation else _methods(methods, data, overrides)
    sets = _folds(data) if data else [drawn(resolve(plans[0].recipe, plans[0].overrides)[0], out / "data", progress)]
    count = seeds if seeds is not None else (1 if len(sets) > 1 else 3)
    if count < 1:
        raise WrongUse(f"--seeds {count}: at least 1")
    if budget is not None:
        plans = [budgeted(plan, sets[0], budget, out, progress) for plan in plans]
    return [cell(plan, folder, seed, out / "runs") for seed in range(count) for folder in sets for plan in plans]


def _methods(methods: Sequence[str], data: Path | None, overrides: Sequence[str]) -> list[Plan]:
    """A plan for each method or recipe."""
    name = Dataset.open(_folds(data)[0]).name if data else "phantom"
    recipes = shipped()
    plans = []
    for method in methods:
        own = f"{method.replace('_', '-')}-{name}"
        plans.append(Plan(Path(method).stem, own if own in recipes else method, tuple(overrides)))
    if len({plan.name for plan in plans}) < len(plans):
        raise WrongUse(f"--methods {','.join(methods)}: one comes twice")
    return plans


def _rows(ablation: Path, overrides: Sequence[str]) -> list[Plan]:
    """A plan for each row of an ablation."""
    table = load_ablation(ablation)
    return [Plan(row.name, table.base, (*overrides, *table.overrides(k))) for k, row in enumerate(table.rows)]


def _folds(data: Path) -> list[Path]:
    """The data set itself, or the folds in its folder."""
    if (data / "dataset.yaml").is_file():
        return [data]
    folds = sorted(data.glob("fold-*/dataset.yaml"), key=lambda path: int(path.parent.name.removeprefix("fold-")))
    if not folds:
        raise WrongUse(
            f"{data}: neither a data set nor folds (no dataset.yaml, no fold-1); see 'eosin data split --help'"
        )
    return [path.parent for path in folds]


def _named(runs: Sequence[Run]) -> list[Run]:
    """Give runs of one recipe's name and other settings names of their own."""
    from dataclasses import replace

    settings: dict[str, dict[str, None]] = {}
    for run in runs:
        settings.setdefault(run.arm, {})[settings_digest(run)] = None
    return [
        replace(run, arm=f"{run.arm} {settings_digest(run)[:6]}") if len(settings[run.arm]) > 1 else run for run in runs
    ]
