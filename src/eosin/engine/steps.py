"""Finished work on disk: each step is a folder with ``step.json``, made once, found again by its digest."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eosin.core.artifact import atomic_folder, read_json, write_json
from eosin.core.errors import EosinError, Stale, WrongUse, nearest
from eosin.core.fingerprint import Json, canonical, differences, digest
from eosin.engine.device import cpu_seconds

RECORD = "step.json"


@dataclass(frozen=True, slots=True)
class Step:
    """A finished step: its folder, its digest and what its work noted."""

    folder: Path
    digest: str
    notes: dict[str, Any]


class Steps:
    """The steps of a run.

    Args:
        run: the run's folder.
    """

    def __init__(self, run: Path) -> None:
        self.run = run

    def redo(self, names: Iterable[str]) -> list[str]:
        """Remove steps and whatever was made from them; returns the removed names.

        Raises:
            WrongUse: if a name is not a finished step.
        """
        records = {str(r["name"]): (path.parent, list(r["inputs"])) for path, r in self._records()}
        for name in names:
            if name not in records:
                raise WrongUse(f"--redo {name}: not a finished step of {self.run}{nearest(name, list(records))}")
        gone = set(names)
        while more := {n for n, (_, inputs) in records.items() if n not in gone and gone & set(inputs)}:
            gone |= more
        for name in gone:
            shutil.rmtree(records[name][0])
        return sorted(gone)

    def do(
        self,
        folder: str,
        name: str,
        settings: dict[str, Any],
        inputs: dict[str, str],
        work: Callable[[Path], dict[str, Any]],
    ) -> Step:
        """Load a finished step or do its work.

        Args:
            folder: where in the run, e.g. ``steps/classifier``.
            name: the step's name, unique in the run.
            settings: everything that decides the result, beside the inputs.
            inputs: digests of the artifacts it is made from, by step name.
            work: fills an empty folder and returns notes; only a whole folder gets its name.

        Raises:
            Stale: if it was made by other settings, saying which and what clears it.
        """
        form = canonical({"name": name, **settings, "inputs": inputs})
        mark = digest({"name": name, **settings, "inputs": inputs})
        place = self.run / folder
        if place.exists():
            return self._finished(place, name, form, mark)
        with atomic_folder(place) as temporary:
            began, cpu = time.perf_counter(), cpu_seconds()
            notes = work(temporary)
            notes |= {"wall_s": round(time.perf_counter() - began, 1), "cpu_s": round(cpu_seconds() - cpu, 1)}
            record = {"schema": 1, "name": name, "digest": mark, "inputs": sorted(inputs), "form": form, "notes": notes}
            write_json(temporary / RECORD, record)
        return Step(place, mark, notes)

    def times(self) -> dict[str, float]:
        """Wall and processor seconds of all finished steps together, in however many sittings they were made."""
        notes = [record["notes"] for _, record in self._records()]
        return {key: round(sum(note[key] for note in notes), 1) for key in ("wall_s", "cpu_s")}

    def _finished(self, place: Path, name: str, form: Json, mark: str) -> Step:
        record = read_json(place / RECORD)
        if record.get("digest") != mark:
            changes = differences(record.get("form"), form)
            shown = "; ".join(changes[:3]) + (f" and {len(changes) - 3} more" if len(changes) > 3 else "")
            raise Stale(f"{place}: made with other settings ({shown}): add --redo {name}, or choose another --out")
        return Step(place, mark, record["notes"])

    def _records(self) -> Iterable[tuple[Path, dict[str, Any]]]:
        for path in sorted([*self.run.glob(f"steps/*/{RECORD}"), *self.run.glob(f"predictions/*/*/{RECORD}")]):
            record = read_json(path)
            if not isinstance(record, dict) or "name" not in record:
                raise EosinError(f"{path}: not a step's record; remove its folder")
            yield path, record
