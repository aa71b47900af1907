"""The runs of a comparison: each is a process of its own, found again when it is finished."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eosin.core.fingerprint import digest, file_digest
from eosin.core.lock import alone, taken
from eosin.core.progress import Progress
from eosin.data.dataset import Dataset
from eosin.verbs.train import resolve

POLL_S = 0.5
LOG = "compare.log"  # in a run's folder: what the run said on standard error


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
        claim: what the recipe says was published, today; a finished run may have been made before that was mended.
        start: the run whose weights it begins with, or None.
        fraction: share of the training items that it is trained on.
    """

    arm: str
    recipe: str
    overrides: tuple[str, ...]
    data: Path
    folder: Path
    epochs: int
    claim: dict[str, Any] | None
    start: Path | None = None
    fraction: float = 1.0

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do: provenance and scores are written last."""
        return (self.folder / "scores.json").is_file() and (self.folder / "provenance.json").is_file()

    @property
    def model(self) -> str:
        """Which model a finished run deployed: the digest of its card, where that of its weights is."""
        return file_digest(self.folder / "model" / "card.json")


def cell(plan: Plan, dataset: Dataset, seed: int, out: Path, start: Cell | None = None, fraction: float = 1.0) -> Cell:
    """Plan a run below ``out``, which may begin with the weights of another one and be trained on a share of the items.

    Raises:
        WrongUse: if recipe and settings do not go together.
    """
    overrides = (*plan.overrides, f"seed={seed}")
    recipe, method = resolve(plan.recipe, overrides)
    fold = f"-fold{dataset.fold.number}" if dataset.fold else ""
    share = "" if fraction == 1 else f"-{fraction:g}"
    begun = [] if start is None and fraction == 1 else [fraction, None if start is None else start.model]
    mark = digest([recipe.digest, dataset.digest, *begun])[:8]
    name = re.sub(r"[^a-z0-9.]+", "-", plan.name.lower())[:60].strip("-.") or "arm"
    epochs = sum(recipe.fit[step]["epochs"] * rounds for step, rounds in method.rounds_of().items())
    claim = recipe.claim.model_dump(mode="json", exclude_none=True) if recipe.claim else None
    folder = out / f"{name}-seed{seed}{fold}{share}-{mark}"
    begins = None if start is None else start.folder
    return Cell(plan.name, plan.recipe, overrides, dataset.folder, folder, epochs, claim, begins, fraction)


def run_cells(cells: Sequence[Cell], progress: Progress) -> list[str]:
    """Make the runs that are missing, one after the other; those that another process is making come last.

    Args:
        cells: all runs; finished ones are left as they are.
        progress: shows which run is on, its step, epoch and rate, and the time left.

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
    while missing:
        one = next((one for one in missing if not taken(one.folder / LOG)), missing[0])
        missing.remove(one)
        failure = _run(one, progress)
        if failure:
            failures.append(f"{one.folder.name}: {failure}")
            progress.say(failures[-1])
        advance(1, one.folder.name)
    return failures


def _run(one: Cell, progress: Progress) -> str | None:
    """Run ``eosin run`` and follow what it does; returns why it failed, or None."""
    command = [sys.executable, "-m", "eosin", "run", one.recipe, "--data", str(one.data), "--out", str(one.folder)]
    command += ["--reuse", str(one.folder.parent)]
    command += [part for override in one.overrides for part in ("--set", override)]
    command += ["--start", str(one.start)] if one.start else []
    command += ["--fraction", str(one.fraction)] if one.fraction < 1 else []
    seen = _Seen(one, progress.start(one.folder.name, one.epochs))

    def waiting() -> None:
        if not seen.waited:
            progress.say(f"{one.folder.name}: another process is making it; waiting")
        seen.waited = True
        seen.look()
        time.sleep(POLL_S)

    with alone(one.folder / LOG, waiting) as log:
        if one.finished:  # by the process that was waited for
            seen.end("made by another process")
            return None
        log.truncate(0)
        # In a session of its own: Ctrl-C reaches this process alone, which then asks the run to stop, once.
        process = subprocess.Popen([*command, "--json"], stdout=subprocess.DEVNULL, stderr=log, start_new_session=True)
        try:
            while not _ended(process):
                seen.look()
        finally:
            if process.poll() is None:  # interrupted: the run must not go on unseen
                process.terminate()
                process.wait()
    seen.end("" if process.returncode == 0 else "failed")
    return None if process.returncode == 0 else f"{_reason(process.returncode, one.folder / LOG)} (see {log.name})"


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(POLL_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _reason(code: int, log: Path) -> str:
    """Why a run ended, in one line."""
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("eosin: ") if lines else f"ended with {code}"


class _Seen:
    """What was told of a run: its epochs, and the step that it is at."""

    def __init__(self, one: Cell, advance: Callable[[int, str], None]) -> None:
        self.folder, self.total, self.advance = one.folder, one.epochs, advance
        self.epochs, self.note, self.waited = 0, "", False

    def look(self) -> None:
        """Tell of the epochs that the journal holds beyond those told before, and of a step that has begun."""
        path = self.folder / "journal.jsonl"
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
        note = _doing(self.folder)
        if lines and note in ("", (last := json.loads(lines[-1]))["step"]):
            note = f"{last['step']}, epoch {last['epoch'] + 1}/{last['epochs']}, {last['images_per_s']:.0f} img/s"
        new = max(0, len(lines) - self.epochs)
        if new or note != self.note:
            self.advance(new, note)
        self.epochs, self.note = self.epochs + new, note

    def end(self, note: str) -> None:
        """Tell of the last epochs, and with a note that nothing more will come."""
        self.look()
        if note:
            self.advance(max(0, self.total - self.epochs), note)


def _doing(folder: Path) -> str:
    """The step that is being made, from the name of its unfinished folder; empty between steps."""
    patterns = (".*.making", "steps/.*.making", "predictions/*/.*.making", "views/*/.*.making")
    begun = [path for pattern in patterns for path in folder.glob(pattern)]
    if not begun:
        return ""
    path = max(begun, key=_age)
    name = path.name.removeprefix(".").removesuffix(".making")
    kind = path.parent.parent.name
    on = f"{path.parent.name} on {name}"
    return on if kind == "predictions" else f"views of {on}" if kind == "views" else name


def _age(path: Path) -> float:
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:  # finished meanwhile
        return 0.0
