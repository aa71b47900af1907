"""Releases of tagged patches with whole parts for validation and test, as BCSS-WSSS: indexed where they are.

Training images have their labels in their names and no masks. Images of ``val`` and ``test`` have masks; a class is
tagged present there if the mask has a pixel of it. Nothing is copied; a mask is written only where that of the release
is not one class index per pixel, or where a background mask overrules it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from eosin.core.artifact import atomic_folder
from eosin.core.errors import EosinError
from eosin.data.dataset import Row, write_dataset
from eosin.data.formats._common import (
    in_threads,
    masked,
    named_tags,
    overlaps,
    partners,
    parts,
    present,
    safe_id,
    subfolder,
    tagged,
    tcga_patient,
    unlabelled,
)
from eosin.data.formats._masks import Coding, mask_mode, read_coded
from eosin.slides.image import image_size, png_bytes, read_mask

_PLACED = re.compile(r"(.+)-\d+-\d+$")

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Source:
    """What a file name tells of where a patch is from; empty where it does not tell."""

    patient: str = ""
    slide: str = ""
    parent: str = ""


def placed_source(name: str) -> Source:
    """The patient in ``patient-x-y``, as LUAD-HistoSeg and WSSS4LUAD name patches; of a TCGA barcode its case."""
    found = _PLACED.match(name)
    return Source(tcga_patient(found[1]) or found[1]) if found else Source()


@dataclass(frozen=True, slots=True)
class Release:
    """One release: what it is called, how its masks are coded, its terms, and what its file names mean.

    Attributes:
        name: of the data set.
        coding: of the masks.
        mpp: micrometres per pixel, or None.
        licence: the terms.
        citation: what to cite.
        source_of: reads a file name without label and ending.
        not_ours: how the images of another format are named whose labels have as many digits, and that format.
    """

    name: str
    coding: Coding
    mpp: float | None
    licence: str
    citation: str
    source_of: Callable[[str], Source]
    not_ours: tuple[re.Pattern[str], str] | None = None


@dataclass(frozen=True, slots=True)
class _Image:
    split: str
    image: Path
    mask: Path | None = None
    white: Path | None = None


def write_release(source: Path, dest: Path, release: Release, progress: Callable[[int, int], None]) -> None:
    """Make the data set ``dest``, an index of the release.

    Raises:
        EosinError: if a part, a mask or a label is missing, or says something else than the classes, naming the file.
    """
    images = _images(source)
    with atomic_folder(dest) as folder:
        rows = list(in_threads(partial(_row, folder, release), images, progress))
        write_dataset(
            folder,
            name=release.name,
            classes=release.coding.classes,
            rows=rows,
            mpp=release.mpp,
            licence=release.licence,
            citation=release.citation,
            known=overlaps(rows, "the parts of the release share it"),
        )


def _images(source: Path) -> list[_Image]:
    folders = parts(source)
    if "train" not in folders:
        raise EosinError(f"{source}: no folder train or training in it; give the folder that holds all parts")
    images = [_Image("train", image) for image in tagged(folders["train"])]
    for split in ("val", "test"):
        if split in folders:
            pairs = masked(folders[split])
            apart = subfolder(folders[split], "background mask", "background")
            whites = [None] * len(pairs) if apart is None else partners([image for image, _ in pairs], apart)
            images += [_Image(split, *pair, white) for pair, white in zip(pairs, whites, strict=True)]
    return images


def _row(folder: Path, release: Release, image: _Image) -> Row:
    name = unlabelled(image.image.name)
    where = release.source_of(name)
    row = Row(
        id=safe_id(f"{image.split}_{name}"),
        split=image.split,
        image=str(image.image),
        patient=where.patient,
        slide=where.slide,
        parent=where.parent,
        origin=image.image.name,
    )
    classes = release.coding.classes
    if image.mask is None:
        _refuse_foreign(image.image, name, release)
        return replace(row, tags=named_tags(image.image, len(classes)))
    mask, size = read_coded(image.mask, release.coding), image_size(image.image)
    if mask.shape != size:
        sizes = f"{mask.shape[1]} x {mask.shape[0]} px where its image has {size[1]} x {size[0]}"
        raise EosinError(f"{image.mask}: {sizes}; take both from the same release")
    row = replace(row, mask=str(image.mask))
    if image.white is not None or mask_mode(image.mask) not in ("L", "P"):
        mask = _without_white(mask, image.white, classes.ignore)
        row = replace(row, mask=f"{image.split}/masks/{row.id}.png")
        (folder / row.mask).parent.mkdir(parents=True, exist_ok=True)
        (folder / row.mask).write_bytes(png_bytes(mask, classes))
    return replace(row, tags=present(mask, len(classes)))


def _refuse_foreign(image: Path, name: str, release: Release) -> None:
    """Labels with as many digits would be read in the wrong order, without any sign of it."""
    if release.not_ours is not None and release.not_ours[0].search(name):
        other = release.not_ours[1]
        raise EosinError(f"{image}: is named as those of {other}, not of {release.name}; import it as {other}")


def _without_white(mask: Array, file: Path | None, ignore: int) -> Array:
    """What the background mask has as white (1 or 255) is not scored."""
    if file is None:
        return mask
    white = read_mask(file)
    if white.shape != mask.shape or not set(np.unique(white).tolist()) <= {0, 1, 255}:
        raise EosinError(f"{file}: not the background mask of its image (0, and 1 or 255 where white); copy it again")
    return np.where(white > 0, np.uint8(ignore), mask)
