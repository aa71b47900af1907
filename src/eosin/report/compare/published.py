"""Published numbers as data: the rows that papers print on the data sets of the importers, and what is wrong with them.

They lie in ``published.yaml`` beside this file, in percent and exactly as printed. A footnote says what two tables, or
the cells of one row, contradict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from eosin.metrics.protocols import PROTOCOLS
from eosin.recipe import Claim
from eosin.report.compare.form import Published

UNKNOWN = "unknown"  # the protocol of a row that nobody says how it was scored


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Printed(_Strict):
    """A row as it was printed: percent, ``hausdorff`` in pixels.

    Attributes:
        method: as the paper names it.
        iou: by class; classes whose cell is missing are absent.
        miou: mean IoU.
        dice: mean Dice or F1.
        accuracy: pixel accuracy.
        fwiou: IoU weighted by each class's share of the pixels.
        hausdorff: what the table calls a Hausdorff distance.
        notes: keys of footnotes.
        breaks: what the row's own cells contradict; a footnote says it in words.
    """

    method: str
    iou: dict[str, float] = {}
    miou: float
    dice: float | None = None
    accuracy: float | None = None
    fwiou: float | None = None
    hausdorff: float | None = None
    notes: tuple[str, ...] = ()
    breaks: frozenset[Literal["miou", "dice", "bound"]] = frozenset()


class Tabled(_Strict):
    """A paper's table; its notes hold for every row."""

    source: str
    protocol: str
    uses_truth: bool = False
    notes: tuple[str, ...] = ()
    rows: tuple[Printed, ...] = Field(min_length=1)


class Tables(_Strict):
    """All tables on one data set, with the classes as its importer names them."""

    classes: tuple[str, ...]
    tables: tuple[Tabled, ...]

    def rows(self) -> Iterator[tuple[Tabled, Printed]]:
        """Every row with the table that it stands in."""
        return ((table, row) for table in self.tables for row in table.rows)


class Book(_Strict):
    """The whole file.

    Raises:
        ValueError: for a class, a footnote or a protocol that is not known, or a footnote that nobody uses.
    """

    notes: dict[str, str]
    datasets: dict[str, Tables]

    @model_validator(mode="after")
    def _fits(self) -> Book:
        used = set()
        for name, tables in self.datasets.items():
            for table, row in tables.rows():
                where = f"{name}: {table.source}: {row.method}"
                used |= {*table.notes, *row.notes}
                if table.protocol not in (*PROTOCOLS, UNKNOWN):
                    raise ValueError(f"{where}: protocol {table.protocol!r} is none of ours and not {UNKNOWN!r}")
                if table.protocol in PROTOCOLS and PROTOCOLS[table.protocol].uses_truth != table.uses_truth:
                    raise ValueError(f"{where}: uses_truth is not that of {table.protocol}")
                if not set(row.iou) <= set(tables.classes):
                    raise ValueError(f"{where}: a class that is none of {', '.join(tables.classes)}")
        if used != set(self.notes):
            raise ValueError(f"footnotes without a row, or not written: {', '.join(sorted(used ^ set(self.notes)))}")
        return self


@cache
def book() -> Book:
    """Read the file.

    Raises:
        pydantic.ValidationError: if it does not fit its schema, which the tests exclude.
    """
    text = (files("eosin.report.compare") / "published.yaml").read_text(encoding="utf-8")
    return Book.model_validate(yaml.safe_load(text))


def published_rows(dataset: str) -> tuple[tuple[Published, ...], tuple[str, ...]]:
    """Look up what papers print on a data set.

    Args:
        dataset: its name as the importer writes it into ``dataset.yaml``.

    Returns:
        The rows, table by table, and the footnotes that they number from 1 in the order of their first use. Both are
        empty for a data set that no row is known of.
    """
    tables = book().datasets.get(dataset)
    if tables is None:
        return (), ()
    numbers: dict[str, int] = {}
    rows = []
    for table, row in tables.rows():
        notes = [numbers.setdefault(key, len(numbers) + 1) for key in (*table.notes, *row.notes)]
        rows.append(
            Published(
                method=row.method,
                source=table.source,
                protocol=table.protocol,
                uses_truth=table.uses_truth,
                miou=row.miou,
                dice=row.dice,
                accuracy=row.accuracy,
                fwiou=row.fwiou,
                hausdorff=row.hausdorff,
                iou=row.iou,
                notes=tuple(sorted(notes)),
            )
        )
    return tuple(rows), tuple(book().notes[key] for key in numbers)


def claimed(claim: Claim, method: str, rows: Sequence[Published]) -> Published:
    """The published row that a recipe claims.

    Args:
        claim: of the recipe.
        method: the recipe's method, the row's name where no row is found.
        rows: of the data set, from :func:`published_rows`.

    Returns:
        The row with that source, mean IoU and, where it is claimed, Dice, with its footnotes; else one made of the
        claim alone.
    """
    for row in rows:
        if (row.source, row.miou) == (claim.source, claim.miou) and claim.dice in (None, row.dice):
            return row
    return Published(method=method, **claim.model_dump())
