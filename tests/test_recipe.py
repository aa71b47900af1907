"""Recipes are strict: a wrong key names the right one, at every depth, in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from eosin.core.errors import WrongUse
from eosin.core.values import Augment, FitSpec
from eosin.methods.discover import method, methods
from eosin.recipe import Recipe, dump, load, merged, shipped, validated

STEPS = {"cam": ("classifier", "segmenter"), "supervised": ("segmenter",)}

PLAIN = """\
method: cam
options: {tap: 2, scale: 0.5}
data: {name: glas, tile: 224}
fit:
  lr: 1.0e-3
  augment: {stain: 0.15, blur: 0.5}
  classifier: {epochs: 8, augment: {crop: 64}}
  segmenter: {lr: 0.5}
claim: {source: a paper, protocol: strict, miou: 61.5}
seed: 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "plain.yaml"
    path.write_text(PLAIN)
    return path


def read(file: Path, *overrides: str) -> Recipe:
    return load(str(file), overrides, STEPS)


def refused(file: Path, *overrides: str) -> str:
    with pytest.raises(WrongUse) as caught:
        read(file, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_steps_lie_over_what_they_share(file: Path) -> None:
    recipe = read(file)
    assert recipe.fit_spec("classifier") == FitSpec(lr=1e-3, epochs=8, augment=Augment(stain=0.15, blur=0.5, crop=64))
    assert recipe.fit_spec("segmenter") == FitSpec(lr=0.5, augment=Augment(stain=0.15, blur=0.5))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optoins.tap=1", "unknown key 'optoins' (did you mean 'options'?)"),
        ("data.tiles=1", "unknown key 'data.tiles' (did you mean 'tile'?)"),
        ("claim.sorce=x", "unknown key 'claim.sorce' (did you mean 'source'?)"),
        ("fit.learning_rate=1", "unknown key 'fit.learning_rate' (known: "),
        ("fit.epoch=1", "unknown key 'fit.epoch' (did you mean 'epochs'?)"),
        ("fit.clasifier.epochs=1", "unknown key 'fit.clasifier' (did you mean 'classifier'?)"),
        ("fit.classifier.epoch=1", "fit.classifier: unknown key 'epoch' (did you mean 'epochs'?)"),
        ("fit.augment.stian=1", "fit.classifier: unknown key 'augment.stian' (did you mean 'stain'?)"),
        ("fit.segmenter.augment.crp=1", "fit.segmenter: unknown key 'augment.crp' (did you mean 'crop'?)"),
        ("fit.segmenter=5", "fit.segmenter: expected keys and values, not 5"),
        ("fit.segmenter=", "fit.segmenter: expected keys and values, not None"),
        ("fit.segmenter.lr=-1", "fit.segmenter: lr = -1: Input should be greater than 0"),
        ("fit.segmenter.lr=fast", "fit.segmenter: lr = 'fast': Input should be a valid number"),
        ("fit.schedule=linear", "schedule = 'linear': Input should be 'constant', 'poly', 'cosine' or 'onecycle'"),
        ("data.tile=-1", "data.tile = -1: Input should be greater than or equal to 0"),
        ("seed=-1", "seed = -1: Input should be greater than or equal to 0"),
        ("method.name=cam", "method = {'name': 'cam'}: Input should be a valid string"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(file: Path, override: str, message: str) -> None:
    found = refused(file, override)
    assert found.startswith(f"{file}: ") and message in found


@pytest.mark.parametrize("override", ["lr", "=3", " =3", "lr=[1"])
def test_an_override_that_is_none(file: Path, override: str) -> None:
    assert refused(file, override).startswith(f"--set {override!r}: ")


def test_overrides_are_read_as_yaml(file: Path) -> None:
    recipe = read(
        file,
        "options.scales=[1, 0.5]",
        "options.pretrained=none",
        "options.merge=false",
        "fit.lr = 1e-4",
        "fit.segmenter.augment.blur=0",
        "claim=null",
        "seed=7",
        "seed=8",
        "data.name=a=b",
    )
    assert recipe.options == {"tap": 2, "scale": 0.5, "scales": [1, 0.5], "pretrained": "none", "merge": False}
    assert recipe.fit_spec("classifier").lr == 1e-4 and recipe.fit_spec("segmenter").augment.blur == 0
    assert recipe.claim is None and recipe.seed == 8 and recipe.data.name == "a=b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a recipe is a mapping"),
        ("- cam", "a recipe is a mapping"),
        ("method: [cam", "not valid YAML (while parsing a flow sequence"),
        ("method: \xff", "not valid YAML"),
        ("options: {}", "key 'method' is missing; add it"),
        ("method: cam\nclaim: {protocol: strict}", "key 'claim.source' is missing; add it"),
    ],
)
def test_files_that_are_no_recipes(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(text.encode("latin-1"))
    assert message in refused(file) and refused(file).startswith(f"{file}: ")


def test_names_that_are_not_there(tmp_path: Path) -> None:
    assert refused(tmp_path / "no.yaml").endswith("no.yaml: no such recipe file")
    assert "(did you mean 'cam-phantom'?)" in refused(Path("cam-phantm"))


def test_a_method_that_is_not_known_is_left_to_discovery(file: Path) -> None:
    assert read(file, "method=other").method == "other"


def test_the_digest_is_that_of_all_but_the_claim(file: Path, tmp_path: Path) -> None:
    recipe = read(file)
    assert re.fullmatch("[0-9a-f]{64}", recipe.digest)
    assert recipe.digest == read(file, "claim.miou=70").digest == read(file, "claim=null").digest
    shuffled = tmp_path / "shuffled.yaml"
    values = yaml.safe_load(PLAIN)
    shuffled.write_text(yaml.safe_dump({k: values[k] for k in reversed(values)}, sort_keys=False))
    assert read(shuffled).digest == recipe.digest
    changes = ("seed=4", "options.tap=3", "fit.lr=0.1", "fit.segmenter.lr=0.1", "data.tile=0", "protocol=binary")
    assert len({recipe.digest, *(read(file, change).digest for change in changes)}) == 1 + len(changes)


def test_what_is_written_is_read_again(file: Path, tmp_path: Path) -> None:
    recipe = read(file, "options.unset=null", "fit.classifier.lr=0.30000000000000004")
    again = tmp_path / "recipe.yaml"
    again.write_text(dump(recipe), encoding="utf-8")
    assert read(again) == recipe and read(again).digest == recipe.digest


def test_merging_leaves_both_sides_alone() -> None:
    below, above = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}, "d": {"e": 5}}
    assert merged(below, above) == {"a": {"b": 4, "c": 2}, "d": {"e": 5}}
    assert below == {"a": {"b": 1, "c": 2}, "d": 3} and above == {"a": {"b": 4}, "d": {"e": 5}}


def test_values_that_are_no_mapping() -> None:
    with pytest.raises(WrongUse, match="fit: expected keys and values, not 3"):
        validated(FitSpec, 3, "fit")


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_fits_its_method(name: str) -> None:
    steps = {key: kind.steps for key, kind in methods().items()}
    recipe = load(name, steps=steps)
    kind = method(recipe.method)
    assert validated(kind, recipe.options, name)
    assert name.startswith(recipe.method.replace("_", "-") + "-"), "<method>-<dataset>.yaml"
    assert {key for key in recipe.fit if key not in FitSpec.model_fields} <= set(kind.steps)
    for step in kind.steps:
        assert isinstance(recipe.fit_spec(step), FitSpec)
    assert shipped()[name].startswith("# "), "the first line says what it is for"
