"""Typed, immutable results of steps, and the only way a result reaches the disk: written aside, then renamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from eosin.core.errors import EosinError
from eosin.core.values import Selection


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; when the block ends well, it becomes ``path`` in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("r+b") as file:  # Windows flushes only what may be written
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk is told without one
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small text file whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON whole or not at all.

    Raises:
        ValueError: for NaN and infinity, which JSON does not have and other readers refuse.
    """
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        EosinError: if it is missing or not JSON, naming the file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EosinError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise EosinError(f"{path}: not valid JSON ({error})") from None


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside ``path``; when the block ends well, it becomes ``path``, which must not exist.

    The temporary name carries the process, so that two do not meet; what a killed process left is cleared away.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        if not alive(left.name.split(".")[-2]):
            shutil.rmtree(left, ignore_errors=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            raise EosinError(f"{path}: appeared while it was being made; is another process writing there?")
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def alive(pid: str) -> bool:
    """Whether a process of this machine has that number (where that cannot be asked: yes)."""
    if os.name != "posix" or not pid.isdigit():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@dataclass(frozen=True, slots=True)
class Artifact:
    """A finished step on disk: its name, its folder and the digest of what made it."""

    name: str
    folder: Path
    digest: str


@dataclass(frozen=True, slots=True)
class Trained(Artifact):
    """Weights of a learner (``weights.safetensors``) and how it was built and selected (``step.json``)."""

    selection: Selection = "last"


@dataclass(frozen=True, slots=True)
class MaskSet(Artifact):
    """One mask per training item: ``<folder>/<id>.png``, 8-bit class indices, 255 for "not trained"."""

    def path(self, item: str) -> Path:
        """The mask file of an item."""
        return self.folder / f"{item}.png"


@dataclass(frozen=True, slots=True)
class Vectors(Artifact):
    """One vector per training item, in their order, beside its tags.

    The file is of safetensors: ``vectors`` float32 ``[N, D]`` and ``tags`` float32 ``[N, K]``, NaN where unknown.
    """

    FILE: ClassVar[str] = "vectors.safetensors"
