"""Published numbers hold together, or a footnote says where they do not: the file's rows and every recipe's claim."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

import eosin
from eosin.metrics.protocols import PROTOCOLS
from eosin.recipe import Claim, load, shipped
from eosin.report.compare.published import UNKNOWN, Book, Printed, Tabled, book, claimed, published_rows

ROWS = [
    pytest.param(tables.classes, table, row, id=f"{name}: {table.source}: {row.method}")
    for name, tables in book().datasets.items()
    for table, row in tables.rows()
]
RECIPES = Path(eosin.__file__).parent / "recipes"
CLAIMS = {name: recipe.claim for name in shipped() if (recipe := load(name)).claim is not None}

# every slip that is known, so that none comes or goes unseen: data set, paper, method
SLIPS = {
    ("bcss", "ARML", "HistoSegNet"): {"dice"},  # the NEC cell differs between two papers
    ("bcss", "ARML", "ARML ResNeSt101"): {"dice"},  # 82.54, not 82.48
    ("luad", "ARML", "HistoSegNet"): {"dice"},  # the NEC cell differs between two papers
    ("luad", "ARML", "AMR"): {"miou", "dice"},  # 70.40, not 71.45; 82.59, not 83.59
    ("luad", "ARML", "OEEM"): {"miou", "dice"},  # 73.82, not 73.92; 84.92, not 84.99
    ("luad", "ARML", "TPRO"): {"miou", "dice"},  # 75.93, not 75.90; 86.26, not 86.16
    ("ebhi", "Gland", "ReCAM"): {"bound"},  # at most 64.64, printed 65.48
    ("ebhi", "Gland", "OEEM"): {"bound"},  # at most 86.23, printed 86.26
}


def dice_of(iou: float) -> float:
    """The Dice that an IoU is, both in percent: ``2 i / (1 + i)``."""
    return 200 * iou / (100 + iou)


def broken(classes: int, iou: Mapping[str, float], miou: float | None, dice: float | None) -> set[str]:
    """What the cells of a row contradict. Cells that are not printed can contradict nothing."""
    found = set()
    if classes and len(iou) == classes:
        if miou is not None and abs(sum(iou.values()) / classes - miou) > 0.02:
            found.add("miou")
        if dice is not None and abs(sum(map(dice_of, iou.values())) / classes - dice) > 0.05:
            found.add("dice")
    elif miou is not None and dice is not None and dice - dice_of(miou) > 0.02:
        found.add("bound")  # 2 i / (1 + i) is concave: the mean of it is at most that of the mean
    return found


@pytest.mark.parametrize(("classes", "table", "row"), ROWS)
def test_a_row_contradicts_itself_just_where_a_footnote_says_so(
    classes: tuple[str, ...], table: Tabled, row: Printed
) -> None:
    assert broken(len(classes), row.iou, row.miou, row.dice) == row.breaks
    assert not row.breaks or row.notes
    assert all(0 < value < 100 for value in (row.miou, *row.iou.values()))


def test_the_known_slips_are_all_there_are() -> None:
    found = {
        (name, table.source.split()[0], row.method): set(row.breaks)
        for name, tables in book().datasets.items()
        for table, row in tables.rows()
        if row.breaks
    }
    assert found == SLIPS


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"iou": {"a": 50.0, "b": 60.0}, "miou": 55.0, "dice": 70.83}, set()),
        ({"iou": {"a": 50.0, "b": 60.0}, "miou": 55.03, "dice": 70.83}, {"miou"}),
        ({"iou": {"a": 50.0, "b": 60.0}, "miou": 55.0, "dice": 70.9}, {"dice"}),
        ({"iou": {"a": 50.0, "b": 60.0}, "miou": 60.0, "dice": 75.0}, {"miou", "dice"}),
        ({"iou": {}, "miou": 55.0, "dice": 70.96}, set()),  # 2 * 55 / 1.55 = 70.968
        ({"iou": {}, "miou": 55.0, "dice": 71.0}, {"bound"}),
        ({"iou": {"a": 50.0}, "miou": 20.0, "dice": None}, set()),  # a cell is missing
    ],
)
def test_the_check_finds_a_slip_and_nothing_else(row: dict[str, object], expected: set[str]) -> None:
    assert broken(2, **row) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_is_what_the_tables_have_and_holds_together_as_far_as_that_does(name: str) -> None:
    recipe, claim = load(name), CLAIMS[name]
    assert claim is not None and claim.miou is not None
    assert claim.protocol in (*PROTOCOLS, UNKNOWN)
    classes = len(book().datasets[recipe.data.name].classes)
    slips = {(table.source, row.miou): row.breaks for table, row in book().datasets[recipe.data.name].rows()}
    assert broken(classes, claim.iou, claim.miou, claim.dice) == slips[claim.source, claim.miou]
    rows, _ = published_rows(recipe.data.name)
    row = claimed(claim, recipe.method, rows)
    assert row in rows, "a claim is one of the rows, by its source and mean IoU"
    assert {key: getattr(row, key) for key in Claim.model_fields} == claim.model_dump()


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ("bcss luad", "cam grad-cam-pp histosegnet recam oeem mlps arml tpro pbip pdseg"),
        ("bcss", "lpd"),
        ("glas", "oeem hamil gland"),
        ("prog ebhi", "gland supervised"),
        ("digestpath camelyon16", "ikd-mil sa-mil swin-mil vgg-mil resnet-mil oeem supervised"),
    ],
)
def test_the_recipes_of_published_data_claim_a_row(data: str, names: str) -> None:
    assert {f"{name}-{where}" for name in names.split() for where in data.split()} <= set(CLAIMS)


@pytest.mark.parametrize("name", CLAIMS)
def test_each_value_of_a_recipe_with_a_claim_is_marked_as_printed_from_code_or_ours(name: str) -> None:
    settings = (RECIPES / f"{name}.yaml").read_text().partition("\noptions:\n")[2].partition("\nclaim:\n")[0]
    values = re.findall(r"^ +\w+: *[^ #\n].*", settings, re.MULTILINE)
    assert len(values) > 5 and [value for value in values if not re.search(r"\[[PCR]\]", value)] == []


def test_footnotes_are_numbered_in_the_order_of_their_use() -> None:
    rows, footnotes = published_rows("ebhi")
    recam = next(row for row in rows if row.method == "ReCAM")
    assert (recam.miou, recam.dice, recam.accuracy, recam.iou) == (47.75, 65.48, None, {})
    assert recam.notes == (1, 3) and "at most 64.64" in footnotes[2]  # 2: SEAM's, the row above
    used = [number for row in rows for number in row.notes]
    assert set(used) == set(range(1, len(footnotes) + 1)) and used[0] == 1
    firsts = list(dict.fromkeys(used))
    assert firsts == sorted(firsts)


def test_truth_at_test_time_is_marked() -> None:
    marked = {row.method for row in published_rows("bcss")[0] if row.uses_truth}
    assert marked == {"PBIP", "LPD", "DualProtoSeg", "ConStruct"}


def test_cells_that_are_not_printed_stay_absent() -> None:
    row = next(row for row in published_rows("luad")[0] if row.method == "PDSeg + synthetic")
    assert set(row.iou) == {"TE", "NEC", "LYM"} and row.dice is None and row.miou == 77.46


def test_a_data_set_without_published_rows_has_none() -> None:
    assert published_rows("phantom") == ((), ())


def test_a_claim_of_another_table_stands_alone() -> None:
    rows, _ = published_rows("bcss")
    claim = Claim(source="elsewhere", protocol="tissue-fp-tags", uses_truth=True, miou=50.0, accuracy=60.0)
    row = claimed(claim, "cam", rows)
    assert row not in rows and (row.method, row.uses_truth, row.accuracy, row.notes) == ("cam", True, 60.0, ())


DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "why-is-my-miou-lower.md").read_text(encoding="utf-8")


def test_the_page_on_lower_scores_prints_what_the_tables_have() -> None:
    printed = {(row.method, row.source.split()[0]): row.miou for row in published_rows("bcss")[0]}
    told = re.findall(r"^\| (\w+) \| (\d\d\.\d\d) \| (\d\d\.\d\d) \|$", PAGE, re.MULTILINE)
    assert [method for method, _, _ in told] == ["OEEM", "MLPS", "TPRO"]
    for method, pdseg, arml in told:
        assert (float(pdseg), float(arml)) == (printed[method, "PDSeg"], printed[method, "ARML"])


def test_the_page_on_lower_scores_cites_what_is_in_the_bibliography() -> None:
    known = set(re.findall(r"^@\w+\{(\w+),$", (DOCS / "references.bib").read_text(encoding="utf-8"), re.MULTILINE))
    cited = set(re.findall(r"`([a-z0-9]+\d{4})`", PAGE))
    assert {"arml2024", "pdseg2025", "han2022"} <= cited <= known


BOOK = """
notes: {a: something is wrong}
datasets:
  d:
    classes: [x, y]
    tables: [{source: s, protocol: strict, notes: [a], rows: [{method: m, iou: {x: 1.0}, miou: 2.0}]}]
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("x: 1.0", "z: 1.0", "a class that is none of x, y"),
        ("notes: [a]", "notes: [b]", "footnotes without a row, or not written: a, b"),
        ("protocol: strict", "protocol: stirct", "protocol 'stirct' is none of ours"),
        ("protocol: strict", "protocol: tissue-fp-tags", "uses_truth is not that of tissue-fp-tags"),
        ("miou: 2.0", "miou: 2.0, kappa: 1.0", "Extra inputs"),
        ("miou: 2.0", "breaks: [all]", "miou"),
    ],
)
def test_the_file_is_strict(old: str, new: str, message: str) -> None:
    Book.model_validate(yaml.safe_load(BOOK))
    with pytest.raises(ValidationError, match=message):
        Book.model_validate(yaml.safe_load(BOOK.replace(old, new)))
