"""Work on disk: each step is a folder with ``step.json``, made once, found again by its digest.

A step is made in a hidden folder beside its place, which is renamed when it is whole. Work that can go on from what it
left (a fit from its checkpoint, a label step from the masks that are drawn) finds that folder again after a kill. What
has a hidden name inside of it is scratch, and no part of the step.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eosin.core.artifact import read_json, write_json
from eosin.core.errors import EosinError, Stale, WrongUse, nearest
from eosin.core.fingerprint import Json, canonical, differences, digest, file_digest
from eosin.core.progress import SILENT, Progress
from eosin.engine.device import cpu_seconds, energy_joules
from eosin.engine.team import Team

RECORD = "step.json"
BEGUN = ".begun.json"  # in the folder of a step that is being made: what it is made by
REDOING = ".redoing.json"  # in a run: what of a --redo was removed, until the run ends
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
        again: names of steps to do again, finished or not. A marked step, and everything that is made from it, is
            removed only when its turn has come, so a run that is refused has lost nothing. What was removed is written
            down until the run ends, so that the same call goes on from there if it is interrupted.
        team: the processes that share the work; the first one writes.
        others: a folder of runs; a step that one of them has made by the same settings and inputs is not made again.
        made: how and from what steps are made, as far as their digests do not tell; noted with each, and only what has
            the same is taken from others.
        progress: is told what was taken.

    Raises:
        WrongUse: if a name in ``again`` is not a step that was begun.
    """

    def __init__(
        self,
        run: Path,
        again: Iterable[str] = (),
        team: Team | None = None,
        others: Path | None = None,
        made: dict[str, Any] | None = None,
        progress: Progress = SILENT,
    ) -> None:
        self.run = run
        self.asked = frozenset(again)
        self.again = set(again)
        self.team = team or Team()
        self.others = others
        self.made = made
        self.progress = progress
        self.removed: set[str] = set()
        if self.again:
            self.team.first(self._check_again)

    def do(
        self,
        folder: str,
        name: str,
        settings: dict[str, Any],
        inputs: dict[str, str],
        work: Callable[[Path], dict[str, Any]],
        resumes: bool = False,
        together: bool = False,
        adopt: Callable[[Path], bool] = lambda run: True,
    ) -> Step:
        """Load a finished step or do its work.

        Args:
            folder: where in the run, e.g. ``steps/classifier``.
            name: the step's name, unique in the run.
            settings: everything that decides the result, beside the inputs.
            inputs: digests of the artifacts it is made from, by step name.
            work: fills a folder and returns notes; only a whole folder gets its name. Seconds of earlier sittings that
                it returns in ``earlier`` are added to its costs.
            resumes: the work goes on from what it finds in the folder; else the folder is empty.
            together: all processes do the work, of which the first alone may write; else the first does it.
            adopt: takes over what another run has noted of the step beside its folder; False if it has not.

        Raises:
            Stale: if it was made, or half made, by other settings or inputs, saying which and what clears it.
        """
        form = canonical({"name": name, **settings, "inputs": inputs})
        mark = digest({"name": name, **settings, "inputs": inputs})
        place = self.run / folder
        if self.again & {name, *inputs}:
            self.again.add(name)
        again = name in self.again and name not in self.removed
        finished = self.team.first(lambda: self._begin(place, name, form, mark, resumes, again, adopt))
        if finished is not None:
            return finished
        began, cpu, energy = time.perf_counter(), cpu_seconds(), energy_joules()
        making = _making(place)
        try:
            notes = work(making) if together else self.team.first(lambda: work(making))
            earlier = notes.pop("earlier", {"wall_s": 0.0, "cpu_s": 0.0})
            notes["made"] = self.made
            notes["wall_s"] = round(earlier["wall_s"] + time.perf_counter() - began, 1)
            notes["cpu_s"] = round(earlier["cpu_s"] + cpu_seconds() - cpu, 1)
            after = energy_joules()
            if energy is not None and after is not None and after >= energy and not earlier["wall_s"]:
                notes["energy_j"] = round(after - energy, 1)  # unless the counter wrapped, or an earlier part is lost
            return self.team.first(lambda: _end(place, name, form, mark, inputs, notes))
        finally:
            if not resumes and self.team.leads:
                shutil.rmtree(making, ignore_errors=True)

    def end(self) -> None:
        """The run is at its end: what is to be done again was."""
        (self.run / REDOING).unlink(missing_ok=True)

    def _remove(self, place: Path, name: str) -> None:
        """Take a step away, finished or half made, in an order that a kill cannot turn into half a step."""
        for summary in MADE_LAST:
            (self.run / summary).unlink(missing_ok=True)
        for path in (place, _making(place)):
            gone = path.with_name(f".{path.name.strip('.')}.removed")
            if gone.exists():
                shutil.rmtree(gone)
            if path.exists():
                path.rename(gone)
                shutil.rmtree(gone)
        self.removed.add(name)
        write_json(self.run / REDOING, {"asked": sorted(self.asked), "removed": sorted(self.removed)})

    def _begin(
        self,
        place: Path,
        name: str,
        form: Json,
        mark: str,
        resumes: bool,
        again: bool,
        adopt: Callable[[Path], bool],
    ) -> Step | None:
        """The finished step; else make its folder ready, with what an earlier sitting left if that can be used."""
        making = _making(place)
        if again:
            self._remove(place, name)
        if (making / RECORD).is_file():  # whole, but for its name
            _name(making, place)
        if place.exists():
            return self._finished(place, name, form, mark)
        if resumes and _worth(making):
            begun = read_json(making / BEGUN)
            if begun["digest"] != mark:
                raise Stale(_stale(making, name, begun["form"], form, "half made"))
        elif name in self.again or not self._take(place, mark, adopt):
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir(parents=True)
            write_json(making / BEGUN, {"name": name, "digest": mark, "form": form})
        for summary in MADE_LAST:
            (self.run / summary).unlink(missing_ok=True)
        return self._finished(place, name, form, mark) if place.exists() else None

    def _take(self, place: Path, mark: str, adopt: Callable[[Path], bool]) -> bool:
        """Share the files of a step that another run has made in the same way, if there is one."""
        making, there = _making(place), place.relative_to(self.run)
        for source in sorted(self.others.glob(f"*/{there.as_posix()}")) if self.others else []:
            try:
                record = _read(source / RECORD)
            except EosinError:  # half made, or damaged
                continue
            if record["digest"] != mark or record["notes"].get("made") != self.made:
                continue
            shutil.rmtree(making, ignore_errors=True)
            try:
                _share(source, making)
            except OSError:  # it is being made again there
                continue
            run = source.parents[len(there.parts) - 1]
            if _content(making) == record["content"] and adopt(run):
                notes = {**record["notes"], "taken": str(run)}
                write_json(making / RECORD, {**record, "notes": notes})
                _name(making, place)
                self.progress.say(f"{record['name']}: taken from {run}")
                return True
        return False

    def costs(self) -> dict[str, float]:
        """Wall and processor seconds of all finished steps together, in however many sittings and runs they were made.

        Joules too, where every step could read them; they are those of the whole machine.
        """
        notes = [record["notes"] for _, record in self._records()]
        keys = ("wall_s", "cpu_s", *(["energy_j"] if notes and all("energy_j" in note for note in notes) else []))
        return {key: round(sum(note[key] for note in notes), 1) for key in keys}

    def _finished(self, place: Path, name: str, form: Json, mark: str) -> Step:
        record = _read(place / RECORD)
        if record["digest"] != mark:
            raise Stale(_stale(place, name, record.get("form"), form, "made"))
        return _step(place, record)

    def _check_again(self) -> None:
        if (self.run / REDOING).is_file():
            before = read_json(self.run / REDOING)
            self.removed = set(before["removed"]) if before["asked"] == sorted(self.asked) else set()
        known = [str(record["name"]) for _, record in self._records()] + self._begun()
        for name in sorted(self.again - set(known) - self.removed):
            raise WrongUse(f"--redo {name}: not a step of {self.run}{nearest(name, known)}")

    def _begun(self) -> list[str]:
        """The names of steps that are half made."""
        patterns = [f"{place}.*.making/{BEGUN}" for place in ("steps/", "predictions/*/", "views/*/", "")]
        return [str(read_json(path)["name"]) for pattern in patterns for path in sorted(self.run.glob(pattern))]

    def _records(self) -> Iterable[tuple[Path, dict[str, Any]]]:
        patterns = (f"steps/*/{RECORD}", f"predictions/*/*/{RECORD}", f"views/*/*/{RECORD}", f"model/{RECORD}")
        for path in sorted(path for pattern in patterns for path in self.run.glob(pattern)):
            yield path, _read(path)


def _making(place: Path) -> Path:
    """Where a step is made before it gets its place."""
    return place.with_name(f".{place.name}.making")


def _worth(making: Path) -> bool:
    """Whether an earlier sitting left anything to go on from; it lies in folders."""
    return (making / BEGUN).is_file() and any(path.is_dir() and any(path.iterdir()) for path in making.iterdir())


def _end(place: Path, name: str, form: Json, mark: str, inputs: dict[str, str], notes: dict[str, Any]) -> Step:
    """Turn what was made into the finished step."""
    making = _making(place)
    record = {"schema": 1, "name": name, "digest": mark, "content": _content(making), "inputs": sorted(inputs)}
    write_json(making / RECORD, {**record, "form": form, "notes": notes})
    _name(making, place)
    return _step(place, {**record, "notes": notes})


def _share(source: Path, target: Path) -> None:
    """Give the files of a step but its record second names in a new folder, or copy them where that cannot be."""
    for path in sorted(source.rglob("*")):
        if path.is_file() and path != source / RECORD:
            second = target / path.relative_to(source)
            second.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, second)
            except OSError:
                shutil.copyfile(path, second)


def _name(making: Path, place: Path) -> None:
    """Clear the scratch away and give the step its place."""
    for path in making.glob(".*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    os.replace(making, place)


def _stale(place: Path, name: str, old: Json, new: Json, how: str) -> str:
    """What changed, and what clears it."""
    changes = differences(old, new)
    shown = "; ".join(changes[:3]) + (f" and {len(changes) - 3} more" if len(changes) > 3 else "")
    return f"{place}: {how} with other settings ({shown}): add --redo {name}, or choose another --out"


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
    """SHA-256 over the names and bytes of all files of a folder but scratch."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return digest([[name, file_digest(files[name])] for name in sorted(files) if not name.startswith(".")])
