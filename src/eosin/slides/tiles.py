"""What reading single tiles of a file needs: bytes at a position, for many threads, and a memory of decoded tiles."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Hashable
from pathlib import Path
from threading import Lock

from eosin.slides.slide import BadSlide, Pixels

HELD = 32 * 2**20
"""Bytes of decoded tiles that are remembered for each open slide."""


class Positioned:
    """A file that many threads read at positions of their own.

    By ``pread`` where the system has it; elsewhere one thread seeks and reads at a time.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, Lock()
        self._file = path.open("rb", buffering=0)
        self.size = os.fstat(self._file.fileno()).st_size

    def read(self, offset: int, count: int) -> bytes:
        """Read ``count`` bytes from ``offset`` on.

        Raises:
            BadSlide: if the file has fewer, or the disk fails.
        """
        try:
            if hasattr(os, "pread"):
                data = os.pread(self._file.fileno(), count, offset)
            else:
                with self._lock:
                    self._file.seek(offset)
                    data = self._file.read(count) or b""
        except OSError as error:
            raise BadSlide(f"{self._path}: cannot be read at byte {offset} ({error.strerror})") from None
        if len(data) != count:
            raise BadSlide(f"{self._path}: ends before byte {offset + count}; copy it again from its source")
        return data

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class Memory:
    """The tiles that were asked for last, up to a number of bytes; safe for many threads."""

    def __init__(self, most: int = HELD) -> None:
        self._most, self._held, self._lock = most, 0, Lock()
        self._tiles: OrderedDict[Hashable, Pixels] = OrderedDict()

    def get(self, key: Hashable) -> Pixels | None:
        """A tile, if it is remembered."""
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
            return self._tiles.get(key)

    def put(self, key: Hashable, tile: Pixels) -> None:
        """Remember a tile and forget those that were not asked for longest."""
        with self._lock:
            if key in self._tiles:  # another thread was faster
                return
            self._tiles[key] = tile
            self._held += tile.nbytes
            while self._held > self._most:
                self._held -= self._tiles.popitem(last=False)[1].nbytes
