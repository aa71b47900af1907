"""Ablation files: strict, found by name or path, and each row resolves to the recipe that it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from eosin.core.errors import WrongUse
from eosin.recipe import ABLATIONS, Ablation, Recipe, load_ablation, shipped
from eosin.verbs.train import resolve

BASE = """# a recipe
method: cam
claim: {source: The paper, protocol: strict, miou: 50, dice: 60}
fit: {lr: 1.0e-3}
"""
CLAIM = {"source": "Table 3", "protocol": "tissue-drop", "miou": 61.5}


def table(folder: Path, rows: Any, **more: Any) -> str:
    (folder / "base.v1.yaml").write_text(BASE)
    path = folder / "rows.yaml"
    path.write_text(yaml.safe_dump({"base": "base.v1.yaml", "rows": rows, **more}))
    return str(path)


def resolved(ablation: Ablation) -> list[Recipe]:
    return [resolve(ablation.base, ablation.overrides(k))[0] for k in range(len(ablation.rows))]


ROWS = [
    {"name": "base"},
    {"name": "pool", "set": {"options.pool": "gap", "fit.classifier.lr": 1e-05}},
    {"name": "views", "set": {"options.map_views": 1, "fit": {"augment": {"stain": 0.25}}}, "claim": CLAIM},
]


def test_rows_change_the_base_alone(tmp_path: Path) -> None:
    base, pool, views = resolved(load_ablation(table(tmp_path, ROWS)))
    assert (base.options["pool"], base.options["map_views"]) == ("highest", 8)
    assert (pool.options["pool"], pool.options["map_views"], pool.fit["classifier"]["lr"]) == ("gap", 8, 1e-5)
    assert (views.options["pool"], views.options["map_views"]) == ("highest", 1)
    assert views.fit["segmenter"]["augment"]["stain"] == 0.25
    assert views.fit["segmenter"]["lr"] == 1e-3


def test_cumulative_rows_keep_what_those_above_set(tmp_path: Path) -> None:
    base, pool, views = resolved(load_ablation(table(tmp_path, ROWS, layout="cumulative")))
    assert (base.options["pool"], base.options["map_views"]) == ("highest", 8)
    assert (pool.options["pool"], pool.options["map_views"]) == ("gap", 8)
    assert (views.options["pool"], views.options["map_views"], views.fit["classifier"]["lr"]) == ("gap", 1, 1e-5)


def test_what_the_paper_printed_for_the_recipe_is_not_claimed_for_a_change_of_it(tmp_path: Path) -> None:
    base, pool, views = resolved(load_ablation(table(tmp_path, ROWS)))
    assert base.claim is not None and base.claim.miou == 50
    assert pool.claim is None
    assert views.claim is not None
    assert views.claim.model_dump(exclude_defaults=True) == CLAIM  # nothing of the base's is left in it


def test_a_base_by_name_is_a_shipped_recipe(tmp_path: Path) -> None:
    path = tmp_path / "rows.yaml"
    path.write_text(yaml.safe_dump({"base": "cam-phantom", "rows": [{"name": "a"}]}))
    assert load_ablation(str(path)).base == "cam-phantom"


@pytest.mark.parametrize(
    ("rows", "more", "words"),
    [
        ([], {}, "rows"),
        ([{"name": "a"}, {"name": "a"}], {}, "two rows have the same name"),
        ([{"name": ""}], {}, r"rows\.0\.name"),
        ([{}], {}, r"key 'rows\.0\.name' is missing"),
        ([{"name": "a", "sets": {}}], {}, r"unknown key 'rows\.0\.sets' \(did you mean 'set'"),
        ([{"name": "a", "claim": {**CLAIM, "mious": 3}}], {}, r"rows\.0\.claim\.mious' \(did you mean 'miou'"),
        ([{"name": "a", "set": {"seed": 3}}], {}, "'seed' cannot be set by a row"),
        ([{"name": "a", "set": {"data.phantom.patches": 3}}], {}, "'data.phantom.patches' cannot be set by a row"),
        ([{"name": "a", "set": {"data": {"name": "x"}}}], {}, "'data' cannot be set by a row"),
        ([{"name": "a", "set": {"claim.miou": 3}}], {}, r"'claim\.miou' cannot be set by a row"),
        ([{"name": "a"}], {"layout": "nested"}, "layout = 'nested'"),
        ([{"name": "a"}], {"bse": "x"}, "did you mean 'base'"),
        ("none", {}, "rows"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path: Path, rows: Any, more: dict[str, Any], words: str) -> None:
    with pytest.raises(WrongUse, match=words) as caught:
        load_ablation(table(tmp_path, rows, **more))
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "rows.yaml") in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a\n- b\n", "expected keys and values"),
        ("base: [\n", "not valid YAML"),
        ("", "expected keys and values"),
        ("rows: [{name: a}]\n", "key 'base' is missing"),
        ("base: x\nrows: [{name: a, set: {fit.lr: 2020-01-01}}]\n", r"fit\.lr"),
    ],
)
def test_a_file_that_is_no_ablation_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "my rows.yaml"
    path.write_text(text)
    with pytest.raises(WrongUse, match=words) as caught:
        load_ablation(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere/rows.yaml", "nowhere/rows.yaml: no such ablation file"),
        ("cam-fantom", "did you mean 'cam-phantom'"),
        ("nothing-like-it", r"is not shipped and is not a .yaml file \(known: .*cam-phantom"),
    ],
)
def test_an_ablation_that_is_not_there_is_told(name: str, words: str) -> None:
    with pytest.raises(WrongUse, match=words):
        load_ablation(name)


def test_a_folder_is_no_ablation(tmp_path: Path) -> None:
    (tmp_path / "rows.yaml").mkdir()
    with pytest.raises(WrongUse, match="no such ablation file"):
        load_ablation(str(tmp_path / "rows.yaml"))


@pytest.mark.parametrize("name", shipped(ABLATIONS))
def test_every_row_of_a_shipped_ablation_resolves_and_differs(name: str) -> None:
    ablation = load_ablation(name)
    assert ablation.base in shipped()
    recipes = resolved(ablation)
    assert len({recipe.digest for recipe in recipes}) == len(recipes)
    assert shipped(ABLATIONS)[name].startswith("# ")


@pytest.mark.parametrize("name", [name for name in shipped(ABLATIONS) if load_ablation(name).base.endswith("-phantom")])
def test_the_rows_of_a_shipped_ablation_can_change_the_recipe_for_glas(name: str) -> None:
    ablation = load_ablation(name)
    bench, longer = (ablation.base.replace("-phantom", end) for end in ("-glas-bench", "-glas"))
    recipes = resolved(ablation.model_copy(update={"base": bench if bench in shipped() else longer}))
    assert len({recipe.digest for recipe in recipes}) == len(recipes)


def test_shipped_ablations_are_no_recipes() -> None:
    assert ABLATIONS not in shipped()
    assert set(shipped(ABLATIONS)) >= {"cam-phantom"}
