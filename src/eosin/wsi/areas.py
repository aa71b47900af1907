"""Areas of the tissues in mm2: a tidy table for each slide, and one table with ratios over all slides."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eosin.core.artifact import write_text
from eosin.core.errors import EosinError
from eosin.wsi.roles import Role, role_of

AREAS = "areas.csv"
COLUMNS = ("slide", "class", "area_mm2", "fraction_of_tissue", "n_regions", "mpp", "model", "version")

RATIOS: dict[str, tuple[Role, Role]] = {
    "tumour_stroma_ratio = tumour / (tumour + stroma)": ("tumour", "stroma"),
    "lymphocyte_in_stroma_share = lymphocytes / (lymphocytes + stroma)": ("lymphocytes", "stroma"),
}
"""Columns of the table over all slides, named by their formula: area of the first over that of both together."""


@dataclass(frozen=True, slots=True)
class Area:
    """How much of a slide's tissue is one class: pixels, mm2, share of all tissue in 0..1, and connected regions."""

    name: str
    pixels: int
    mm2: float
    fraction: float
    regions: int


def areas(names: Sequence[str], pixels: Sequence[int], counts: Sequence[int], mpp: float) -> tuple[Area, ...]:
    """Areas of all classes, in their order.

    Args:
        names: of the classes.
        pixels: of each.
        counts: how many regions each has.
        mpp: micrometres per pixel.
    """
    mm2, tissue = mpp * mpp / 1e6, max(1, sum(pixels))
    return tuple(Area(n, p, p * mm2, p / tissue, c) for n, p, c in zip(names, pixels, counts, strict=True))


def write_areas(path: Path, slide: str, found: Iterable[Area], mpp: float, model: str, version: str) -> None:
    """Write the tidy table of a slide, one row for each class, also for one that does not occur.

    Args:
        path: the CSV file.
        slide: its name.
        found: the areas.
        mpp: micrometres per pixel of the prediction.
        model: the model's name.
        version: of eosin.
    """
    said = [_number(mpp), model, version]
    rows = [[slide, a.name, _number(a.mm2), _number(a.fraction), str(a.regions), *said] for a in found]
    write_text(path, _table(COLUMNS, rows))


def write_all_areas(out: Path) -> Path | None:
    """Write one table over all finished slides of a folder, ``out/areas.csv``, one row for each slide.

    The columns: the slide, all tissue, each class that any slide has, the ratios, mpp, model and version. A class or a
    ratio that a slide does not have is empty, as is a ratio of areas that are both zero. Tumour, stroma and lymphocytes
    are found by their names; classes that mean the same are added up. Lymphocytes are those that the model gives a
    class of its own, wherever they lie.

    Args:
        out: the folder of the folders of the slides; one with ``result.json`` and ``areas.csv`` is finished.

    Returns:
        The file; None if no slide is finished.
    """
    slides = [_read(path) for path in sorted(out.glob(f"*/{AREAS}")) if (path.parent / "result.json").is_file()]
    if not slides:
        return None
    names = list(dict.fromkeys(row["class"] for rows in slides for row in rows))
    head = ["slide", "tissue_mm2", *(f"{name}_mm2" for name in names), *RATIOS, "mpp", "model", "version"]
    path = out / AREAS
    write_text(path, _table(head, [_row(rows, names) for rows in slides]))
    return path


def _row(rows: list[dict[str, str]], names: Sequence[str]) -> list[str]:
    mm2 = {row["class"]: float(row["area_mm2"]) for row in rows}
    found = [_number(mm2[name]) if name in mm2 else "" for name in names]
    shares = [_ratio(mm2, first, second) for first, second in RATIOS.values()]
    said = [rows[0][key] for key in ("mpp", "model", "version")]
    return [rows[0]["slide"], _number(sum(mm2.values())), *found, *shares, *said]


def _ratio(mm2: Mapping[str, float], first: Role, second: Role) -> str:
    one, two = ([area for name, area in mm2.items() if role_of(name) == role] for role in (first, second))
    both = sum(one) + sum(two)
    return _number(sum(one) / both) if one and two and both > 0 else ""


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    if tuple(reader.fieldnames or ()) != COLUMNS or not rows:
        raise EosinError(f"{path}: not a table of areas of this version; delete its folder and predict the slide again")
    return rows


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()


def _number(value: float) -> str:
    """Twelve digits: one pixel of the largest slides still counts."""
    return f"{value:.12g}"
