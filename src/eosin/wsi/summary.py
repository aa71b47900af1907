"""The state of every slide and image in a folder of results, one file each, and the table of all of them.

Each has a file of its own, so that processes that share the folder do not overwrite each other's lines; whoever
ends a slide writes the table anew from all of them.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from eosin.core.artifact import write_json, write_text

SUMMARY = "summary.csv"
STATES = ".slides"
"""Folder of the states, and of the leases."""

_ENDING = ".state.json"


@dataclass(frozen=True, slots=True)
class State:
    """A line of the summary.

    Attributes:
        slide: as the folder of its results is called.
        state: ``running`` until it is ended; a slide whose process was killed stays so until it is taken up again.
        attempts: how often it was begun.
        reason: why it failed, in one line.
        minutes: of the last attempt.
        mpp: micrometres per pixel at full resolution.
        mpp_from: where that is known from.
    """

    slide: str
    state: Literal["running", "done", "failed"]
    attempts: int = 1
    reason: str = ""
    minutes: float | None = None
    mpp: float | None = None
    mpp_from: str = ""


def begin(out: Path, name: str) -> None:
    """Note that a slide is begun, once more."""
    before = _read(_path(out, name))
    write_json(_path(out, name), asdict(State(name, "running", (before.attempts if before else 0) + 1)))


def end(out: Path, name: str, state: Literal["done", "failed"], **said: Any) -> None:
    """Note how a slide ended; what is ended without having been begun (it cannot be opened) counts as an attempt.

    Args:
        out: folder of all results.
        name: of the slide.
        state: how.
        said: other fields of :class:`State`.
    """
    before = _read(_path(out, name))
    attempts = 1 if before is None else before.attempts + (before.state != "running")
    write_json(_path(out, name), asdict(State(name, state, attempts, **said)))


def write_summary(out: Path) -> None:
    """Write ``summary.csv`` from the states of all slides, by name."""
    states = [state for path in sorted((out / STATES).glob(f"*{_ENDING}")) if (state := _read(path)) is not None]
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(State)], lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(state) for state in states)
    write_text(out / SUMMARY, text.getvalue())


def _path(out: Path, name: str) -> Path:
    return out / STATES / f"{name}{_ENDING}"


def _read(path: Path) -> State | None:
    """A state; None if there is none, or one of another version."""
    try:
        return State(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
