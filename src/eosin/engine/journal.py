"""The run's diary: one JSON object a line, one line an epoch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from eosin.core.artifact import write_text


class Journal:
    """Appends lines to ``journal.jsonl`` and forgets a step that is done anew."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[dict[str, Any]]:
        """All whole lines; a line cut by a kill is left out."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def forget(self, step: str) -> None:
        """Drop a step's lines."""
        kept = [entry for entry in self.read() if entry["step"] != step]
        write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in kept))

    def write(self, entry: dict[str, Any]) -> None:
        """Append a line and see it on the disk."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
