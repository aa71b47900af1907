"""Areas are pixels times their size, and the ratios over all slides are what their header says."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from eosin.core.errors import EosinError
from eosin.wsi.areas import AREAS, COLUMNS, areas, write_all_areas, write_areas
from eosin.wsi.roles import role_of

NAMES = ("tumor", "stroma", "LYM", "gland")


def slide(out: Path, name: str, names: tuple[str, ...], pixels: list[int], finished: bool = True) -> None:
    folder = out / name
    folder.mkdir(parents=True)
    write_areas(folder / AREAS, name, areas(names, pixels, [1] * len(names), 0.5), 0.5, "cam-0123", "1.0")
    if finished:
        (folder / "result.json").write_text("{}")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_an_area_is_pixels_times_the_area_of_a_pixel() -> None:
    found = areas(("a", "b", "c"), [4_000_000, 1_000_000, 0], [3, 1, 0], 0.5)
    assert [area.mm2 for area in found] == [1.0, 0.25, 0.0]
    assert [area.fraction for area in found] == [0.8, 0.2, 0.0]
    assert [area.regions for area in found] == [3, 1, 0]
    assert [area.fraction for area in areas(("a",), [0], [0], 0.5)] == [0]


def test_the_table_of_a_slide_is_tidy_and_keeps_classes_that_do_not_occur(tmp_path: Path) -> None:
    slide(tmp_path, "s, 1", NAMES, [123_456_789, 1, 0, 0])
    found = rows(tmp_path / "s, 1" / AREAS)
    assert tuple(found[0]) == COLUMNS
    assert [row["class"] for row in found] == list(NAMES)
    assert {row["slide"] for row in found} == {"s, 1"}
    assert found[0]["area_mm2"] == "30.86419725"
    assert found[1]["area_mm2"] == "2.5e-07" and found[2]["area_mm2"] == "0"
    assert {(row["mpp"], row["model"], row["version"]) for row in found} == {("0.5", "cam-0123", "1.0")}


def test_the_table_over_all_slides_has_the_ratios_under_their_formulas(tmp_path: Path) -> None:
    slide(tmp_path, "one", NAMES, [3_000_000, 1_000_000, 1_000_000, 0])
    slide(tmp_path, "two", ("tumour", "stroma"), [0, 0])
    slide(tmp_path, "half", NAMES, [1, 1, 1, 1], finished=False)
    assert write_all_areas(tmp_path) == tmp_path / AREAS
    one, two = rows(tmp_path / AREAS)
    tsr = "tumour_stroma_ratio = tumour / (tumour + stroma)"
    til = "lymphocyte_in_stroma_share = lymphocytes / (lymphocytes + stroma)"
    assert list(one)[-5:] == [tsr, til, "mpp", "model", "version"]
    assert (one["slide"], float(one[tsr]), float(one[til])) == ("one", 0.75, 0.5)
    assert float(one["tissue_mm2"]) == 1.25 and float(one["tumor_mm2"]) == 0.75 and one["tumour_mm2"] == ""
    assert two["tumour_mm2"] == "0" and two["gland_mm2"] == "" and two[tsr] == two[til] == ""


def test_classes_that_mean_the_same_are_added_up(tmp_path: Path) -> None:
    slide(tmp_path, "one", ("tumour", "carcinoma", "stroma"), [1_000_000, 2_000_000, 1_000_000])
    write_all_areas(tmp_path)
    assert rows(tmp_path / AREAS)[0]["tumour_stroma_ratio = tumour / (tumour + stroma)"] == "0.75"


def test_there_is_no_table_without_a_finished_slide(tmp_path: Path) -> None:
    slide(tmp_path, "half", NAMES, [1, 1, 1, 1], finished=False)
    assert write_all_areas(tmp_path) is None and not (tmp_path / AREAS).exists()


def test_a_table_of_another_kind_is_refused(tmp_path: Path) -> None:
    slide(tmp_path, "one", NAMES, [1, 1, 1, 1])
    (tmp_path / "one" / AREAS).write_text("slide,area\n")
    with pytest.raises(EosinError, match=r"one.areas\.csv: not a table of areas"):
        write_all_areas(tmp_path)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("Tumor", "tumour"),
        ("TUM", "tumour"),
        ("tumor_epithelial-tissue", "tumour"),
        ("tumor-associated stroma", "stroma"),
        ("STR", "stroma"),
        ("TAS", "stroma"),
        ("lymphocytes", "lymphocytes"),
        ("Immune cells", "lymphocytes"),
        ("NEC", "necrosis"),
        ("white background", "background"),
        ("rest", "other"),
        ("gland", None),
        ("normal", None),
    ],
)
def test_a_tissue_is_known_by_its_many_names(name: str, role: str | None) -> None:
    assert role_of(name) == role
