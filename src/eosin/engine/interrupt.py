"""Ctrl-C and SIGTERM that wait until a training step is done, so that it can be kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """What was asked to stop has stopped in good order.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


class Interrupts:
    """While entered, the first signal only sets ``number``; a second one stops at once, and then nothing is kept.

    Signals can be caught in a program's main thread alone; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self.number = 0
        self._at_once = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {which: signal.signal(which, self._seen) for which in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for which, handler in self._before.items():
            signal.signal(which, handler)  # type: ignore[arg-type]  # what signal.signal returned

    def _seen(self, number: int, frame: FrameType | None) -> None:
        if self.number:  # perhaps in the middle of a step, from which nothing may be kept
            raise KeyboardInterrupt
        self.number = number
        if self._at_once:
            raise Interrupted(number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal stop what is done in this block, which has nothing to keep."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False
