"""A doctored model folder runs no code; several of these attacks are shown to run in a plain ``torch.export.load``."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from eosin.core.errors import EosinError
from eosin.predictor.predictor import Predictor
from small_model import TILE

Members = dict[str, bytes]
GRAPH = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


def pickled(place: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Payload(place), buffer)
    return buffer.getvalue()


def code(place: Path) -> str:
    return f"__import__('os').mkdir({str(place)!r})"


def rewritten(members: Members, name: str, change: Callable[[Any], Any]) -> None:
    value = json.loads(members[name])
    members[name] = json.dumps(change(value) or value).encode()


def sample_inputs(members: Members, place: Path) -> None:
    members["data/sample_inputs/model.pt"] = pickled(place)


def pickled_weight(members: Members, place: Path) -> None:
    def change(value: Any) -> None:
        first = next(iter(value["config"].values()))
        first["use_pickle"] = True
        members["data/weights/" + first["path_name"]] = pickled(place)

    rewritten(members, WEIGHTS, change)


def old_weights(members: Members, place: Path) -> None:
    members["data/weights/model.pt"] = pickled(place)


def custom_object(members: Members, place: Path) -> None:
    entry = {"path_name": "custom_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    rewritten(members, CONSTANTS, lambda value: {"config": value["config"] | {"thing": entry}})
    members["data/constants/custom_obj_0"] = pickle.dumps(Payload(place))


def size_formula(members: Members, place: Path) -> None:
    def change(value: Any) -> None:
        size = value["graph_module"]["graph"]["tensor_values"]["tiles"]["sizes"][0]["as_expr"]
        size["expr_str"] = f"{code(place)} or {size['expr_str']}"

    rewritten(members, GRAPH, change)


def size_attribute(members: Members, place: Path) -> None:
    def change(value: Any) -> None:
        size = value["graph_module"]["graph"]["tensor_values"]["tiles"]["sizes"][0]["as_expr"]
        size["expr_str"] = f"Symbol('s0').func.__globals__['os'].mkdir({str(place)!r})"

    rewritten(members, GRAPH, change)


def input_name(members: Members, place: Path) -> None:
    name = json.dumps(f"tiles={code(place)}")
    members[GRAPH] = members[GRAPH].replace(b'"tiles"', name.encode())


def guard(members: Members, place: Path) -> None:
    rewritten(members, GRAPH, lambda value: value | {"guards_code": [f"{code(place)} or True"]})


def operator(members: Members, place: Path) -> None:
    def change(value: Any) -> None:
        node = dict(value["graph_module"]["graph"]["nodes"][0])
        argument = {"name": "path", "arg": {"as_string": str(place)}, "kind": 1}
        node |= {"target": "torch.os.mkdir", "inputs": [argument], "name": "made"}
        value["graph_module"]["graph"]["nodes"].insert(0, node)

    rewritten(members, GRAPH, change)


def library(members: Members, place: Path) -> None:
    members["data/aotinductor/model/model.so"] = b"\x7fELF"


ATTACKS = [
    sample_inputs,
    pickled_weight,
    old_weights,
    custom_object,
    size_formula,
    size_attribute,
    input_name,
    guard,
    operator,
    library,
]


def doctored(plain: Path, folder: Path, attack: Callable[[Members, Path], None], place: Path) -> Path:
    """A copy of the model with an attack in its program and a card that fits."""
    shutil.copytree(plain, folder)
    program = folder / "program.pt2"
    with zipfile.ZipFile(program) as source:
        root = source.namelist()[0].partition("/")[0]
        members = {name.partition("/")[2]: source.read(name) for name in source.namelist()}
    attack(members, place)
    with zipfile.ZipFile(program, "w") as target:
        for name, content in members.items():
            target.writestr(f"{root}/{name}", content)
    signed(folder)
    return folder


def signed(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    card["files"]["program.pt2"] = hashlib.sha256((folder / "program.pt2").read_bytes()).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))


def refusal(folder: Path) -> str:
    with pytest.raises(EosinError) as told:
        Predictor.load(folder)
    line = str(told.value)
    assert "\n" not in line and str(folder) in line
    return line


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_an_attack_is_refused_and_does_not_run(
    plain: Path, tmp_path: Path, attack: Callable[[Members, Path], None]
) -> None:
    place = tmp_path / "ran"
    line = refusal(doctored(plain, tmp_path / "model", attack, place))
    assert "can run code" in line or "could run code" in line or "pickle" in line
    assert not place.exists()


@pytest.mark.parametrize("attack", [sample_inputs, pickled_weight, size_formula, input_name])
@pytest.mark.filterwarnings("ignore")
def test_the_attacks_are_real(plain: Path, tmp_path: Path, attack: Callable[[Members, Path], None]) -> None:
    """Without our check they run: otherwise the test above would prove nothing."""
    place = tmp_path / "ran"
    folder = doctored(plain, tmp_path / "model", attack, place)
    with contextlib.suppress(Exception):  # whatever torch says afterwards, the payload has run
        program = torch.export.load(folder / "program.pt2")
        program.module()(torch.zeros(1, TILE, TILE, 3, dtype=torch.uint8))
    assert place.exists()


def test_the_untouched_copy_loads(plain: Path, tmp_path: Path) -> None:
    folder = doctored(plain, tmp_path / "model", lambda members, place: None, tmp_path)
    assert Predictor.load(folder)(torch.zeros(1, TILE, TILE, 3, dtype=torch.uint8)).shape == (1, 3, TILE, TILE)


def test_a_changed_byte_is_refused(plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain, tmp_path / "model")
    program = tmp_path / "model" / "program.pt2"
    data = bytearray(program.read_bytes())
    data[len(data) // 2] ^= 1
    program.write_bytes(data)
    assert "SHA-256" in refusal(tmp_path / "model")


def test_a_missing_program_is_told(plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain, tmp_path / "model")
    (tmp_path / "model" / "program.pt2").unlink()
    assert "no such file" in refusal(tmp_path / "model")


def test_a_program_that_the_card_does_not_list_is_told(plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain, tmp_path / "model")
    card = json.loads((plain / "card.json").read_text()) | {"files": {}}
    (tmp_path / "model" / "card.json").write_text(json.dumps(card))
    assert "not listed" in refusal(tmp_path / "model")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x05\x06" + b"\0" * 18])
def test_what_is_no_program_is_told(plain: Path, tmp_path: Path, content: bytes) -> None:
    shutil.copytree(plain, tmp_path / "model")
    (tmp_path / "model" / "program.pt2").write_bytes(content)
    signed(tmp_path / "model")
    assert "program.pt2" in refusal(tmp_path / "model")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_doubled_member_is_refused(plain: Path, tmp_path: Path) -> None:
    """Two readers may disagree on which of the two counts."""
    shutil.copytree(plain, tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model" / "program.pt2", "a") as target:
        name = next(n for n in target.namelist() if n.endswith(GRAPH))
        target.writestr(name, target.read(name))
    signed(tmp_path / "model")
    assert "doubled" in refusal(tmp_path / "model")


def test_a_deep_graph_is_refused(plain: Path, tmp_path: Path) -> None:
    def deep(members: Members, place: Path) -> None:
        members[GRAPH] = b"[" * 100_000 + b"]" * 100_000

    assert "not the JSON" in refusal(doctored(plain, tmp_path / "model", deep, tmp_path))
