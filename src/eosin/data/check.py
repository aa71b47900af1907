"""Every defect of a data set in one list, before any of them can spoil a training or a score."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from eosin.core.classes import Classes
from eosin.data.advice import Size, together
from eosin.data.contract import HEAD, ITEMS, WHOLE, Finding, Head, Table, read_contract
from eosin.data.dataset import Dataset, ordered_splits
from eosin.slides.image import BadImage, read_mask, read_palette, read_rgb

Array = np.ndarray

_CHUNK = 64  # rows a thread takes at a time
_SHOWN = 10  # names written out in one line
_NO_LICENCE = ("", "unknown", "none", "?", "tbd", "n/a")
_TRAIN = "train"


def check(folder: Path | str, progress: Callable[[int, int], None] | None = None) -> list[Finding]:
    """List every defect of a data set; the data set is sound if no finding is an ``error``.

    Args:
        folder: the data set.
        progress: called with (images done, images in all).

    Returns:
        Findings: of the two text files first, then of images and masks in the order of ``items.csv``, then of the data
        set as a whole. Kinds declared in ``known`` of ``dataset.yaml`` are one warning each. Never raises for a defect.
    """
    contract = read_contract(Path(folder).resolve())
    findings = list(contract.findings)
    head, table = contract.head, contract.table
    if head is None or table is None:
        return findings
    looks = _look_at_all(contract.folder, head, table, progress)
    for look in looks:
        findings += look.findings
    findings += _duplicates(table, looks, contract.folder)
    # what is broken is told by its own line, and no advice is built on it
    sizes = [None if look.findings else look.size for look in looks]
    findings += table_findings(contract.folder, head, table, sizes)
    return _declared(findings, head.known, contract.folder / HEAD)


@dataclass(frozen=True, slots=True)
class _Look:
    """What was seen of one item: its findings, its height and width, and the digest of its pixels (empty if unread)."""

    findings: tuple[Finding, ...]
    size: Size | None
    digest: bytes


def _look_at_all(
    folder: Path, head: Head, table: Table, progress: Callable[[int, int], None] | None
) -> Sequence[_Look]:
    """Decode all images and masks; Pillow lets go of the interpreter lock while it decodes, so threads are enough."""
    classes, total = head.tissues(), len(table)

    def chunk(start: int) -> list[_Look]:
        return [_look(folder, head, classes, table, row) for row in range(start, min(start + _CHUNK, total))]

    looks: list[_Look] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in pool.map(chunk, range(0, total, _CHUNK)):
            looks += done
            if progress is not None:
                progress(len(looks), total)
    return looks


def _look(folder: Path, head: Head, classes: Classes, table: Table, row: int) -> _Look:
    found: list[Finding] = []
    image_path, mask_path = (str(column[row], "utf-8") for column in (table.image, table.mask))
    size: Size | None = None
    digest = b""
    if image_path:
        try:
            image = read_rgb(folder / image_path)
            size = (image.shape[0], image.shape[1])
            pixels = hashlib.blake2b(repr(size).encode(), digest_size=16)
            pixels.update(image.data)
            digest = pixels.digest()
        except BadImage as error:
            found.append(_bad(folder / image_path, error, "image"))
    if mask_path:
        file = folder / mask_path
        try:
            mask = read_mask(file)
        except BadImage as error:
            found.append(_bad(file, error, "mask"))
        else:
            if size is not None and size != mask.shape:
                shapes = f"{mask.shape[1]} x {mask.shape[0]} px where its image has {size[1]} x {size[0]}"
                found.append(Finding("error", file, f"{shapes}; a mask has the size of its image", "size"))
            counts = np.bincount(mask.ravel(), minlength=256)
            values = _values(file, counts, classes)
            found += values or _contradictions(head, table, row, counts / mask.size, folder / ITEMS)
    return _Look(tuple(found), size, digest)


def _bad(file: Path, error: BadImage, kind: str) -> Finding:
    return Finding("error", file, str(error).removeprefix(f"{file}: "), kind)


def _values(file: Path, counts: Array, classes: Classes) -> list[Finding]:
    """Mask values must be classes, and the palette must not say otherwise."""
    legal = np.zeros(256, bool)
    legal[: len(classes)] = legal[classes.ignore] = True
    strange = np.flatnonzero((counts > 0) & ~legal)
    palette = read_palette(file)
    if len(strange):
        values = _some([str(value) for value in strange])
        allowed = f"0..{len(classes) - 1} or {classes.ignore} (ignore)"
        if palette is not None:
            message = f"palette indices {values} are not {allowed}; write the class as the index of each pixel"
        else:
            message = f"values {values} are not {allowed}; map each value to its class"
        return [Finding("error", file, message, "value")]
    return [] if palette is None else _palette(file, counts[: len(palette)], palette, classes)


def _palette(file: Path, counts: Array, palette: Array, classes: Classes) -> list[Finding]:
    """Warn of a mask that looks right in a viewer and means something else: the colour of one class at another."""
    colours = {tissue.colour: index for index, tissue in enumerate(classes)}
    for index in np.flatnonzero(counts[: len(classes)]):
        red, green, blue = map(int, palette[index])
        meant = colours.get((red, green, blue), index)
        if meant != index and len(colours) == len(classes):
            message = (
                f"palette index {index} ({classes.names[index]!r}) has the colour of class {classes.names[meant]!r}"
                f" ({meant}); the index counts, so write the class as the index of each pixel"
            )
            return [Finding("warning", file, message, "palette")]
    return []


def _contradictions(head: Head, table: Table, row: int, shares: Array, file: Path) -> list[Finding]:
    """Tags against the mask: absent but covering more than the tag rule allows, or present without a pixel."""
    found = []
    most = head.tag_rule.min_fraction if head.tag_rule else 0.0
    for index, tissue in enumerate(head.classes):
        tag, share = table.tags[row, index], shares[index]
        if tag == 0 and share > most:
            problem = f"is 0 but its mask has {share:.2%} of it (allowed: {most:.2%})"
        elif tag == 1 and share == 0:
            problem = "is 1 but its mask has none of it"
        else:
            continue
        message = (
            f"line {table.line[row]}: tag {tissue.name!r} of {str(table.ids[row])!r} {problem}; correct one of them"
        )
        found.append(Finding("error", file, message, "tags_contradict"))
    return found


def _duplicates(table: Table, looks: Sequence[_Look], folder: Path) -> list[Finding]:
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row, look in enumerate(looks):
        if look.digest:
            groups[look.digest].append(row)
    found = []
    for rows in groups.values():
        if len(rows) > 1:
            items = _some([f"{str(table.ids[row])!r} ({table.split[row]}, line {table.line[row]})" for row in rows])
            file = folder / str(table.image[rows[1]], "utf-8")
            message = f"the same pixels in {len(rows)} items: {items}; keep one"
            found.append(Finding("error", file, message, "duplicate_image"))
    return found


def table_findings(folder: Path, head: Head, table: Table, sizes: Sequence[Size | None] = ()) -> Iterable[Finding]:
    """Findings about the data set as a whole, which its two text files tell.

    Args:
        folder: the data set.
        head: its ``dataset.yaml``.
        table: its items.
        sizes: what was seen of the images, for advice on tiles; see :func:`eosin.data.advice.together`.
    """
    head_file, items_file = folder / HEAD, folder / ITEMS
    present = ordered_splits(table)
    for split in head.splits or (_TRAIN,):
        if split not in present:
            message = f"split {split!r} has no items; add some, or give 'splits' in {HEAD} without it"
            yield Finding("error", items_file, message, "empty_split")
    yield from _overlaps(table, items_file)
    train = table.tags[table.split == _TRAIN]
    if len(train):
        yield from _indistinct(train, head, table.lacking, items_file)
        yield from together(folder, head, table, sizes)
    if head.licence.strip().lower() in _NO_LICENCE:
        message = f"licence {head.licence!r}; find out the terms before a model of this data leaves the house"
        yield Finding("warning", head_file, message, "licence")
    if head.mpp is None:
        message = "no mpp (um per pixel): areas cannot be given in mm2; set mpp"
        yield Finding("warning", head_file, message, "mpp")


def _overlaps(table: Table, file: Path) -> Iterable[Finding]:
    """Patients, slides and parent images in two splits: what is learnt there by heart is scored as knowledge."""
    # An image that others name as their parent is of that image itself; whole ones beside their patches are no split
    alone = (table.parent == "") & (table.split != WHOLE) & np.isin(table.ids, table.parent)
    parents = np.where(alone, table.ids, table.parent)
    units = (
        ("patient", "patient", table.patient),
        ("slide", "slide", table.slide),
        ("parent", "parent image", parents),
    )
    for column, what, names in units:
        where: dict[str, dict[str, int]] = defaultdict(dict)
        for row in np.flatnonzero(names != ""):
            where[str(names[row])].setdefault(str(table.split[row]), int(table.line[row]))
        shared: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for name, lines in where.items():
            if len(lines) > 1:
                shared[tuple(lines)].append(f"{name!r} (lines {', '.join(map(str, lines.values()))})")
        for splits, those in shared.items():
            message = f"{what} in two splits ({' and '.join(splits)}): {_some(those)}; move each into one split"
            yield Finding("error", file, message, f"{column}_overlap")
    splits = ordered_splits(table)
    nameless = [split for split in splits if not (table.patient[table.split == split] != "").any()]
    if len(splits) > 1 and nameless:
        of = "" if nameless == list(splits) else f" of {' or '.join(nameless)}"
        message = f"no item{of} names its patient, so that patients in two splits cannot be found; fill the column"
        yield Finding("warning", file, message, "patient")


def _indistinct(tags: Array, head: Head, lacking: tuple[str, ...], file: Path) -> Iterable[Finding]:
    """Classes that the tags of the training items cannot teach."""
    names = [tissue.name for tissue in head.classes]
    ever = (tags == 1).any(axis=0)
    for index in (k for k in np.flatnonzero(~ever) if names[k] not in lacking):
        what, mend = "is on no training item", "add some"
        if np.isnan(tags[:, index]).all():
            what, mend = "has no known tag on a training item", "fill its column"
        message = f"class {names[index]!r} {what}; {mend}, or leave it out of {HEAD}"
        yield Finding("error", file, message, "absent_class")
    for index in np.flatnonzero(ever & ~(tags == 0).any(axis=0)):
        message = f"class {names[index]!r} is never absent from a training item, so that tags say nothing about it"
        yield Finding("warning", file, f"{message}; add items without it", "always_present")


def _declared(findings: Sequence[Finding], known: dict[str, str], file: Path) -> list[Finding]:
    """Turn the findings of each declared kind into one warning; say which declarations found nothing."""
    kept = [finding for finding in findings if finding.kind not in known]
    for kind, reason in known.items():
        those = [finding for finding in findings if finding.kind == kind]
        if those:
            more = f" (and {len(those) - 1} more)" if len(those) > 1 else ""
            kept.append(replace(those[0], level="warning", message=f"{those[0].message}{more} [known: {reason}]"))
        else:
            kept.append(Finding("warning", file, f"known.{kind} is declared but not found; remove it", "known"))
    return kept


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def summary(dataset: Dataset) -> dict[str, Any]:
    """Numbers for a data card, ready for JSON.

    Returns:
        ``name``, ``classes``, ``mpp``, ``licence``, ``digest``, and under ``splits`` for each split: ``images``,
        ``masks``, ``patients`` and ``slides`` (distinct names; 0 where unknown), ``tags`` (per class ``present``,
        ``absent``, ``unknown``) and ``cooccurrence`` (``[K][K]`` items that hold both classes).
    """
    splits = {}
    for split in dataset.splits:
        items, truth = dataset.items(split), dataset.truth(split)
        present = (items.tags == 1).astype(np.int64)
        splits[split] = {
            "images": len(items),
            "masks": 0 if truth is None else len(truth),
            "patients": _distinct(items.patients),
            "slides": _distinct(items.slides),
            "tags": {
                name: {
                    "present": int(present[:, k].sum()),
                    "absent": int((items.tags[:, k] == 0).sum()),
                    "unknown": int(np.isnan(items.tags[:, k]).sum()),
                }
                for k, name in enumerate(dataset.classes.names)
            },
            "cooccurrence": (present.T @ present).tolist(),
        }
    return {
        "name": dataset.name,
        "classes": list(dataset.classes.names),
        "mpp": dataset.mpp,
        "licence": dataset.licence,
        "digest": dataset.digest,
        "splits": splits,
    }


def _distinct(names: Array) -> int:
    return len(np.unique(names[names != ""]))
