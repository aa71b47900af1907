"""A second witness of what is read: the kernel, which also sees files that C code opens."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

_OPENED = 0x20  # IN_OPEN
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows


class Opened:
    """The names of the files of a folder that any process opens, from now on. Linux only."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._queue = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._queue < 0 or libc.inotify_add_watch(self._queue, os.fsencode(folder), _OPENED) < 0:
            raise OSError(ctypes.get_errno(), f"{folder} cannot be watched")

    def names(self) -> set[str]:
        """What was opened so far; ends the watch."""
        found: set[str] = set()
        with os.fdopen(self._queue, "rb", buffering=0) as queue:
            while events := queue.read(1 << 20):
                at = 0
                while at < len(events):
                    _, _, _, length = _EVENT.unpack_from(events, at)
                    at += _EVENT.size + length
                    found.add(os.fsdecode(events[at - length : at].rstrip(b"\0")))
        return found
