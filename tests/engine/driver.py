"""Runs the command line in a process of its own that kills itself, or is stopped, at a chosen place.

``python driver.py '{"at": "step", "number": 7, "how": "SIGKILL"}' run ...``: counts the calls of what ``at`` names and
sends itself the signal when the given number begins. A checkpoint is due after each step, or each ``every`` seconds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import eosin  # first: it mends torchvision
from eosin import cli
from eosin.engine import checkpoint, lab, loop
from eosin.predictor import write

PLACES: dict[str, tuple[Any, str]] = {
    "step": (loop.Fit, "_step"),
    "epoch": (loop.Fit, "_end_of_epoch"),
    "saved": (checkpoint.Checkpoints, "save"),
    "mask": (lab, "png_bytes"),
    "program": (write, "_exported"),
    "parity": (write, "parity"),
    "card": (write.Card, "write"),
}


def strike(place: tuple[Any, str], number: int, how: signal.Signals) -> None:
    """Let the ``number``-th call of something begin with a signal to this process."""
    owner, name = place
    usual: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def counted(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), how)
        return usual(*args, **named)

    setattr(owner, name, counted)


if __name__ == "__main__":
    wish = json.loads(sys.argv[1])
    sys.argv = ["eosin", *sys.argv[2:]]
    assert eosin.__version__
    checkpoint.EVERY_S = wish.get("every", 0.0)
    checkpoint.COST = 1e9
    loop.workers = lambda items: wish.get("workers", 0)
    if "at" in wish:
        strike(PLACES[wish["at"]], wish["number"], signal.Signals[wish["how"]])
    cli.main()
