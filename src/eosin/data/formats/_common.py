"""What importers share: finding images, their parts and partners, labels in names, holding out patients, colours."""

from __future__ import annotations

import colorsys
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from pydantic import AfterValidator, BeforeValidator

from eosin.core.classes import Classes, Tissue
from eosin.core.errors import EosinError, WrongUse
from eosin.data.dataset import Row

T = TypeVar("T")
R = TypeVar("R")

Array = np.ndarray

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

LEFT_OUT = "left-out.txt"
"""The file of a data set in which an importer lists what it did not take, and why."""

# Where tags are cut from masks, a class is present if it covers more than this share of the pixels, as in OEEM.
MIN_FRACTION = 0.05

GLANDS = Classes(tissues=(Tissue(name="rest", colour=(0, 130, 200)), Tissue(name="gland", colour=(245, 130, 48))))

# How releases spell the parts, apart from capitals and a number before a dot, as in ``2.validation``.
_PARTS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_LABEL = re.compile(r"\[([01][01 ,_]*)\](?=\.[A-Za-z]+$)")
_TCGA = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}")

# Okabe and Ito's blue, orange, green and sky, with others between: any two of them are 16 or more in CIEDE2000 apart,
# to normal, protan and deutan eyes.
_COLOURS = (
    *((0, 114, 178), (230, 159, 0), (0, 158, 115), (175, 25, 0), (86, 180, 233), (75, 0, 50)),
    *((230, 165, 180), (185, 255, 185), (255, 255, 15), (85, 80, 70)),
)


def _commas(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_commas)]
"""Several names, which the command line gives as ``a,b,c``."""


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression ({error})") from None
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]
"""A regular expression."""


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


def label_of(name: str) -> tuple[int, ...] | None:
    """The tags in a file name's last brackets, or None: ``"a-[1, 0, 0].png"`` is ``(1, 0, 0)``."""
    found = _LABEL.search(name)
    return tuple(int(digit) for digit in found[1] if digit in "01") if found else None


def unlabelled(name: str) -> str:
    """A file name without its label and its ending: ``"a-[1, 0, 0].png"`` is ``"a"``."""
    return Path(_LABEL.sub("", name)).stem.rstrip("-_ ")


def named_tags(image: Path, classes: int) -> tuple[int, ...]:
    """The tags in an image's name.

    Raises:
        EosinError: if there are none, or not one for each class.
    """
    tags = label_of(image.name)
    if tags is None:
        raise EosinError(
            f"{image}: no label such as [{'1' * classes}] before the ending, as other files have; rename it"
        )
    if len(tags) != classes:
        raise EosinError(f"{image}: {len(tags)} digits in the label for {classes} classes; correct one of the two")
    return tags


def parts(source: Path) -> dict[str, Path]:
    """The folders of ``train``, ``val`` and ``test`` that are there, however spelt, in the source or one level below.

    Raises:
        EosinError: if there is none, or one of them twice, or several folders hold parts, as those of two releases.
    """
    if not source.is_dir():
        raise EosinError(f"{source}: is no folder; give the folder that holds train, val and test")
    found = _parts_in(source)
    if found:
        return found
    inner = (
        folder for folder in sorted(source.iterdir()) if folder.is_dir() and not folder.name.startswith((".", "_"))
    )
    below = {folder.name: found for folder in inner if (found := _parts_in(folder))}
    if len(below) > 1:
        raise EosinError(f"{source}: train, val or test are in each of {', '.join(below)}; give one of these folders")
    if not below:
        raise EosinError(f"{source}: no folder train, val or test in it; give the folder that holds them")
    return next(iter(below.values()))


def _parts_in(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        spelt = re.sub(r"^\d+\.\s*", "", folder.name.lower())
        part = next((part for part, names in _PARTS.items() if spelt in names), None)
        if part in found:
            raise EosinError(f"{folder}: is {part!r} and so is {found[part].name!r}; remove one of the two")
        if part is not None:
            found[part] = folder
    return found


def subfolder(folder: Path, *names: str) -> Path | None:
    """The subfolder of the first name that is there, or None; capitals, blanks, - and _ are all one."""
    spelt = {re.sub("[-_]", " ", path.name.lower()): path for path in sorted(folder.iterdir()) if path.is_dir()}
    return next((spelt[name] for name in names if name in spelt), None)


def image_folder(folder: Path) -> Path | None:
    """Where a part keeps its images, if in a subfolder."""
    return subfolder(folder, "img", "images", "image")


def mask_folder(folder: Path) -> Path | None:
    """Where a part keeps its masks, if it has any."""
    return subfolder(folder, "mask", "masks", "label", "labels")


def partners(images: Sequence[Path], folder: Path) -> list[Path]:
    """The file of the same stem in another folder, for each image.

    Raises:
        EosinError: if an image has none.
    """
    files = {path.stem: path for path in images_below(folder)}
    for image in images:
        if image.stem not in files:
            raise EosinError(f"{image}: no mask of this name in {folder}; add it or remove the image")
    return [files[image.stem] for image in images]


def masked(folder: Path) -> list[tuple[Path, Path]]:
    """The images of a validation or test part with their masks.

    Raises:
        EosinError: if there are no images, or one has no mask.
    """
    inside, masks = image_folder(folder), mask_folder(folder)
    images = [] if inside is None else images_below(inside)
    if masks is None or not images:
        raise EosinError(f"{folder}: needs subfolders img and mask with images in them; copy it again from its source")
    return list(zip(images, partners(images, masks), strict=True))


def tagged(folder: Path) -> list[Path]:
    """The images of a training part, which have their labels in their names.

    Raises:
        EosinError: if there are none.
    """
    images = images_below(image_folder(folder) or folder)
    if not images:
        raise EosinError(f"{folder}: no images in it; copy it again from its source")
    return images


def tcga_patient(name: str) -> str:
    """The patient in a TCGA barcode, its first three fields; empty if the name does not begin with one."""
    found = _TCGA.match(name)
    return found[0] if found else ""


def overlaps(rows: Iterable[Row], reason: str) -> dict[str, str]:
    """What ``known`` must declare: patients, slides or parent images that are in two splits, with the reason."""
    rows = list(rows)
    found = {}
    for column in ("patient", "slide", "parent"):
        pairs = {(getattr(row, column), row.split) for row in rows if getattr(row, column)}
        if len(pairs) > len({name for name, _ in pairs}):
            found[f"{column}_overlap"] = reason
    return found


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


def three_ways(groups: Sequence[str], val: float, test: float, seed: int) -> dict[str, str]:
    """Deal groups to ``train``, ``val`` and ``test``; see :func:`held_out`.

    Args:
        groups: the group of every item.
        val: share of the items for validation, in 0..1.
        test: share of the items for the test, likewise.
        seed: of the order.

    Raises:
        WrongUse: if the shares leave nothing for training.
    """
    if val + test >= 1:
        raise WrongUse("val_fraction, test_fraction: they leave nothing for training; choose smaller shares")
    tests = held_out(groups, test, seed)
    vals = held_out([group for group in groups if group not in tests], val / (1 - test), seed)
    return {group: "test" if group in tests else "val" if group in vals else "train" for group in groups}


def patient_in(path: Path, root: Path, pattern: str) -> str:
    """The patient in a path below ``root``: the first group of a regular expression, or the whole match.

    Returns:
        The patient; empty if the pattern is.

    Raises:
        EosinError: if nothing is found.
    """
    if not pattern:
        return ""
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    found = re.search(pattern, name)
    if found is None:
        raise EosinError(f"{path}: the expression {pattern!r} finds no patient in {name!r}; correct it")
    return str(found[1] if found.re.groups else found[0])


def safe_id(name: str) -> str:
    """A name of letters, digits and ``. _ -`` alone."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("_-.") or "item"


def present(mask: Array, classes: int, above: float = 0.0) -> tuple[int, ...]:
    """Tags of a mask: 1 for each class that covers more than a share of the pixels, white ones included."""
    shares = np.bincount(mask.ravel(), minlength=256)[:classes] / mask.size
    return tuple(int(share > above) for share in shares)


def in_threads(work: Callable[[T], R], things: Sequence[T], progress: Callable[[int, int], None]) -> Iterator[R]:
    """``map`` in as many threads as there are cores, in order, counting progress."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, result in enumerate(pool.map(work, things), start=1):
            yield result
            progress(done, len(things))
