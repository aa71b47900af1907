"""Progress bars, on standard error, so that output can be piped."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console

from eosin.cli.show import State, error

FINISHED = 8  # bars that stay


def shown(work: Callable[[Any], Any]) -> Any:
    """Run a verb under progress bars, on standard error, so that output can be piped."""
    from eosin.core.progress import Silent

    try:
        return work(Silent()) if State.json or not leads() else _barred(work)
    except KeyboardInterrupt as interrupt:
        if leads():
            error("interrupted; what is done is kept, the same command goes on from there")
        raise typer.Exit(getattr(interrupt, "exit_code", 130)) from None


def leads() -> bool:
    """Whether this process is the one that shows things, of those that torch.distributed.run started together."""
    return int(os.environ.get("WORLD_SIZE", "1")) < 2 or os.environ.get("RANK") == "0"


def _barred(work: Callable[[Any], Any]) -> Any:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.2g}/s")

    console = Console(stderr=True, width=None if sys.stderr.isatty() else 140)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bars, _logged(bars.console.print):
        return work(_Bars(bars))


@contextmanager
def _logged(show: Callable[[str], None]) -> Iterator[None]:
    """Show what eosin logs (which weights were loaded, how many entries matched)."""
    handler = logging.Handler()
    handler.emit = lambda record: show(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("eosin")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)


class _Bars:
    """Shows progress as rich bars."""

    def __init__(self, bars: Any) -> None:
        self.bars = bars

    def start(self, what: str, total: int) -> Callable[[int, str], None]:
        for done in [task.id for task in self.bars.tasks if task.finished][:-FINISHED]:
            self.bars.remove_task(done)  # else those that still run would be below the last line of the terminal
        task = self.bars.add_task(what, total=total, note="")
        return lambda done, note: self.bars.update(task, advance=done, note=note)

    def say(self, line: str) -> None:
        self.bars.console.print(line)
