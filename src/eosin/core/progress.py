"""How long work tells what it does, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


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


def tracked(progress: Progress, what: str, things: Iterable[T], total: int) -> Iterator[T]:
    """Pass things on and count them."""
    step = progress.start(what, total)
    for thing in things:
        yield thing
        step(1, "")
