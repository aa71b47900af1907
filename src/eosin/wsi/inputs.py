"""What is predicted: the files behind the names a person gave, a folder of results for each, and what became of it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eosin.core.errors import EosinError
from eosin.slides.open import is_slide
from eosin.slides.slide import ENDINGS as SLIDES

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
"""Endings of the images, and of slides in TIFF, that are taken from a folder; a named file may have any."""


@dataclass(frozen=True, slots=True)
class Job:
    """An image or a slide, and the folder of its results, whose name is what results call it."""

    source: Path
    folder: Path

    @property
    def name(self) -> str:
        """That of the folder."""
        return self.folder.name


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one image or slide: its file, the folder of its results, one line of reason unless it was done.

    ``seconds`` pass from the beginning of its prediction to its last file.
    """

    source: Path
    folder: Path
    state: Literal["done", "skipped", "failed"]
    reason: str = ""
    seconds: float = 0.0


def jobs(inputs: Sequence[Path], out: Path) -> list[Job]:
    """Take files, and all images and slides of folders, each once, folders sorted; give each a folder of its own.

    A folder is called as the file without its ending; where two files share that, a part of the digest of their place
    is added. Names are compared without case, as some file systems do.

    Args:
        inputs: files or folders.
        out: folder of all results.

    Raises:
        EosinError: if a folder holds neither images nor slides.
    """
    sources = _expanded(inputs)
    stems = [source.stem.strip(". ") or "image" for source in sources]
    often = Counter(stem.casefold() for stem in stems)
    places = [hashlib.sha256(os.path.abspath(source).encode()).hexdigest()[:8] for source in sources]
    return [
        Job(source, out / (stem if often[stem.casefold()] == 1 else f"{stem}-{place}"))
        for source, stem, place in zip(sources, stems, places, strict=True)
    ]


def goes_as_slide(source: Path, sized: bool) -> bool:
    """Whether a file is predicted as a slide, at the model's pixel size, and not as an image, pixel by pixel.

    Args:
        source: the file.
        sized: whether the user said how large pixels are, which makes a slide of an image.
    """
    return sized or source.suffix.lower() in SLIDES or (source.is_file() and is_slide(source))


def one_line(error: BaseException) -> str:
    """What is wrong, in one line."""
    return " ".join(str(error).split())


def identity(source: Path) -> dict[str, Any]:
    """By what a file is known again: name, size and time of change.

    Raises:
        OSError: if it cannot be looked at.
    """
    state = source.stat()
    return {"source": source.name, "bytes": state.st_size, "modified_ns": state.st_mtime_ns}


def _expanded(inputs: Sequence[Path]) -> list[Path]:
    """The files themselves, each once."""
    found: dict[str, Path] = {}
    endings = (*IMAGES, *SLIDES)
    for path in inputs:
        inside = [path]
        if path.is_dir():
            files = (p for p in path.iterdir() if not p.is_dir() and not p.name.startswith("."))
            inside = sorted(p for p in files if p.suffix.lower() in endings)
            if not inside:
                raise EosinError(f"{path}: no image or slide in this folder; it should hold {' '.join(endings)} files")
        for file in inside:
            found.setdefault(os.path.abspath(file), file)
    return list(found.values())
