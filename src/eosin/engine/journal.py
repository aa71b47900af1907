"""The run's diary: one JSON object a line, one line an epoch."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from eosin.core.artifact import write_text


class Listener(Protocol):
    """Something that is told what the journal says: an experiment tracker."""

    def replay(self, entries: list[dict[str, Any]]) -> None:
        """Begin anew with these entries; whatever was told before counts no more."""
        ...

    def write(self, entry: dict[str, Any]) -> None:
        """One more entry."""
        ...


class Journal:
    """Appends lines to ``journal.jsonl`` and forgets those that are done anew.

    Args:
        path: the file.
        listeners: are told what it holds, and every line from then on.
    """

    def __init__(self, path: Path, listeners: Sequence[Listener] = ()) -> None:
        self.path = path
        self.listeners = listeners
        for listener in listeners:
            listener.replay(self.read())

    def read(self) -> list[dict[str, Any]]:
        """All whole lines; a line cut by a kill is left out."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def forget(self, step: str, since: int = 0) -> None:
        """Drop a step's lines from an epoch on, and a line cut by a kill."""
        self._replace([entry for entry in self.read() if entry["step"] != step or entry["epoch"] < since])

    def take(self, step: str, run: Path) -> bool:
        """Have the lines of a step that another run's journal has; False if they are not those of all its epochs."""
        lines = [entry for entry in Journal(run / self.path.name).read() if entry["step"] == step]
        if not lines or [entry["epoch"] for entry in lines] != list(range(lines[0]["epochs"])):
            return False
        self._replace([*(entry for entry in self.read() if entry["step"] != step), *lines])
        return True

    def write(self, entry: dict[str, Any]) -> None:
        """Append a line and see it on the disk."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
        for listener in self.listeners:
            listener.write(entry)

    def _replace(self, entries: list[dict[str, Any]]) -> None:
        write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in entries))
        for listener in self.listeners:
            listener.replay(entries)
