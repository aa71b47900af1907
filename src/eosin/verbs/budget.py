"""Giving every method the same compute: its training rate is measured, and its epochs follow from the minutes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from eosin.core.artifact import write_json
from eosin.core.errors import EosinError, WrongUse
from eosin.core.fingerprint import digest
from eosin.core.progress import Progress
from eosin.data.dataset import Dataset
from eosin.report.reading import read_journal
from eosin.verbs.cells import Plan, cell, run_cells
from eosin.verbs.train import resolve

PROBE = 512  # items of the one epoch whose rate is measured


def budgeted(plan: Plan, data: Path, minutes: float, out: Path, progress: Progress) -> Plan:
    """The same plan with epochs, and items an epoch, that take ``minutes`` of training.

    A short run measures how many images a second each fit takes. The minutes are shared between the fits as the
    recipe's own epochs would share the time. What was measured is kept in ``out/budget.json``, so that a comparison
    that goes on later gives the same settings.

    Args:
        plan: an arm.
        data: the data set that is trained on.
        minutes: of training, without scoring.
        out: the comparison's folder.
        progress: is told what happens.

    Raises:
        WrongUse: if there is no time in the budget.
        EosinError: if the short run fails.
    """
    if minutes <= 0:
        raise WrongUse(f"--budget minutes={minutes:g}: more than 0")
    recipe, _ = resolve(plan.recipe, plan.overrides)
    items = len(Dataset.open(data).items("train"))
    rates = _rates(plan, data, min(PROBE, items), out, progress)
    planned = {step: fit["epochs"] * (min(fit["items"], items) or items) for step, fit in recipe.fit.items()}
    scale = 60 * minutes / sum(planned[step] / rates[step] for step in planned)
    overrides = []
    for step, images in planned.items():
        wanted = max(images * scale, float(recipe.fit[step]["batch"]))
        epochs = max(1, round(wanted / items), recipe.fit[step]["epochs"] if wanted < items else 0)
        overrides += [f"fit.{step}.epochs={epochs}", f"fit.{step}.items={min(items, max(2, round(wanted / epochs)))}"]
    return replace(plan, overrides=(*plan.overrides, *overrides))


def _rates(plan: Plan, data: Path, items: int, out: Path, progress: Progress) -> dict[str, float]:
    """Images a second of each fit, measured once."""
    recipe, _ = resolve(plan.recipe, plan.overrides)
    path, key = out / "budget.json", digest([recipe.digest, Dataset.open(data).digest])[:16]
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if key not in known:
        short = [f"fit.{step}.{setting}" for step in recipe.fit for setting in ("epochs=1", f"items={items}")]
        probe = cell(replace(plan, overrides=(*plan.overrides, *short)), data, recipe.seed, out / "probes")
        progress.say(f"{plan.name}: measuring its rate")
        failures = run_cells([probe], progress)
        if failures:
            raise EosinError(failures[0])
        journal = read_journal(probe.folder / "journal.jsonl")
        known[key] = {"arm": plan.name, "images_per_s": {s: lines[-1]["images_per_s"] for s, lines in journal.items()}}
        write_json(path, known)
    rates: dict[str, float] = known[key]["images_per_s"]
    return rates
