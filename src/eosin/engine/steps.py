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
from eosin.core.fingerprint import Json, canonical, differences, digest, file_digest
from eosin.engine.device import cpu_seconds, energy_joules

RECORD = "step.json"
MADE_LAST = ("scores.json", "report.html")  # written from all steps at the end of a run


@dataclass(frozen=True, slots=True)
class Step:
    """A finished step.

    Attributes:
        folder: where its files lie.
        digest: of what it was made by and of the files themselves; what is made from it carries it on.
        notes: what its work noted.
    """

    folder: Path
    digest: str
    notes: dict[str, Any]


class Steps:
    """The steps of a run.

    Args:
        run: the run's folder.
        again: names of finished steps to do again. A marked step, and everything that is made from it, is removed
            only when its turn has come, so a run that is refused has lost nothing.

    Raises:
        WrongUse: if a name in ``again`` is not a finished step.
    """

    def __init__(self, run: Path, again: Iterable[str] = ()) -> None:
        self.run = run
        self.again = set(again)
        known = [str(record["name"]) for _, record in self._records()] if self.again else []
        for name in sorted(self.again - set(known)):
            raise WrongUse(f"--redo {name}: not a finished step of {run}{nearest(name, known)}")

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
            Stale: if it was made by other settings or inputs, saying which and what clears it.
        """
        form = canonical({"name": name, **settings, "inputs": inputs})
        mark = digest({"name": name, **settings, "inputs": inputs})
        place = self.run / folder
        if self.again & {name, *inputs}:
            self.again.add(name)
            shutil.rmtree(place, ignore_errors=True)
        if place.exists():
            return self._finished(place, name, form, mark)
        for summary in MADE_LAST:
            (self.run / summary).unlink(missing_ok=True)
        with atomic_folder(place) as temporary:
            began, cpu, energy = time.perf_counter(), cpu_seconds(), energy_joules()
            notes = work(temporary)
            notes |= {"wall_s": round(time.perf_counter() - began, 1), "cpu_s": round(cpu_seconds() - cpu, 1)}
            if energy is not None and (after := energy_joules()) is not None and after >= energy:  # it wraps around
                notes["energy_j"] = round(after - energy, 1)
            record = {
                "schema": 1,
                "name": name,
                "digest": mark,
                "content": _content(temporary),
                "inputs": sorted(inputs),
            }
            write_json(temporary / RECORD, {**record, "form": form, "notes": notes})
        return _step(place, {**record, "notes": notes})

    def costs(self) -> dict[str, float]:
        """Wall and processor seconds of all finished steps together, in however many sittings they were made.

        Joules too, where every step could read them; they are those of the whole machine.
        """
        notes = [record["notes"] for _, record in self._records()]
        keys = ("wall_s", "cpu_s", *(["energy_j"] if notes and all("energy_j" in note for note in notes) else []))
        return {key: round(sum(note[key] for note in notes), 1) for key in keys}

    def _finished(self, place: Path, name: str, form: Json, mark: str) -> Step:
        record = _read(place / RECORD)
        if record["digest"] != mark:
            changes = differences(record.get("form"), form)
            shown = "; ".join(changes[:3]) + (f" and {len(changes) - 3} more" if len(changes) > 3 else "")
            raise Stale(f"{place}: made with other settings ({shown}): add --redo {name}, or choose another --out")
        return _step(place, record)

    def _records(self) -> Iterable[tuple[Path, dict[str, Any]]]:
        patterns = (f"steps/*/{RECORD}", f"predictions/*/*/{RECORD}", f"model/{RECORD}")
        for path in sorted(path for pattern in patterns for path in self.run.glob(pattern)):
            yield path, _read(path)


def _read(path: Path) -> dict[str, Any]:
    """A step's record.

    Raises:
        EosinError: if it is missing or is none.
    """
    if not path.is_file():
        raise EosinError(f"{path.parent}: not a finished step (no {RECORD}); remove this folder and run again")
    record = read_json(path)
    if not isinstance(record, dict) or not {"name", "digest", "content", "inputs", "notes"} <= record.keys():
        raise EosinError(f"{path}: not a step's record; remove its folder and run again")
    return record


def _step(place: Path, record: dict[str, Any]) -> Step:
    return Step(place, digest([record["digest"], record["content"]]), record["notes"])


def _content(folder: Path) -> str:
    """SHA-256 over the names and bytes of all files of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest([[path.relative_to(folder).as_posix(), file_digest(path)] for path in files])
