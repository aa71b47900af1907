"""Digests of settings: one form per meaning, refusal of what has none, and differences in words."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from eosin.core.errors import nearest
from eosin.core.fingerprint import canonical, differences, digest, file_digest
from eosin.core.values import Augment, FitSpec


class Part:
    revision: ClassVar[int] = 1

    def __init__(self, a: int, b: float = 0.5, *rest: int, c: str = "x", **more: int) -> None: ...


class Other(Part): ...


class Revised(Part):
    revision: ClassVar[int] = 2


class Holder:
    def __init__(self, inner: Any, also: Any = None) -> None: ...


class Stain(enum.Enum):
    HAEMATOXYLIN = 1
    EOSIN = 2


class Level(enum.IntEnum):
    ONE = 1


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Setting(BaseModel):
    lr: float = 0.1


class Result:
    def __init__(self, digest: str) -> None:
        self.digest = digest


SAME = {
    "keyword": partial(Part, a=1, b=0.5),
    "default": partial(Part, 1),
    "partial of a partial": partial(partial(Part, 1), 0.5),
    "default by keyword": partial(Part, 1, c="x"),
}


@pytest.mark.parametrize("way", SAME)
def test_positional_keyword_and_default_agree(way: str) -> None:
    assert digest(SAME[way]) == digest(partial(Part, 1, 0.5))


def test_nested_partials_agree_and_count() -> None:
    plain = partial(Holder, partial(Part, 1), also=[partial(Holder, partial(Part, 2))])
    assert digest(plain) == digest(
        partial(Holder, inner=partial(Part, a=1, b=0.5), also=[partial(Holder, inner=partial(Part, a=2))])
    )
    assert digest(plain) != digest(partial(Holder, partial(Part, 1), also=[partial(Holder, partial(Part, 3))]))


DISTINCT = [
    None,
    True,
    1,
    1.0,
    "1",
    [1],
    {"a": 1},
    {1},
    "",
    float("nan"),
    float("inf"),
    0.1 + 0.2,
    0.3,
    Part,
    Other,
    Revised,
    partial(Part, 1),
    partial(Other, 1),
    partial(Revised, 1),
    partial(Part, 1, 0.25),
    partial(Part, 1, 0.5, 7),
    partial(Part, 1, more=1),
    partial(Holder, None),
    Stain.EOSIN,
    Stain.HAEMATOXYLIN,
    Level.ONE,
    Point(1),
    Point(1, 2),
    Setting(),
    Setting(lr=0.2),
    Augment(),
    nearest,
    digest,
    Result("f" * 64),
]


def test_what_differs_in_meaning_differs_in_digest() -> None:
    assert len({digest(value) for value in DISTINCT}) == len(DISTINCT)


def test_what_agrees_in_meaning_agrees_in_digest() -> None:
    assert digest((1, 2)) == digest([1, 2])
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"stroma", "tumour", "necrosis"}) == digest(frozenset(["necrosis", "tumour", "stroma"]))
    assert digest(Setting()) == digest(Setting(lr=0.1))
    assert digest(Point(1)) == digest(Point(x=1, y=0))
    assert digest(partial(Part, 1, more=1, most=2)) == digest(partial(Part, 1, most=2, more=1))


@given(st.floats())
def test_floats_keep_every_bit(value: float) -> None:
    form = canonical(value)
    assert isinstance(form, dict) and isinstance(form["float"], str)
    assert float.fromhex(form["float"]).hex() == value.hex()


Settings = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(Settings, Settings)
def test_equal_forms_only_for_equal_settings(one: Any, other: Any) -> None:
    def typed(value: Any) -> Any:
        if isinstance(value, list):
            return [typed(v) for v in value]
        if isinstance(value, dict):
            return {k: typed(v) for k, v in value.items()}
        return type(value).__name__, value.hex() if isinstance(value, float) else value

    assert (digest(one) == digest(other)) == (typed(one) == typed(other))
    assert bool(differences(canonical(one), canonical(other))) == (typed(one) != typed(other))


@pytest.mark.parametrize(
    "form", [1.5, Stain.EOSIN, Part, Result("0"), Setting(), Point(1), {1}, nearest, partial(Part, 1)]
)
def test_a_mapping_cannot_pass_for_something_else(form: Any) -> None:
    with pytest.raises(TypeError, match="cannot be told from a canonical form"):
        canonical(canonical(form))


class Local:
    def method(self) -> None: ...


def _local() -> type:
    class Hidden: ...

    return Hidden


REFUSED = {
    "lambda": lambda: lambda x: x,
    "partial of a lambda": lambda: partial(lambda x: x, 1),
    "lambda inside": lambda: partial(Holder, {"a": [lambda: 1]}),
    "tensor": lambda: torch.zeros(2),
    "tensor inside": lambda: partial(Holder, also=torch.zeros(2), inner=None),
    "module": lambda: torch.nn.Linear(1, 1),
    "path": lambda: Path("weights.pth"),
    "path inside": lambda: {"file": Path("weights.pth")},
    "class of a script": lambda: type("Scripted", (), {"__module__": "__main__"}),
    "class in a function": _local,
    "bound method": lambda: Local().method,
    "bare object": lambda: object(),
    "bytes": lambda: b"x",
    "keys that are not text": lambda: {1: 2},
    "unknown argument": lambda: partial(Holder, outer=1),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_has_no_lasting_meaning_is_refused(what: str) -> None:
    with pytest.raises(TypeError):
        digest(REFUSED[what]())


def test_the_same_under_every_hash_seed() -> None:
    script = """
from functools import partial
from eosin.core.errors import nearest
from eosin.core.fingerprint import digest
from eosin.core.values import Augment, FitSpec
print(digest([{"b", "a", "lymphocytes"}, frozenset([0.1, 2, None]), {"z": 1, "a": 2.5},
    FitSpec(augment=Augment(crop=64)), partial(nearest, "a", known={"x", "y", "z"}),
    partial(nearest, name="a", known={"z", "y", "x"})]))
"""
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4711")
    }
    assert len(found) == 1 and len(found.pop().strip()) == 64


def test_the_form_is_plain_json() -> None:
    form = canonical({"fit": FitSpec(), "build": partial(Holder, partial(Part, 1))})
    assert json.loads(json.dumps(form)) == form


def settings(lr: float = 0.3, **build: Any) -> dict[str, Any]:
    return {"fit": FitSpec(lr=lr), "build": partial(Holder, partial(Part, 1, **build)), "inputs": {"masks": "0" * 64}}


def changes(old: Any, new: Any) -> list[str]:
    return differences(canonical(old), canonical(new))


def test_differences_are_said_in_words() -> None:
    assert changes(settings(), settings()) == []
    assert changes(settings(), settings(lr=0.31)) == ["fit.lr: 0.3 -> 0.31"]
    assert changes(settings(), settings(b=2.0, c="y")) == ["build.inner.b: 0.5 -> 2.0", "build.inner.c: x -> y"]
    crop = {**settings(), "fit": FitSpec(lr=0.3, augment=Augment(crop=64, stain=0.1))}
    assert changes(settings(), crop) == ["fit.augment.crop: 0 -> 64", "fit.augment.stain: 0.0 -> 0.1"]
    assert changes(FitSpec(), FitSpec(ema=0.9)) == ["ema: 0.0 -> 0.9"]


def test_differences_name_what_came_and_went() -> None:
    assert changes({"a": 1}, {"b": 1}) == ["a: removed", "b: added"]
    assert changes({"part": Part}, {"part": Other}) == [f"part.class: {__name__}.Part -> {__name__}.Other"]
    assert changes({"part": partial(Part, 1)}, {"part": partial(Revised, 1)}) == [
        f"part.class: {__name__}.Part -> {__name__}.Revised",
        "part.revision: 1 -> 2",
    ]
    assert changes({"a": None}, {"a": True}) == ["a: null -> true"]


def test_differences_show_lists_and_floats_as_people_write_them() -> None:
    assert changes({"scales": (1.0, 0.5)}, {"scales": (1.0, 2.0)}) == ["scales[1]: 0.5 -> 2.0"]
    assert changes({"scales": (1.0,)}, {"scales": (1.0, 0.5)}) == ["scales: [1.0] -> [1.0, 0.5]"]
    assert changes({"x": 0.1}, {"x": None}) == ["x: 0.1 -> null"]
    assert changes({"x": 0.1}, {"x": {"y": 0.5}}) == ['x: 0.1 -> {"y": 0.5}']
    (long,) = changes({"x": "a" * 100}, {"x": "b"})
    assert long == f"x: {'a' * 57}... -> b"


def test_the_digest_of_a_file_is_that_of_its_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"eosin")
    (tmp_path / "b").write_bytes(b"eosin")
    assert file_digest(tmp_path / "a") == file_digest(tmp_path / "b")
    assert file_digest(tmp_path / "a") == hashlib.sha256(b"eosin").hexdigest()
