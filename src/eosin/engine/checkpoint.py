"""Checkpoints inside a fit: all that it needs to go on as if it had never stopped."""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import time
from pathlib import Path
from typing import Any

import torch

from eosin.core.artifact import atomic_file
from eosin.core.errors import EosinError

EVERY_S = 30.0  # seconds between two,
COST = 0.01  # or more, so that saving takes no larger share of the time
_MARK = b"eosin checkpoint "
_HEAD = _MARK + b"1\n"
_LOG = logging.getLogger("eosin")


class Checkpoints:
    """The checkpoints of one fit, in a folder of their own; the file names tell the step.

    There are two as a rule: the newest, and one to fall back on if that cannot be read. A file holds a mark, the
    SHA-256 of what follows, and tensors and plain values as ``torch.save`` writes them. It is written aside and
    renamed, and read only if the digest is right, without running any code from it.

    Args:
        folder: where.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._good: Path | None = None  # the last one that is known to be whole
        self._next = time.perf_counter() + EVERY_S
        for left in folder.glob(".*.tmp"):  # by a process that was killed
            left.unlink()

    def due(self) -> bool:
        """Whether it is time for one."""
        return time.perf_counter() >= self._next

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after ``step`` steps; of those before it, only the last that is known to be whole stays.

        Raises:
            OSError: if it cannot be written; that one is kept.
        """
        began = time.perf_counter()
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getbuffer()
        for old in self._files():
            if old != self._good:
                old.unlink()
        path = self.folder / f"{step:09d}.ckpt"
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            file.write(_HEAD + hashlib.sha256(content).digest())
            file.write(content)
        self._good = path
        now = time.perf_counter()
        self._next = now + max(EVERY_S, (now - began) / COST)

    def newest(self) -> dict[str, Any] | None:
        """The newest state that is whole, None if there is none at all; warns of files that are not.

        Raises:
            EosinError: if there are checkpoints and none of them is whole.
        """
        files = self._files()
        for path in files:
            try:
                state = _read(path)
            except (OSError, ValueError) as error:
                _LOG.warning(f"{path}: {error}; trying the checkpoint before it")
            else:
                self._good = path
                return state
        if files:
            raise EosinError(f"{files[0]}: no checkpoint of this step is whole; remove {self.folder} to begin it anew")
        return None

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.ckpt"), reverse=True)


def _read(path: Path) -> dict[str, Any]:
    """A state.

    Raises:
        ValueError: if the file is not what was written, or of another version.
    """
    content = path.read_bytes()
    start = len(_HEAD) + hashlib.sha256().digest_size
    if content.startswith(_MARK) and not content.startswith(_HEAD):
        raise ValueError("a checkpoint of another version of eosin")
    if content[:start] != _HEAD + hashlib.sha256(memoryview(content)[start:]).digest():
        raise ValueError("a damaged checkpoint (its content is not what was written)")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(content[start:]), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError("a checkpoint that asks for code to be run") from None
    return state
