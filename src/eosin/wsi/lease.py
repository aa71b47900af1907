"""Who works on a slide, where several processes, also of several machines, share one folder of results.

A lease is a file that its owner touches all the time. Whose touch is older than ``EXPIRES`` is taken for dead, by the
clock of the file system, so that clocks of machines need not agree; a dead process of this machine is known at once.

Leases of a slide are numbered. A new one takes the number after the highest, and the file system lets only one process
make a file of that number. After that the owner looks for others: as each makes its file before it looks, of two at
least one sees the other and gives way, whatever else they saw. So no two ever hold a slide both.
"""

from __future__ import annotations

import json
import os
import platform
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from eosin.core.artifact import alive

EXPIRES = 60.0
"""Seconds after which a lease that is not touched is taken for that of a dead process."""


class Lost(Exception):
    """Another process took this one for dead, and works on the slide now."""


class Lease:
    """The right to work on a slide, held until :meth:`release` or the end of the block.

    Example:
        >>> lease = Lease.acquire(folder, "slide-1")
        >>> if lease is not None:
        ...     with lease:
        ...         lease.check()
    """

    def __init__(self, path: Path, expires: float) -> None:
        self._path, self._expires = path, expires
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._heart.start()

    @classmethod
    def acquire(cls, folder: Path, name: str, expires: float = EXPIRES) -> Lease | None:
        """Take the lease of a slide, or None if a living process has it.

        Args:
            folder: of the leases, the same for all processes.
            name: of the slide.
            expires: as :data:`EXPIRES`; the same for all processes.
        """
        folder.mkdir(parents=True, exist_ok=True)
        known = _leases(folder, name)
        if any(_held(path, expires) for path in known.values()):
            return None
        path = folder / f"{name}.lease-{max(known, default=-1) + 1}"
        try:
            with path.open("x", encoding="utf-8") as file:
                json.dump(_me(), file)
        except FileExistsError:
            return None
        others = [other for other in _leases(folder, name).values() if other != path]
        if any(_held(other, expires) for other in others):
            path.unlink()
            return None
        for other in others:
            other.unlink(missing_ok=True)
        return cls(path, expires)

    def check(self) -> None:
        """Make sure that the slide is still ours.

        Raises:
            Lost: if it is not, which takes that this process stood still for longer than a lease lasts.
        """
        if self.lost:
            raise Lost

    @property
    def lost(self) -> bool:
        """Whether another process took the slide."""
        return not self._path.exists()

    def release(self) -> None:
        """Let others have the slide."""
        self._stop.set()
        self._heart.join()
        self._path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(self._expires / 6):
            try:
                os.utime(self._path)
            except OSError:  # taken, or the folder cannot be reached for now; then it may be lost, which check() sees
                continue

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def owner(folder: Path, name: str, expires: float = EXPIRES) -> str | None:
    """Who holds a slide, for a person to read; None if nobody does."""
    for path in _leases(folder, name).values():
        if _held(path, expires):
            said = _said(path)
            return f"process {said.get('process', '?')} on {said.get('host', 'another machine')}"
    return None


def _leases(folder: Path, name: str) -> dict[int, Path]:
    start = f"{name}.lease-"
    found = (path for path in folder.iterdir() if path.name.startswith(start))
    return {int(path.name[len(start) :]): path for path in found if path.name[len(start) :].isdigit()}


def _held(path: Path, expires: float) -> bool:
    said = _said(path)
    me = _me()
    if said.get("machine") == me["machine"] and not alive(str(said.get("process"))):
        return False
    try:
        return _now(path.parent) - path.stat().st_mtime < expires
    except FileNotFoundError:
        return False


def _now(folder: Path) -> float:
    """The time by the file system's clock: that of a file just made."""
    probe = folder / f".now-{uuid4().hex}"
    probe.touch(exist_ok=False)
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def _said(path: Path) -> dict[str, Any]:
    """What a lease says of its owner; nothing if it is just being written or was let go."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _me() -> dict[str, Any]:
    """This process. Containers of one machine may share its name and number processes each from 1."""
    space = Path("/proc/self/ns/pid")
    machine = f"{platform.node()} {os.readlink(space) if space.is_symlink() else ''}"
    return {"host": platform.node(), "process": os.getpid(), "machine": machine}
