"""What the process does with the memory that large tensors leave behind."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

# Options of glibc's mallopt, and what holds after the block: blocks of 32 MiB are mapped on their own, and 64 MiB kept
# free, which glibc itself comes to in a process that has freed such blocks.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_WITHIN = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}
_AFTER = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20}


@contextmanager
def kept_memory() -> Iterator[None]:
    """Freed memory stays with the process for what is allocated next; at the end it goes back to the system.

    A training step on a CPU allocates the same activations again and again. glibc maps each that is larger than
    32 MiB, and the kernel fills it with zeros page by page, which takes up to a third of the time. Nothing is done
    where the C library is another one (macOS, Windows, musl), or where the environment has settings of its own for it.
    Not to be nested: the inner block's end is that of the outer one.
    """
    library = _glibc()
    if library is None:
        yield
        return
    _set(library, _WITHIN)
    try:
        yield
    finally:
        _set(library, _AFTER)
        library.malloc_trim(0)


def _set(library: ctypes.CDLL, options: dict[int, int]) -> None:
    for option, value in options.items():
        library.mallopt(option, value)


def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is glibc and nobody has told it what to do."""
    if any(name.startswith("MALLOC_") for name in os.environ) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return None
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows
        return None
    return library if hasattr(library, "gnu_get_libc_version") else None
