"""What importers share: finding images, holding out patients, names and colours."""

from __future__ import annotations

import colorsys
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from pydantic import BeforeValidator

from eosin.core.classes import Classes, Tissue
from eosin.core.errors import WrongUse
from eosin.slides.image import read_mask

T = TypeVar("T")
R = TypeVar("R")

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

# Okabe and Ito's colours, told apart by colour-blind eyes and against pink and violet; black and yellow left out.
_COLOURS = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0), (86, 180, 233), (204, 121, 167))


def _commas(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_commas)]
"""Several names, which the command line gives as ``a,b,c``."""


def images_below(folder: Path) -> list[Path]:
    """All image files of a folder and its subfolders, in natural order (2 before 10); hidden ones are left out."""
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root, name) for name in files if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
    return sorted(found, key=natural)


def natural(path: Path) -> list[tuple[int, str]]:
    """A sorting key that reads digits as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.as_posix())]


def coloured(names: Sequence[str], ignore: int = 255) -> Classes:
    """Classes with colours of our choice."""
    turns = [colorsys.hsv_to_rgb(k / len(names), 0.75, 0.85) for k in range(len(names))]
    colours = (
        _COLOURS if len(names) <= len(_COLOURS) else [(int(r * 255), int(g * 255), int(b * 255)) for r, g, b in turns]
    )
    tissues = [Tissue(name=name, colour=colour) for name, colour in zip(names, colours, strict=False)]
    return Classes(tissues=tuple(tissues), ignore=ignore)


def held_out(groups: Sequence[str], fraction: float, seed: int) -> set[str]:
    """Choose groups (patients, or single images) for validation.

    They are visited in a seeded order, and each is taken that brings the number of held-out items nearer to
    ``fraction`` of all; at least one group is taken and one is left.

    Args:
        groups: the group of every item.
        fraction: share of the items to hold out, in 0..1; 0 holds out nothing.
        seed: of the order.

    Raises:
        WrongUse: if there is but one group.
    """
    if fraction == 0:
        return set()
    names, counts = np.unique(np.array(groups), return_counts=True)
    if len(names) < 2:
        raise WrongUse(f"cannot hold out {fraction:.0%}: all items are of one patient or one image; use val_fraction=0")
    target, taken = fraction * len(groups), 0
    chosen: set[str] = set()
    for at in np.random.default_rng(seed).permutation(len(names)):
        nearer = abs(taken + counts[at] - target) < abs(taken - target)
        if (nearer or not chosen) and len(chosen) < len(names) - 1:
            chosen.add(str(names[at]))
            taken += int(counts[at])
    return chosen


def safe_id(name: str) -> str:
    """A name of letters, digits and ``. _ -`` alone."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("_-.") or "item"


def mask_shares(path: Path, classes: int) -> np.ndarray:
    """Share of each class in a mask file, float64 ``[K]``."""
    mask = read_mask(path)
    return np.bincount(mask.ravel(), minlength=256)[:classes] / mask.size


def in_threads(work: Callable[[T], R], things: Sequence[T], progress: Callable[[int, int], None]) -> Iterator[R]:
    """``map`` in as many threads as there are cores, in order, counting progress."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, result in enumerate(pool.map(work, things), start=1):
            yield result
            progress(done, len(things))
