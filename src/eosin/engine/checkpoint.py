"""Checkpoints inside a fit: all that it needs to go on as if it had never stopped."""

from __future__ import annotations

import hashlib
import io
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from eosin.core.artifact import atomic_file
from eosin.core.errors import EosinError

EVERY_S = 30.0  # seconds between two,
COST = 0.01  # or more, so that saving takes no larger share of the time
_HEAD = b"eosin checkpoint 1\n"


class Checkpoints:
    """The checkpoints of one fit, in a folder of their own; the file names tell the step.

    There are two: the newest, and one to fall back on if it cannot be read.

    A file holds a mark, the SHA-256 of what follows, and tensors and plain values as ``torch.save`` writes them. It is
    written aside and renamed, and read only if the digest is right, without running any code from it.

    Args:
        folder: where.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._next = time.perf_counter() + EVERY_S

    def due(self) -> bool:
        """Whether it is time for one."""
        return time.perf_counter() >= self._next

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after ``step`` steps, beside the newest one; those before it are dropped.

        Raises:
            OSError: if it cannot be written; the newest one is kept.
        """
        began = time.perf_counter()
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getbuffer()
        for old in self._files()[1:]:
            old.unlink()
        with atomic_file(self.folder / f"{step:09d}.ckpt") as temporary, temporary.open("wb") as file:
            file.write(_HEAD + hashlib.sha256(content).digest())
            file.write(content)
        now = time.perf_counter()
        self._next = now + max(EVERY_S, (now - began) / COST)

    def newest(self, say: Callable[[str], None]) -> dict[str, Any] | None:
        """The newest state that is whole, None if there is none at all; says which files are not.

        Raises:
            EosinError: if there are checkpoints and none of them is whole.
        """
        files = self._files()
        for path in files:
            state = _read(path)
            if state is not None:
                return state
            say(f"{path}: damaged checkpoint (its content is not what was written); trying the one before it")
        if files:
            raise EosinError(f"{files[0]}: no checkpoint of this step is whole; remove {self.folder} to begin it anew")
        return None

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.ckpt"), reverse=True)


def _read(path: Path) -> dict[str, Any] | None:
    content = path.read_bytes()
    start = len(_HEAD) + hashlib.sha256().digest_size
    if content[:start] != _HEAD + hashlib.sha256(memoryview(content)[start:]).digest():
        return None
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(content[start:]), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # it asks for code to be run
        return None
    return state
