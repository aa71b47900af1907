"""The command line in a process of its own, watched from within: it notes each training step and may die at one.

``python driver.py NOTES KEPT KILL LOADERS WORDS...``: ``NOTES`` is a folder for notes. ``KEPT`` and ``KILL`` are
training steps, counted over the whole run from 1 (0: none): after the first a checkpoint is saved, at the beginning of
the second the process kills itself. ``LOADERS`` is how many processes load training items, ``WORDS`` what stands behind
``eosin``.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from eosin.engine import checkpoint, loop
from eosin.methods import discover

STEPS = "steps.txt"  # a line for each training step, when it begins: the process, the fit and the step in it
FIRST = "first"  # the weights at the first step of each fit


@contextmanager
def observed(notes: Path, kept: int = 0, kill: int = 0) -> Iterator[None]:
    """Note every training step; a checkpoint is saved after step ``kept`` alone."""
    (notes / FIRST).mkdir(parents=True, exist_ok=True)
    real, due, count = loop.Fit._step, checkpoint.Checkpoints.due, 0

    def step(self: loop.Fit, now: Any, *others: Any) -> bool:
        nonlocal count
        count += 1
        if now.step == 0:
            weights = {key: value.detach().clone().contiguous() for key, value in self.learner.state_dict().items()}
            save_file(weights, notes / FIRST / f"{self.name}.safetensors")
        if count == kill:
            os.kill(os.getpid(), signal.SIGKILL)
        with (notes / STEPS).open("a") as file:
            file.write(f"{os.getpid()} {self.name} {now.step}\n")
        return real(self, now, *others)

    loop.Fit._step = step  # type: ignore[method-assign]
    checkpoint.Checkpoints.due = lambda self: count == kept  # type: ignore[method-assign]
    try:
        yield
    finally:
        loop.Fit._step, checkpoint.Checkpoints.due = real, due  # type: ignore[method-assign]


@contextmanager
def toys_are_methods() -> Iterator[None]:
    """Let the broken methods be found like any other."""
    from contracts.toys import TOYS

    real = discover.methods
    discover.methods = lambda: {**real(), **TOYS}  # type: ignore[assignment]
    try:
        yield
    finally:
        discover.methods = real


def call(notes: Path, words: list[str], kept: int = 0, kill: int = 0) -> None:
    """``eosin`` with these words, observed."""
    from eosin import cli

    before, sys.argv = sys.argv, ["eosin", *words]
    try:
        with toys_are_methods(), observed(notes, kept, kill):
            cli.main()
    finally:
        sys.argv = before


if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).parent / "audit" / "sitecustomize.py"))
    kept, kill, loaders = map(int, sys.argv[2:5])
    loop.workers = lambda items: loaders  # type: ignore[assignment]
    call(Path(sys.argv[1]), sys.argv[5:], kept, kill)
