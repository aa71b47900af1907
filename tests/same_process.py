"""Runs of a comparison made in the process that asks for them, which saves the imports of a new one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, ClassVar

from command_line import call
from eosin.cli.show import State


class Here:
    """A process that is run at once, in this one."""

    started: ClassVar[list[list[str]]] = []

    def __init__(self, command: list[str], stdout: int, stderr: Any, start_new_session: bool) -> None:
        self.started.append(command)
        before = State.json
        with (
            Path(os.devnull).open("w") as nothing,
            contextlib.redirect_stdout(nothing),
            contextlib.redirect_stderr(stderr),
        ):
            self.returncode = call(*command[3:])
        State.json = before

    def wait(self, timeout: float) -> int:
        return self.returncode

    def poll(self) -> int | None:
        return self.returncode
