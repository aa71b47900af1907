"""The data set a program works with: columns that are cheap to send to workers, and truth kept apart from them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from eosin.core.artifact import write_text
from eosin.core.classes import Classes
from eosin.core.errors import EosinError, WrongUse, nearest
from eosin.data.contract import (
    FIXED,
    HEAD,
    ITEMS,
    Finding,
    Fold,
    Objects,
    Table,
    parse_head,
    parse_table,
    read_contract,
)

Array = np.ndarray

_FIRST = ("train", "val", "test")


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """The weak view of a split: images and tags, and no path to a mask.

    Attributes:
        folder: the data set's folder, to which relative paths refer.
        ids: str ``[N]``, unique names.
        images: UTF-8 bytes ``[N]``; use :meth:`path`.
        tags: float32 ``[N, K]``, 1 present, 0 absent, NaN unknown.
        patients: str ``[N]``, empty where unknown.
        slides: str ``[N]``, empty where unknown.
        parents: str ``[N]``, the image an item was cut from, empty where unknown.
        xy: int32 ``[N, 2]``, left and top corner in the parent in pixels, -1 where unknown.
    """

    folder: Path
    ids: Array
    images: Array
    tags: Array
    patients: Array
    slides: Array
    parents: Array
    xy: Array

    def __len__(self) -> int:
        return len(self.ids)

    def path(self, index: int) -> Path:
        """The image file of an item."""
        return self.folder / str(self.images[index], "utf-8")

    def subset(self, index: Array) -> Items:
        """The items at the given positions (int64 ``[M]``) or where a mask (bool ``[N]``) is true."""
        columns = (self.ids, self.images, self.tags, self.patients, self.slides, self.parents, self.xy)
        return Items(self.folder, *(column[index] for column in columns))


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """The pixel masks of a split.

    Attributes:
        folder: the data set's folder.
        index: int64 ``[M]``, positions in the split's items that have a mask.
        masks: UTF-8 bytes ``[M]``; use :meth:`path`.
    """

    folder: Path
    index: Array
    masks: Array

    def __len__(self) -> int:
        return len(self.index)

    def path(self, position: int) -> Path:
        """The mask file of item ``index[position]``."""
        return self.folder / str(self.masks[position], "utf-8")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Dataset:
    """A data set on disk, opened by :meth:`open`.

    Attributes:
        folder: its folder, absolute.
        name: as scores and reports call it.
        classes: the tissues.
        mpp: micrometres per pixel, or None.
        licence: the terms.
        citation: what to cite.
        tag_rule: tags were cut from masks at more than this fraction of pixels; None if they were not.
        known: accepted findings and their reasons, printed with every score.
        digest: SHA-256 (hex) of ``dataset.yaml`` and ``items.csv``; of a fraction, what was taken of it.
        splits: the names of the splits with items; train, val and test first.
        objects: the class whose single objects are numbered and the folder of their masks; None if there is none.
        fold: which fold of a cross-validation this is, or None.
    """

    folder: Path
    name: str
    classes: Classes
    mpp: float | None
    licence: str
    citation: str
    tag_rule: float | None
    known: dict[str, str]
    digest: str
    splits: tuple[str, ...]
    objects: Objects | None
    fold: Fold | None
    _table: Table

    @classmethod
    def open(cls, folder: Path | str) -> Dataset:
        """Read a data set's two text files; images are not touched.

        Raises:
            EosinError: at the first defect, naming file, line, value and mend (``check`` lists all).
        """
        folder = Path(folder).resolve()
        contract = read_contract(folder)
        head, table = contract.head, contract.table
        if contract.findings or head is None or table is None:
            raise EosinError(_first(contract.findings, folder))
        return cls(
            folder=folder,
            name=head.name,
            classes=head.tissues(),
            mpp=head.mpp,
            licence=head.licence,
            citation=head.citation,
            tag_rule=head.tag_rule.min_fraction if head.tag_rule else None,
            known=dict(head.known),
            digest=contract.digest,
            splits=ordered_splits(table),
            objects=head.objects,
            fold=head.fold,
            _table=table,
        )

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {len(self._table)} items, classes {', '.join(self.classes.names)})"

    def __len__(self) -> int:
        return len(self._table)

    def items(self, split: str) -> Items:
        """The images and tags of a split.

        Raises:
            WrongUse: if there is no such split, naming those there are.
        """
        rows, table = self._rows(split), self._table
        return Items(
            folder=self.folder,
            ids=table.ids[rows],
            images=table.image[rows],
            tags=table.tags[rows],
            patients=table.patient[rows],
            slides=table.slide[rows],
            parents=table.parent[rows],
            xy=table.xy[rows],
        )

    def truth(self, split: str) -> Truth | None:
        """The masks of a split, or None if it has none.

        Raises:
            WrongUse: if there is no such split, naming those there are.
        """
        masks = self._table.mask[self._rows(split)]
        index = np.flatnonzero(masks != b"")
        return Truth(self.folder, index, masks[index]) if len(index) else None

    def object_path(self, item: str) -> Path | None:
        """The file that numbers the objects of an item, or None if the data set has none for it."""
        if self.objects is None:
            return None
        path = self.folder / self.objects.folder / f"{item}.png"
        return path if path.is_file() else None

    def _rows(self, split: str) -> Array:
        if split not in self.splits:
            raise WrongUse(f"{self.folder / ITEMS}: no split {split!r}{nearest(split, list(self.splits))}")
        return np.flatnonzero(self._table.split == split)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of ``items.csv``; ``tags`` in class order, 1, 0 or None for unknown; paths as the file has them."""

    id: str
    split: str
    image: str
    mask: str = ""
    patient: str = ""
    tags: Sequence[float | None] = ()
    slide: str = ""
    parent: str = ""
    x: int | None = None
    y: int | None = None
    origin: str = ""


def write_dataset(  # noqa: PLR0913 - the keys of dataset.yaml
    folder: Path,
    *,
    name: str,
    classes: Classes,
    rows: Iterable[Row],
    mpp: float | None,
    licence: str,
    citation: str,
    tag_rule: float | None = None,
    known: Mapping[str, str] | None = None,
    objects: Objects | None = None,
    fold: Fold | None = None,
) -> None:
    """Write ``dataset.yaml`` and ``items.csv``; what is written can be opened, or nothing is written.

    Raises:
        EosinError: if the folder already holds a data set, or the content breaks the contract.
    """
    if (folder / HEAD).exists() or (folder / ITEMS).exists():
        raise EosinError(f"{folder}: already holds a data set; choose another folder")
    rows = list(rows)
    head = {
        "schema": 1,
        "name": name,
        "classes": [{"name": tissue.name, "colour": list(tissue.colour)} for tissue in classes],
        "ignore": classes.ignore,
        "mpp": mpp,
        "licence": licence,
        "citation": citation,
        "tag_rule": None if tag_rule is None else {"min_fraction": tag_rule},
        "splits": list(dict.fromkeys(row.split for row in rows)),
        **({"objects": objects.model_dump()} if objects else {}),
        **({"fold": fold.model_dump()} if fold else {}),
        "known": dict(known or {}),
    }
    head_text = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=120)
    items_text = _items_text(classes.names, rows)
    findings: list[Finding] = []
    parsed = parse_head(folder / HEAD, head_text.encode(), findings)
    if parsed is not None:
        parse_table(folder / ITEMS, _utf8(items_text), parsed, findings)
    if findings:
        raise EosinError(f"{findings[0].file.name}: {findings[0].message}")
    write_text(folder / ITEMS, items_text)
    write_text(folder / HEAD, head_text)  # last: a folder with dataset.yaml is a whole data set


def ordered_splits(table: Table) -> tuple[str, ...]:
    """The splits that have items: train, val, test, then the others by name."""
    present = [str(name) for name in np.unique(table.split)]
    return tuple([s for s in _FIRST if s in present] + [s for s in present if s not in _FIRST])


def _items_text(names: Sequence[str], rows: Sequence[Row]) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*FIXED, *names])
    for row in rows:
        if len(row.tags) != len(names):
            raise EosinError(f"item {row.id!r}: {len(row.tags)} tags for {len(names)} classes; give one each")
        fixed = ["" if getattr(row, column) is None else getattr(row, column) for column in FIXED]
        writer.writerow([*fixed, *(_cell(tag) for tag in row.tags)])
    return buffer.getvalue()


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        around = text[max(0, error.start - 40) : error.end + 40]
        raise EosinError(f"{around!r}: a file name is not UTF-8; rename the file") from None


def _cell(tag: float | None) -> str:
    return "" if tag is None or math.isnan(tag) else f"{tag:g}"


def _first(findings: Sequence[Finding], folder: Path) -> str:
    more = f" (and {len(findings) - 1} more: eosin data check {folder})" if len(findings) > 1 else ""
    return f"{findings[0]}{more}"
