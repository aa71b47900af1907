"""The data contract as text: what ``dataset.yaml`` and ``items.csv`` may say, and every way they can be wrong.

Opening a data set raises the first finding, checking one lists them all; both read through :func:`read_table`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from eosin.core.classes import Classes, Tissue
from eosin.core.errors import nearest

Array = np.ndarray

HEAD = "dataset.yaml"
ITEMS = "items.csv"
REQUIRED = ("id", "split", "image", "mask", "patient")
OPTIONAL = ("slide", "parent", "x", "y", "origin")
FIXED = REQUIRED + OPTIONAL

WHOLE = "whole"
"""The split that holds whole images, where importers write these beside the patches cut from them."""

# The findings that can be true of a sound data set, so that its author may declare them.
KNOWN = (
    "patient_overlap",
    "slide_overlap",
    "parent_overlap",
    "duplicate_image",
    "tags_contradict",
    "inseparable",
    "cooccurring",
    "absent_class",
)

_ID = re.compile(r"[A-Za-z0-9._-]+")
_SPLIT = re.compile(r"[a-z][a-z0-9_-]*")
_COUNT = re.compile(r"[0-9]{0,9}")
_TAG = {"1": 1.0, "0": 0.0, "": float("nan")}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong (``error``) or worth knowing (``warning``); ``kind`` is a word to filter by."""

    level: Literal["error", "warning"]
    file: Path
    message: str
    kind: str

    def __str__(self) -> str:
        return f"{self.file}: {self.message}"


class TagRule(BaseModel):
    """How tags were cut from masks: a class is present if it covers more than ``min_fraction`` of the pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_fraction: float = Field(ge=0, lt=1)


class Objects(BaseModel):
    """Where single objects of one class are numbered, as the glands of GlaS.

    Attributes:
        tissue: the class.
        folder: holds ``<id>.png`` for items with a mask: 0 outside, 1..255 one number per object.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tissue: str
    folder: str = Field(min_length=1)


class Fold(BaseModel):
    """Which fold of a cross-validation a data set is.

    Attributes:
        number: 1..of.
        of: how many folds there are.
        source: digest of the data set that was split.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=1)
    of: int = Field(ge=2)
    source: str


class Head(BaseModel):
    """The content of ``dataset.yaml``.

    Attributes:
        version: 1 (written ``schema``).
        name: what the data set is called in scores and reports.
        classes: the tissues in mask order.
        ignore: mask value that is not scored.
        mpp: micrometres per pixel, or None where it is not known.
        licence: the terms, as their owner names them.
        citation: what to cite.
        tag_rule: present where tags were cut from masks.
        splits: the splits that must have items; without it, any lower-case name may appear.
        objects: where single objects of one class are numbered, if they are.
        fold: which fold of a cross-validation this is, if it is one.
        known: findings that are true and accepted, with the reason; they become warnings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = Field(alias="schema")
    name: str = Field(min_length=1)
    classes: tuple[Tissue, ...] = Field(min_length=1)
    ignore: int = Field(default=255, ge=0, le=255)
    mpp: float | None = Field(default=None, gt=0)
    licence: str = Field(min_length=1)
    citation: str = ""
    tag_rule: TagRule | None = None
    splits: tuple[str, ...] | None = Field(default=None, min_length=1)
    objects: Objects | None = None
    fold: Fold | None = None
    known: dict[str, str] = {}

    @field_validator("known")
    @classmethod
    def _accepted(cls, known: dict[str, str]) -> dict[str, str]:
        for key in known:
            if key not in KNOWN:
                raise ValueError(f"{key!r} is not a finding that can be known{nearest(key, list(KNOWN))}")
        return known

    @field_validator("splits")
    @classmethod
    def _named(cls, splits: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for split in splits or ():
            if not _SPLIT.fullmatch(split):
                raise ValueError(f"split {split!r} must be a lower-case name such as train")
        return splits

    @model_validator(mode="after")
    def _tissues(self) -> Head:
        for tissue in self.classes:
            if tissue.name in FIXED:
                raise ValueError(f"class name {tissue.name!r} is a fixed column of {ITEMS}; choose another")
        if self.objects is not None and self.objects.tissue not in (tissue.name for tissue in self.classes):
            raise ValueError(f"objects: {self.objects.tissue!r} is no class of this data set")
        self.tissues()
        return self

    def tissues(self) -> Classes:
        """The classes with their ignore index."""
        return Classes(tissues=self.classes, ignore=self.ignore)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """``items.csv`` in columns, row ``i`` in each; no Python object per row.

    Attributes:
        line: int32 ``[N]``, the line in the file.
        ids: str ``[N]``.
        split: str ``[N]``.
        image: UTF-8 bytes ``[N]``, relative to the folder or absolute (bytes: a quarter of the memory).
        mask: UTF-8 bytes ``[N]``, empty where there is none.
        patient: str ``[N]``, empty where unknown; so are ``slide``, ``parent`` and ``origin``.
        xy: int32 ``[N, 2]``, left and top corner in the parent, -1 where unknown.
        tags: float32 ``[N, K]``, 1 present, 0 absent, NaN unknown.
        lacking: classes whose column is missing; their tags are unknown.
    """

    line: Array
    ids: Array
    split: Array
    image: Array
    mask: Array
    patient: Array
    slide: Array
    parent: Array
    origin: Array
    xy: Array
    tags: Array
    lacking: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Contract:
    """A data set as far as its two text files could be read, and what is wrong with them."""

    folder: Path
    digest: str
    head: Head | None
    table: Table | None
    findings: list[Finding]


def read_contract(folder: Path) -> Contract:
    """Read both files of a data set; never raises for a defect of them."""
    findings: list[Finding] = []
    blobs = [_blob(folder / name, findings) for name in (HEAD, ITEMS)]
    digest = hashlib.sha256(b"".join(hashlib.sha256(blob or b"").digest() for blob in blobs)).hexdigest()
    head = None if blobs[0] is None else parse_head(folder / HEAD, blobs[0], findings)
    table = None if head is None or blobs[1] is None else parse_table(folder / ITEMS, blobs[1], head, findings)
    return Contract(folder, digest, head, table, findings)


def parse_head(file: Path, blob: bytes, findings: list[Finding]) -> Head | None:
    """Read ``dataset.yaml``; what is wrong is added to ``findings``."""
    try:
        content = yaml.safe_load(blob)
    except yaml.YAMLError as error:
        findings.append(_wrong(file, f"not valid YAML ({' '.join(str(error).split())}); correct the line", "yaml"))
        return None
    if not isinstance(content, dict):
        findings.append(_wrong(file, "must hold keys and values, as 'name: glas'", "yaml"))
        return None
    try:
        return Head.model_validate(content)
    except ValidationError as error:
        # A misspelt key is also a missing one; the spelling is the better hint, so it comes first.
        details = sorted(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
        findings.extend(_wrong(file, _explain(detail), "yaml") for detail in details)
        return None


def _explain(detail: ErrorDetails) -> str:
    """Say a pydantic error in a user's words, with the place as ``classes[0].colour``."""
    loc = detail["loc"]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    if detail["type"] == "extra_forbidden":
        inner: dict[str, type[BaseModel]] = {"classes": Tissue, "tag_rule": TagRule}
        model = inner.get(str(loc[0]), Head) if len(loc) > 1 else Head
        names = [field.alias or name for name, field in model.model_fields.items()]
        return f"unknown key {where!r}{nearest(str(loc[-1]), names)}"
    if detail["type"] == "missing":
        return f"key {where!r} is missing; add it"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{where}: {message} (it says {detail['input']!r:.60})" if where else message


def parse_table(file: Path, blob: bytes, head: Head, findings: list[Finding]) -> Table | None:
    """Read ``items.csv``; what is wrong is added to ``findings``, and None means that no row could be placed."""
    try:
        text = blob.decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        findings.append(_wrong(file, f"not comma-separated UTF-8 text ({error}); save it as CSV UTF-8", "csv"))
        return None
    if "\0" in text or ('"' in text and any("\n" in cell or "\r" in cell for row in rows for cell in row)):
        findings.append(_wrong(file, "a cell holds a line break or a zero byte; remove it", "csv"))
        return None
    names = [tissue.name for tissue in head.classes]
    if not _columns(file, rows[0] if rows else [], names, findings):
        return None
    columns, lines = _transposed(file, rows, findings)
    if not len(lines):
        findings.append(_wrong(file, "no items; add one line per image", "empty_split"))
        return None
    reader = _Reader(file, columns, lines, findings)
    return reader.table(names, head.splits)


def _columns(file: Path, header: Sequence[str], names: Sequence[str], findings: list[Finding]) -> bool:
    """Check the first line; False if the rows cannot be used without what it lacks."""
    allowed = [*FIXED, *names]
    for column in dict.fromkeys(header):
        if header.count(column) > 1:
            findings.append(_wrong(file, f"line 1: column {column!r} appears twice; remove one", "column"))
        if column not in allowed:
            hint = nearest(column, allowed)
            findings.append(_wrong(file, f"line 1: unknown column {column!r}{hint}; rename or remove it", "column"))
    missing = [column for column in (*REQUIRED, *names) if column not in header]
    for column in missing:
        what = "class column" if column in names else "column"
        findings.append(_wrong(file, f"line 1: {what} {column!r} is missing; add it (cells may be empty)", "column"))
    return not {"id", "split", "image"} & set(missing)


def _transposed(file: Path, rows: list[list[str]], findings: list[Finding]) -> tuple[dict[str, list[str]], Array]:
    """Rows to columns; rows of another length than the header are left out with a finding, blank lines without."""
    header = rows[0]
    lines = np.arange(2, len(rows) + 1, dtype=np.int32)
    lengths = np.fromiter(map(len, rows[1:]), np.int64, len(rows) - 1)
    for at in np.flatnonzero((lengths != len(header)) & (lengths > 0)):
        cells = f"{lengths[at]} cells where the first line has {len(header)}"
        findings.append(_wrong(file, f"line {lines[at]}: {cells}; add or remove commas", "csv"))
    fits = lengths == len(header)
    kept = rows[1:] if fits.all() else [row for row, good in zip(rows[1:], fits, strict=True) if good]
    return dict(zip(header, map(list, zip(*kept, strict=True)), strict=False)), lines[fits]


class _Reader:
    """Turns columns of text into arrays and reports each bad cell by its line."""

    def __init__(self, file: Path, columns: dict[str, list[str]], lines: Array, findings: list[Finding]) -> None:
        self.file, self.columns, self.lines, self.findings = file, columns, lines, findings

    def table(self, names: Sequence[str], splits: Sequence[str] | None) -> Table:
        """All columns, with the bad cells read as unknown."""
        return Table(
            line=self.lines,
            ids=self._ids(),
            split=self._splits(splits),
            image=self._paths("image", needed=True),
            mask=self._paths("mask", needed=False),
            patient=np.array(self._cells("patient")),
            slide=np.array(self._cells("slide")),
            parent=np.array(self._cells("parent")),
            origin=np.array(self._cells("origin")),
            xy=np.stack([self._pixels("x"), self._pixels("y")], axis=1),
            tags=np.stack([self._tags(name) for name in names], axis=1),
            lacking=tuple(name for name in names if name not in self.columns),
        )

    def _cells(self, column: str) -> list[str]:
        return self.columns.get(column) or [""] * len(self.lines)

    def _wrong(self, row: int, message: str, kind: str) -> None:
        self.findings.append(_wrong(self.file, f"line {self.lines[row]}: {message}", kind))

    def _refuse(self, cells: list[str], good: Callable[[str], object], message: str, kind: str) -> None:
        for row, cell in enumerate(cells):
            if not good(cell):
                self._wrong(row, message.format(cell), kind)

    def _ids(self) -> Array:
        ids = self._cells("id")
        self._refuse(ids, _ID.fullmatch, "id {!r} must be of letters, digits and . _ - alone; rename it", "id")
        if len(set(ids)) != len(ids):
            first: dict[str, int] = {}
            for row, name in enumerate(ids):
                if first.setdefault(name, row) != row:
                    line = self.lines[first[name]]
                    self._wrong(row, f"id {name!r} is already on line {line}; give each item its own", "id")
        return np.array(ids)

    def _splits(self, declared: Sequence[str] | None) -> Array:
        cells = self._cells("split")
        problems = {}
        for name in dict.fromkeys(cells):
            if declared is not None and name not in declared:
                problems[name] = f"is not among the splits of {HEAD}{nearest(name, list(declared))}; correct it"
            elif not _SPLIT.fullmatch(name):
                problems[name] = "must be a lower-case name such as train"
        for row, name in enumerate(cells if problems else ()):
            if name in problems:
                self._wrong(row, f"split {name!r} {problems[name]}", "split")
        return np.array(cells)

    def _paths(self, column: str, needed: bool) -> Array:
        cells = self._cells(column)
        if needed:
            self._refuse(cells, bool, f"no {column}; give its path", "path")
        outside = f"{column} {{!r}} leads out of the data set; write an absolute path"
        self._refuse(cells, lambda cell: ".." not in cell or ".." not in PurePath(cell).parts, outside, "path")
        return np.array([cell.encode() for cell in cells])

    def _pixels(self, column: str) -> Array:
        cells = self._cells(column)
        self._refuse(cells, _COUNT.fullmatch, f"{column} {{!r}} must be a whole number of pixels or empty", "xy")
        return np.array([int(cell) if cell and _COUNT.fullmatch(cell) else -1 for cell in cells], np.int32)

    def _tags(self, name: str) -> Array:
        cells = self._cells(name)
        self._refuse(cells, _TAG.__contains__, f"tag {{!r}} of class {name!r} must be 1, 0 or empty", "tag")
        return np.array([_TAG.get(cell, np.nan) for cell in cells], np.float32)


def _blob(file: Path, findings: list[Finding]) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError as error:
        findings.append(_wrong(file, f"cannot be read ({error.strerror}); a data set is a folder with it", "missing"))
        return None


def _wrong(file: Path, message: str, kind: str) -> Finding:
    return Finding("error", file, message, kind)
