"""The Markdown table: groups, means and honesty about what it mixes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eosin.core.artifact import read_json, write_json
from eosin.core.errors import EosinError
from eosin.report.table import results_table
from report.fake_run import FakeRun, make_run


def rows(markdown: str) -> list[dict[str, str]]:
    """The lines of all tables by their heads."""
    found: list[dict[str, str]] = []
    head: list[str] = []
    for line in markdown.splitlines():
        cells = [cell.strip() for cell in line.replace("\\|", "\0").strip("|").split("|")]
        if not line.startswith("|"):
            head = []
        elif not head:
            head = cells
        elif not set(cells[0]) <= {"-", ":"}:
            assert len(cells) == len(head)
            found.append(dict(zip(head, cells, strict=True)))
    return found


def named(made: FakeRun, **changes: object) -> FakeRun:
    path = made.run / "provenance.json"
    write_json(path, {**read_json(path), **changes})
    return made


def test_seeds_share_a_row(tmp_path: Path) -> None:
    made = [named(make_run(tmp_path, seed=seed), recipe="cam-fake") for seed in (0, 1, 2)]
    found = rows(results_table([m.run for m in made]))
    assert [(r["Step"], r["Split"]) for r in found] == [
        (s, p) for s in ("zoning", "segmenter") for p in ("val", "test")
    ]
    values = [m.scores()[-1]["miou"] for m in made]
    last = found[-1]
    assert last["mIoU"] == f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
    stroma = [m.scores()[-1]["iou"]["stroma"] for m in made]
    assert last["stroma"] == f"{np.mean(stroma):.3f} ± {np.std(stroma, ddof=1):.3f}"
    assert last["Method"] == "cam" and last["Recipe"] == "cam-fake" and last["Protocol"] == "strict"
    assert last["Seeds"] == "0, 1, 2" and last["Selected by"] == "masks" and last["Device"] == "cpu"
    assert last["Wall time"] == "11 min 0 s" and last["Commit"] == "0123456789"


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    markdown = results_table([made.run])
    assert rows(markdown)[-1]["mIoU"] == f"{made.scores()[-1]['miou']:.3f}"
    assert "CC0 & free" in markdown and "research use only" in markdown


def test_other_settings_are_another_row_even_under_one_name(tmp_path: Path) -> None:
    made = [named(make_run(tmp_path, seed=seed), recipe="cam-fake") for seed in (0, 1)]
    recipe = made[1].run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("epochs: 4", "epochs: 5"))
    found = rows(results_table([m.run for m in made]))
    assert len(found) == 8
    assert len({r["Recipe"] for r in found}) == 2
    assert all(r["Recipe"].startswith("cam-fake (") for r in found)


def test_tags_have_their_own_table(tmp_path: Path) -> None:
    weak, full = make_run(tmp_path / "weak", truth=False), make_run(tmp_path / "full")
    markdown = results_table([weak.run, full.run])
    found = rows(markdown)
    assert "mean AP" in found[0] and "mIoU" in found[-1]
    assert found[0]["Selected by"] == "tags" and found[-1]["Selected by"] == "masks"
    assert found[3]["tumour"] == f"{weak.scores()[-1]['tags']['average_precision']['tumour']:.3f}"


def test_an_undefined_score_is_not_averaged_away(tmp_path: Path) -> None:
    made = [make_run(tmp_path, seed=seed) for seed in (0, 1)]
    scores = made[1].scores()
    scores[-1]["iou"]["stroma"] = None
    write_json(made[1].run / "scores.json", scores)
    assert rows(results_table([m.run for m in made]))[-1]["stroma"] == "–"


def test_truth_at_test_time_is_marked(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    scores = [{**entry, "protocol": "tissue-drop", "uses_truth": True} for entry in made.scores()]
    write_json(made.run / "scores.json", scores)
    markdown = results_table([made.run])
    assert rows(markdown)[0]["Protocol"] == "tissue-drop †" and "uses truth at test time" in markdown


def test_bars_in_names_do_not_make_columns(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    path = made.run / "scores.json"
    path.write_text(path.read_text().replace(json.dumps("stroma"), json.dumps("a|b")))
    assert "a\0b" in rows(results_table([made.run]))[0]


def test_mistakes_are_named(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    with pytest.raises(EosinError, match="given twice"):
        results_table([made.run, made.run])
    (made.run / "provenance.json").unlink()
    with pytest.raises(EosinError, match=r"provenance\.json: no such file"):
        results_table([made.run])
