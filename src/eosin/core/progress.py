"""How long work tells what it does, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """Something that shows progress: a terminal, a log, nothing."""

    def start(self, what: str, total: int) -> Callable[[int, str], None]:
        """Begin a task of ``total`` units; the answer is called with (units done since, short note)."""
        ...

    def say(self, line: str) -> None:
        """Show one line."""
        ...


class Silent:
    """Shows nothing."""

    def start(self, what: str, total: int) -> Callable[[int, str], None]:
        """Ignore the task."""
        return lambda done, note: None

    def say(self, line: str) -> None:
        """Ignore the line."""


def counter(progress: Progress, what: str) -> Callable[[int, int], None]:
    """A (done, total) callback over a progress task."""
    advance: Callable[[int, str], None] | None = None
    seen = 0

    def count(done: int, total: int) -> None:
        nonlocal advance, seen
        advance = advance or progress.start(what, total)
        advance(done - seen, "")
        seen = done

    return count


SILENT = Silent()
