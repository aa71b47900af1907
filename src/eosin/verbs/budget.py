"""Giving every method the same compute: its training rate is measured, and its epochs follow from the minutes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from eosin.core.artifact import read_json, write_json
from eosin.core.errors import EosinError, WrongUse
from eosin.core.fingerprint import digest
from eosin.core.progress import Progress
from eosin.data.dataset import Dataset
from eosin.report.reading import read_journal
from eosin.verbs.cells import Plan, cell, run_cells
from eosin.verbs.train import resolve

PROBE = 512  # items an epoch whose rate is measured
PROBED = 2  # epochs; the rate is that of the last, since the first one warms up
KEPT = "budget.json"


def budgeted(plan: Plan, dataset: Dataset, minutes: float, out: Path, progress: Progress) -> Plan:
    """The same plan with epochs, and items an epoch, that take ``minutes`` of training.

    A short run measures how many images a second each fit takes. The minutes are shared between the fits as the
    recipe's own epochs would share the time; minutes / rate is then what every fit may see. Where that is less than one
    pass over the data, it is spread over as many epochs as the recipe has. What was measured is kept in
    ``out/budget.json``, so that a comparison that goes on later gives the same settings.

    Args:
        plan: an arm.
        dataset: what is trained on.
        minutes: of training, without drawing masks and scoring.
        out: the comparison's folder.
        progress: is told what happens.

    Raises:
        WrongUse: if the minutes are no time, or too short for one batch.
        EosinError: if the short run fails.
    """
    if not 0 < minutes < math.inf:
        raise WrongUse(f"--budget minutes={minutes:g}: give a number above 0")
    recipe, method = resolve(plan.recipe, plan.overrides)
    items = len(dataset.items("train"))
    rates = _rates(plan, dataset, min(PROBE, items), out, progress)
    planned = {step: fit["epochs"] * (min(fit["items"], items) or items) for step, fit in recipe.fit.items()}
    rounds = method.rounds_of()
    scale = 60 * minutes / sum(planned[step] * rounds[step] / rates[step] for step in planned)
    overrides = []
    for step, images in planned.items():
        batch, wanted = min(recipe.fit[step]["batch"], items), images * scale
        if wanted < batch:
            least = minutes * batch / wanted
            raise WrongUse(
                f"--budget minutes={minutes:g}: not one batch of {plan.name}'s {step}; give {least:.2g} or more"
            )
        passes = math.ceil(wanted / items)
        # As many epochs as the recipe has, if each gets a batch: some parts of a training begin with a later one.
        epochs = max(passes, min(recipe.fit[step]["epochs"], int(wanted // batch)))
        overrides += [f"fit.{step}.epochs={epochs}", f"fit.{step}.items={min(items, round(wanted / epochs))}"]
    return replace(plan, overrides=(*plan.overrides, *overrides))


def _rates(plan: Plan, dataset: Dataset, items: int, out: Path, progress: Progress) -> dict[str, float]:
    """Images a second of each fit, measured once."""
    recipe, _ = resolve(plan.recipe, plan.overrides)
    path, key = out / KEPT, digest([recipe.digest, dataset.digest])[:16]
    known = read_json(path) if path.is_file() else {}
    if key not in known:
        short = [f"fit.{step}.{setting}" for step in recipe.fit for setting in (f"epochs={PROBED}", f"items={items}")]
        probe = cell(replace(plan, overrides=(*plan.overrides, *short)), dataset, recipe.seed, out / "probes")
        progress.say(f"{plan.name}: measuring its rate")
        failures = run_cells([probe], progress)
        if failures:
            raise EosinError(failures[0])
        journal = read_journal(probe.folder / "journal.jsonl")
        known[key] = {"arm": plan.name, "images_per_s": {s: lines[-1]["images_per_s"] for s, lines in journal.items()}}
        write_json(path, known)
    rates: dict[str, float] = known[key]["images_per_s"]
    return rates
