"""The scripts that fill the tables of the results pages: every number by hand."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from shutil import copytree
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eosin.core.artifact import write_json
from eosin.core.classes import Classes, Tissue
from eosin.data.dataset import Row, write_dataset

DOCS = Path(__file__).resolve().parents[1] / "docs"
TWO = Classes(tissues=(Tissue(name="rest", colour=(255, 255, 255)), Tissue(name="gland", colour=(0, 0, 0))))

# what the scripts read of a run's provenance
ORIGIN: dict[str, Any] = {"recipe": "hand-made", "seed": 3, "device": "cpu", "commit": "abcdef0123456789"}
ORIGIN["dataset"] = {"name": "hand", "digest": "0123456789abcdef"}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a script of ``docs/`` as one starts it."""
    monkeypatch.syspath_prepend(str(DOCS))
    return import_module


def comparison(values: dict[str, list[float]], printed: dict[str, float], dataset: str = "hand") -> dict[str, Any]:
    """What the scripts read of a ``compare.json``."""
    claims = {
        row: {"miou": score, "source": "A paper, Table 2", "protocol": "binary"} for row, score in printed.items()
    }
    arms = [
        {"name": row, "claim": claims.get(row), "miou": {"values": scores}, "labels": ["seed 0", "seed 1"]}
        for row, scores in values.items()
    ]
    rest = {"digest": "0123456789abcdef", "images": 7, "split": "test", "protocol": "strict", "device": "cpu"}
    return {"arms": arms, "dataset": dataset, "commits": ["abc"], "command": "eosin compare --out here", **rest}


def test_only_the_named_block_of_a_page_changes(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a -->\nold\n<!-- /a -->\nbetween\n<!-- b -->\nkept\n<!-- /b -->\nafter\n")
    script("_page").write(page, "a", "new\n\n")
    assert page.read_text() == "before\n<!-- a -->\nnew\n<!-- /a -->\nbetween\n<!-- b -->\nkept\n<!-- /b -->\nafter\n"
    with pytest.raises(SystemExit, match=r"page\.md: has no block c"):
        script("_page").write(page, "c", "new")


def test_gains_of_an_ablation_are_over_its_first_row(script: Callable[[str], ModuleType]) -> None:
    one = comparison({"base": [0.5, 0.7], "more": [0.75, 0.65], "less": [0.4, 0.4]}, {"base": 80.01, "more": 82.9})
    other = comparison({"base": [0.801], "more": [0.8]}, {}, "drawn")
    lines = script("ablations").table([one, other]).splitlines()
    assert lines[0] == "| Row | Printed | Gain | hand, mIoU % | Gain | drawn, mIoU % | Gain |"
    assert lines[2:5] == [
        "| base | 80.01 | – | 60.0 ± 14.1 | – | 80.1 | – |",
        "| more | 82.90 | +2.89 | 70.0 ± 7.1 | +10.0 | 80.0 | −0.1 |",
        "| less | – | – | 40.0 ± 0.0 | −20.0 | – | – |",
    ]
    assert lines[6] == "- Printed: A paper, Table 2, protocol binary."
    assert lines[7] == (
        "- hand: digest 0123456789ab, 7 images of test, protocol strict, seed 0, seed 1, cpu, source abc; "
        "`eosin compare --out here`."
    )


def test_dice_of_an_ablation_is_shown_where_it_is_printed(script: Callable[[str], ModuleType]) -> None:
    one = comparison({"base": [0.5], "more": [0.75]}, {"base": 80.01})
    one["arms"][0] |= {"mdice": {"values": [0.625]}}
    one["arms"][0]["claim"]["dice"] = 88.89
    one["arms"][1] |= {"mdice": {"values": [0.85]}}
    assert script("ablations").table([one]).splitlines()[:4] == [
        "| Row | Printed | Gain | Dice | hand, mIoU % | Gain | Dice |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| base | 80.01 | – | 88.89 | 50.0 | – | 62.5 |",
        "| more | – | – | – | 75.0 | +25.0 | 85.0 |",
    ]


def test_a_comparison_is_set_below_the_headings_of_its_page(
    script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables, page, source = script("tables"), tmp_path / "docs" / "page.md", tmp_path / "study"
    monkeypatch.setattr(tables, "PICTURES", tmp_path / "docs" / "pictures")
    for folder in (source, tables.PICTURES):
        folder.mkdir(parents=True)
    page.write_text("<!-- a -->\n<!-- /a -->\n")
    (source / "adapt.md").write_text(f"# Title\n\n![plot]({tables.PLOT})\n\n## Scores\n\n1 # 2\n")
    (source / tables.PLOT).write_text("drawn")
    tables.fill(page, "a", [source])
    told = "### Title\n\n![plot](pictures/a.svg)\n\n#### Scores\n\n1 # 2"
    assert page.read_text() == f"<!-- a -->\n{told}\n<!-- /a -->\n"
    assert (tables.PICTURES / "a.svg").read_text() == "drawn"


def test_pseudo_masks_are_scored_where_they_label_pixels(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    data = tmp_path / "data"
    for sub, value in (("images", np.zeros((2, 4, 3), np.uint8)), ("masks", np.array([[0, 0, 1, 1]] * 2, np.uint8))):
        (data / sub).mkdir(parents=True)
        Image.fromarray(value).save(data / sub / "a.png")
    rows = [Row("a", "train", "images/a.png", "masks/a.png", "P1", (1, 1))]
    write_dataset(data, name="hand", classes=TWO, rows=rows, mpp=0.5, licence="CC0", citation="Nobody")

    def run(name: str, mask: list[int] | None) -> str:
        folder = tmp_path / name
        write_json(folder / "provenance.json", {**ORIGIN, "dataset": {**ORIGIN["dataset"], "folder": str(data)}})
        if mask is not None:
            (folder / "steps" / "pseudo" / "masks").mkdir(parents=True)
            Image.fromarray(np.array([mask] * 2, np.uint8)).save(folder / "steps" / "pseudo" / "masks" / "a.png")
        return str(folder)

    right = run("right", [0, 0, 1, 1])
    half = run("half", [0, 1, 1, 255])  # rest 1 of 2, gland 1 of 2
    several = run("several", None)
    for source, step in ((right, "pseudo-1"), (half, "pseudo-2")):
        copytree(Path(source) / "steps" / "pseudo", Path(several) / "steps" / step)
    table = script("masks").table([right, half, run("none", None), f"called so={half}", f"so={several}"]).splitlines()
    assert table[2:4] == ["| hand-made | 2 | 0.750 ± 0.354 | 12.5% |", "| called so | 1 | 0.500 | 25.0% |"]
    assert table[4:6] == ["| so, pseudo-1 | 1 | 1.000 | 0.0% |", "| so, pseudo-2 | 1 | 0.500 | 25.0% |"]
    assert table[6:] == ["", "Made of hand, digest 0123456789ab; seed 3; cpu; source abcdef0123."]


def test_prototypes_are_told_by_recipe_number_and_weight(
    script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prototypes = script("prototypes")
    with_, without = ("lpd", "10", "0.5"), ("lpd", "10", "0.0")
    found = {
        "a": (with_, 5, (1.0, 0.5, 0.25)),
        "b": None,
        "c": (without, 5, (1, 1, 1)),
        "d": (with_, 4, (0.5, 0.5, 0.5)),
    }
    for seed, name in enumerate(found):
        write_json(tmp_path / name / "provenance.json", {**ORIGIN, "seed": seed})
    monkeypatch.setattr(prototypes, "measured", lambda run, _: found[run.name])
    table = prototypes.table([tmp_path / name for name in found], "test").splitlines()
    assert table[2:] == [
        "| lpd | 10 | 0.5 | 2 | 5 | 0.750 ± 0.354 | 0.500 ± 0.000 | 0.375 ± 0.177 |",
        "| lpd | 10 | 0.0 | 1 | 5 | 1.000 | 1.000 | 1.000 |",
        "",
        "Images of test. Made of hand, digest 0123456789ab; seed 0, 2, 3; cpu; source abcdef0123.",
    ]
