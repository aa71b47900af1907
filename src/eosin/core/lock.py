"""One process at a time: a hold on a file that the system lets go of when its process ends, however it ends."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from eosin.core.errors import EosinError

_OURS: set[Path] = set()  # the holds of this process


@contextmanager
def alone(path: Path, waiting: Callable[[], None]) -> Iterator[IO[str]]:
    """Open a file to append to, once no other process holds it; calls ``waiting`` again and again until then.

    The hold goes with the open file, thus also to a process that has it as its standard error: it ends with the last of
    them, also if they are killed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        while not _held(file, shared=True):
            waiting()
        yield file


def taken(path: Path) -> bool:
    """Whether a process holds a file by ``alone`` at this moment."""
    try:
        with path.open("r+", encoding="utf-8") as file:
            return not _held(file, shared=True)
    except FileNotFoundError:
        return False


@contextmanager
def sole(folder: Path) -> Iterator[None]:
    """Be the only process that works in a folder; the hold ends with this process, not with those that it started.

    Raises:
        EosinError: at once, if another process works there, naming it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / ".lock").resolve()
    if path in _OURS:  # the system lets a process take its own hold again, and then loses both
        raise EosinError(f"{folder}: this process is working here already; choose another --out")
    with path.open("a", encoding="utf-8") as file:
        if not _held(file, shared=False):
            who = path.read_text(encoding="utf-8").strip() or "another process"
            raise EosinError(f"{folder}: {who} is working here; wait for its end, or choose another --out")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        _OURS.add(path)
        try:
            yield
        finally:
            _OURS.remove(path)


def _held(file: IO[str], shared: bool) -> bool:
    """Try to take a hold on a file, one that is shared with processes that inherit the file, or one's own."""
    if sys.platform == "win32":
        import msvcrt

        file.seek(1 << 30)  # far behind the text, which others must be able to read
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    lock = fcntl.flock if shared else fcntl.lockf
    try:
        lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # lockf says either
        return False
    return True
