"""Your own patches: labels in a table, in file names, or as one folder per class. Images stay where they are.

- ``labels.csv`` in the source: a column ``image`` (path relative to the table), optionally ``split``, ``mask``,
  ``patient``, ``slide``, and one column per class with 1, 0 or empty.
- Labels in names: ``...[1101].png``, ``...[1 0 0 1].png``, ``...[1, 0, 0].png`` or ``...[1_1_0].png``; the option
  ``classes`` says what the digits stand for.
- Class folders: ``SOURCE/<class>/...``; an image has the tag of its folder and none of the others.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from eosin.core.artifact import atomic_folder
from eosin.core.classes import Classes
from eosin.core.errors import EosinError, WrongUse, nearest
from eosin.data.dataset import Row, write_dataset
from eosin.data.formats._common import (
    Names,
    Pattern,
    coloured,
    held_out,
    image_folder,
    images_below,
    in_threads,
    label_of,
    mask_folder,
    named_tags,
    partners,
    patient_in,
    present,
    safe_id,
    unlabelled,
)
from eosin.slides.image import read_mask

DESCRIPTION = "your own patches: labels.csv, labels in file names as [1 0 1], or one folder per class"

TABLE = "labels.csv"
_COLUMNS = ("image", "split", "mask", "patient", "slide")
_TAG = {"1": 1, "0": 0, "": None}

Tags = tuple[int | None, ...]


class Options(BaseModel):
    """What the files cannot say themselves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: Names = Field(default=(), description="class names in order, as tumour,stroma,necrosis")
    ignore: int = Field(default=255, ge=0, le=255, description="mask value that is not scored")
    mpp: float | None = Field(default=None, gt=0, description="um per pixel")
    licence: str = Field(default="unknown", min_length=1, description="terms of the images")
    citation: str = Field(default="", description="what to cite")
    patient: Pattern = Field(default="", description="regular expression that finds the patient in an image's path")
    val: Path | None = Field(default=None, description="folder of validation images, as val/img with masks in val/mask")
    test: Path | None = Field(default=None, description="folder of test images, likewise")
    val_fraction: float = Field(default=0.0, ge=0, lt=1, description="share to hold out, by patient where known")
    seed: int = Field(default=0, ge=0, description="which are held out")


@dataclass(frozen=True, slots=True)
class _Item:
    """One image on its way into the data set; ``tags`` is None where they are to come from the mask."""

    image: Path
    tags: Tags | None
    split: str = "train"
    mask: Path | None = None
    patient: str = ""
    slide: str = ""


def run(source: Path, dest: Path, options: Options, progress: Callable[[int, int], None]) -> None:
    """Make the data set ``dest``, an index of the images where they are.

    Raises:
        EosinError: if labels are missing or do not fit the classes, naming the file.
        WrongUse: if options contradict each other or what the source holds.
    """
    root = source if source.is_dir() else source.parent
    names, items = _training(source, options)
    classes = coloured(names, options.ignore)
    for split, folder in (("val", options.val), ("test", options.test)):
        items += [] if folder is None else _labelled(split, folder, len(classes))
    items = [_with_patient(item, root, options.patient) for item in items]
    items = _hold_out(items, options)
    items = list(in_threads(partial(_with_tags, classes), items, progress))
    with atomic_folder(dest) as folder:
        write_dataset(
            folder,
            name=root.name,
            classes=classes,
            rows=_rows(items, root),
            mpp=options.mpp,
            licence=options.licence,
            citation=options.citation,
        )


def _training(source: Path, options: Options) -> tuple[Sequence[str], list[_Item]]:
    """Class names and training items by whichever form the source has."""
    table = source / TABLE if source.is_dir() else source
    if table.is_file():
        return _from_table(table, options)
    apart = [folder.resolve() for folder in (options.val, options.test) if folder is not None]
    images = [image for image in images_below(source) if not any(image.is_relative_to(folder) for folder in apart)]
    if not images:
        raise EosinError(f"{source}: no images in it; give the folder of PNG, JPEG, BMP or TIFF files")
    if any(label_of(image.name) for image in images):
        if not options.classes:
            raise WrongUse(f"{images[0].name}: what do the digits mean? give the option classes=first,second,...")
        return options.classes, [_Item(image, named_tags(image, len(options.classes))) for image in images]
    return _from_folders(source, images, options.classes)


def _from_folders(source: Path, images: Sequence[Path], wanted: Sequence[str]) -> tuple[Sequence[str], list[_Item]]:
    parts = [image.relative_to(source).parts for image in images]
    for image, part in zip(images, parts, strict=True):
        if len(part) == 1:
            raise EosinError(
                f"{image}: no label; add {TABLE}, put labels such as [101] into the names, or make one folder per class"
            )
    found = sorted({part[0] for part in parts})
    names = list(wanted) or found
    for name in found:
        if name not in names:
            raise EosinError(f"{source / name}: no class {name!r} in the option classes{nearest(name, names)}")
    for name in names:
        if name not in found:
            raise WrongUse(f"classes: {source} has no images in a folder {name!r}{nearest(name, found)}")
    tags = {name: tuple(int(name == other) for other in names) for name in names}
    return names, [_Item(image, tags[part[0]]) for image, part in zip(images, parts, strict=True)]


def _from_table(table: Path, options: Options) -> tuple[Sequence[str], list[_Item]]:
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        header = list(reader.fieldnames or ())
        names = list(options.classes) or [column for column in header if column not in _COLUMNS]
        for column in ("image", *names):
            if column not in header:
                raise EosinError(f"{table}: line 1: column {column!r} is missing{nearest(column, header)}")
        items = [_from_line(table, reader.line_num, record, names) for record in reader]
    if not names or not items:
        raise EosinError(f"{table}: no {'items' if names else 'class columns'}; add them")
    if "split" in header and (options.val or options.test or options.val_fraction):
        raise WrongUse(f"{table}: has a column 'split'; leave out val, test and val_fraction")
    return names, items


def _from_line(table: Path, line: int, record: dict[str, str], names: Sequence[str]) -> _Item:
    for name in names:
        if record[name] not in _TAG:
            mend = "must be 1, 0 or empty (other columns are left out if the option classes names the class columns)"
            raise EosinError(f"{table}: line {line}: {name!r} is {record[name]!r}; a tag {mend}")
    if not record["image"]:
        raise EosinError(f"{table}: line {line}: no image; give its path")
    mask = record.get("mask")
    return _Item(
        image=table.parent / record["image"],
        tags=tuple(_TAG[record[name]] for name in names),
        split=record.get("split") or "train",
        mask=table.parent / mask if mask else None,
        patient=record.get("patient") or "",
        slide=record.get("slide") or "",
    )


def _labelled(split: str, folder: Path, classes: int) -> list[_Item]:
    """Images of a ``val`` or ``test`` folder with their masks, if it has any."""
    folder = folder.resolve()
    if not folder.is_dir():
        raise EosinError(f"{folder}: no such folder; correct the option {split}")
    images, apart = images_below(image_folder(folder) or folder), mask_folder(folder)
    masks = [None] * len(images) if apart is None else partners(images, apart)
    items = []
    for image, mask in zip(images, masks, strict=True):
        tags: Tags | None = named_tags(image, classes) if label_of(image.name) else None
        if tags is None and mask is None:
            tags = (None,) * classes
        items.append(_Item(image, tags, split=split, mask=mask))
    if not items:
        raise EosinError(f"{folder}: no images in it; put them into {folder / 'img'}")
    return items


def _with_patient(item: _Item, root: Path, pattern: str) -> _Item:
    return replace(item, patient=patient_in(item.image, root, pattern)) if pattern else item


def _hold_out(items: list[_Item], options: Options) -> list[_Item]:
    if options.val_fraction == 0:
        return items
    if options.val is not None:
        raise WrongUse("val and val_fraction both choose the validation images; leave one out")
    groups = {item.image: item.patient or str(item.image) for item in items if item.split == "train"}
    chosen = held_out(list(groups.values()), options.val_fraction, options.seed)
    return [replace(item, split="val") if groups.get(item.image) in chosen else item for item in items]


def _with_tags(classes: Classes, item: _Item) -> _Item:
    """Where a labelled image has no label in its name, a class is present if the mask has a pixel of it."""
    if item.tags is not None or item.mask is None:
        return item
    return replace(item, tags=present(read_mask(item.mask), len(classes)))


def _rows(items: Sequence[_Item], root: Path) -> list[Row]:
    taken: set[str] = set()
    rows = []
    for item in items:
        inside = item.image.relative_to(root) if item.image.is_relative_to(root) else Path(item.split, item.image.name)
        stem = safe_id("_".join((*inside.parent.parts, unlabelled(inside.name))))
        name = next(name for k in range(1, len(items) + 2) if (name := stem if k == 1 else f"{stem}-{k}") not in taken)
        taken.add(name)
        row = Row(
            id=name,
            split=item.split,
            image=str(item.image),
            mask=str(item.mask or ""),
            patient=item.patient,
            tags=item.tags or (),
            slide=item.slide,
            origin=item.image.name,
        )
        rows.append(row)
    return rows
