"""The runs of a comparison: each is a process of its own, found again when it is finished."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eosin.core.fingerprint import digest
from eosin.core.progress import Progress
from eosin.data.dataset import Dataset
from eosin.verbs.train import resolve

POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """One arm: its name, the recipe it runs, and what is changed in it."""

    name: str
    recipe: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cell:
    """One run: an arm with a seed on a data set.

    Attributes:
        arm: the row it belongs to.
        recipe: what is run.
        overrides: changes to it, the seed among them.
        data: the data set.
        folder: of the run; its name ends in a digest of settings and data, so that other settings never meet in it.
        epochs: of all fits together.
    """

    arm: str
    recipe: str
    overrides: tuple[str, ...]
    data: Path
    folder: Path
    epochs: int

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do: provenance and scores are written last."""
        return (self.folder / "scores.json").is_file() and (self.folder / "provenance.json").is_file()


def cell(plan: Plan, data: Path, seed: int, out: Path) -> Cell:
    """Plan a run below ``out``.

    Raises:
        WrongUse: if recipe, settings and data do not go together.
    """
    overrides = (*plan.overrides, f"seed={seed}")
    recipe, _ = resolve(plan.recipe, overrides)
    dataset = Dataset.open(data)
    fold = f"-fold{dataset.fold.number}" if dataset.fold else ""
    mark = digest([recipe.digest, dataset.digest])[:8]
    name = re.sub(r"[^A-Za-z0-9.]+", "-", plan.name).strip("-").lower()
    epochs = sum(fit["epochs"] for fit in recipe.fit.values())
    return Cell(plan.name, plan.recipe, overrides, data, out / f"{name}-seed{seed}{fold}-{mark}", epochs)


def run_cells(cells: Sequence[Cell], progress: Progress) -> list[str]:
    """Make the runs that are missing, one after the other.

    Args:
        cells: all runs; finished ones are left as they are.
        progress: shows which run is on, its epoch and rate, and the time left.

    Returns:
        One line for each run that failed; the others are made all the same.
    """
    missing = [cell for cell in cells if not cell.finished]
    if len(missing) < len(cells):
        progress.say(f"{len(cells) - len(missing)} of {len(cells)} runs are finished and are reused")
    if not missing:
        return []
    advance = progress.start("runs", len(missing))
    failures = []
    for one in missing:
        failure = _run(one, progress)
        if failure:
            failures.append(f"{one.folder.name}: {failure}")
            progress.say(failures[-1])
        advance(1, one.folder.name)
    return failures


def _run(one: Cell, progress: Progress) -> str | None:
    """Run ``eosin run`` and follow its journal; returns why it failed, or None."""
    command = [sys.executable, "-m", "eosin", "run", one.recipe, "--data", str(one.data), "--out", str(one.folder)]
    command += [part for override in one.overrides for part in ("--set", override)]
    one.folder.parent.mkdir(parents=True, exist_ok=True)
    log = one.folder.parent / f"{one.folder.name}.log"
    advance = progress.start(one.folder.name, one.epochs)
    with log.open("w", encoding="utf-8") as said:
        process = subprocess.Popen([*command, "--json"], stdout=subprocess.DEVNULL, stderr=said)
        try:
            shown = 0
            while process.poll() is None:
                time.sleep(POLL_S)
                shown = _show(one, shown, advance)
            _show(one, shown, advance)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.returncode == 0:
        log.unlink()
        return None
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    return (lines[-1].removeprefix("eosin: ") if lines else f"ended with {process.returncode}") + f" (see {log})"


def _show(one: Cell, shown: int, advance: object) -> int:
    """Tell of the epochs that the journal holds beyond those told before."""
    path = one.folder / "journal.jsonl"
    if not path.is_file():
        return shown
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    if len(lines) > shown:
        last = json.loads(lines[-1])
        note = f"{last['step']}, epoch {last['epoch'] + 1}/{last['epochs']}, {last['images_per_s']:.0f} img/s"
        assert callable(advance)
        advance(len(lines) - shown, note)
    return max(shown, len(lines))
