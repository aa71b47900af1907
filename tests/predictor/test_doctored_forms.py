"""Doctored ONNX and OpenVINO files: what leads out of them, or is not the runtime's own, is refused in one line."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eosin.core.errors import EosinError
from eosin.engine.export import tissue
from eosin.predictor.predictor import Predictor
from small_model import TILE

FILES = [("onnx", "model.onnx"), ("openvino", "model.xml"), ("openvino", "model.bin")]


@pytest.fixture
def model(forms: Path, tmp_path: Path) -> Path:
    return shutil.copytree(forms, tmp_path / "model")


def signed(folder: Path) -> None:
    """Make the card fit what was doctored."""
    card = json.loads((folder / "card.json").read_text())
    for export in card["exports"].values():
        for name in export["files"]:
            export["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))


def refusal(folder: Path, runtime: str) -> str:
    with pytest.raises(EosinError) as told:
        Predictor.load(folder, runtime=runtime)  # type: ignore[arg-type]
    line = str(told.value)
    assert "\n" not in line and str(folder) in line
    return line


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


# -- both ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("runtime", "name"), FILES)
def test_a_changed_byte_is_refused(model: Path, runtime: str, name: str) -> None:
    data = bytearray((model / name).read_bytes())
    data[len(data) // 2] ^= 1
    (model / name).write_bytes(data)
    assert f"{name}: its SHA-256 is not the card's" in refusal(model, runtime)


@pytest.mark.parametrize(("runtime", "name"), FILES)
def test_a_missing_file_is_told(model: Path, runtime: str, name: str) -> None:
    (model / name).unlink()
    assert f"{name}: no such file; copy the model folder whole" in refusal(model, runtime)


@pytest.mark.parametrize(("runtime", "name"), FILES)
def test_a_file_that_the_card_does_not_list_is_not_read(model: Path, runtime: str, name: str) -> None:
    card = json.loads((model / "card.json").read_text())
    files = card["exports"][runtime]["files"]
    files["../outside"] = files.pop(name)
    (model / "card.json").write_text(json.dumps(card))
    assert f"{name} is not listed" in refusal(model, runtime)


@pytest.mark.parametrize(("runtime", "name"), FILES[:2])
@pytest.mark.parametrize("content", [b"", b"no model", b"\x80\x04", bytes(range(256))])
def test_what_is_no_model_is_told(model: Path, runtime: str, name: str, content: bytes) -> None:
    (model / name).write_bytes(content)
    signed(model)
    assert name in refusal(model, runtime)


@pytest.mark.parametrize(("runtime", "name"), FILES)
def test_a_pickle_in_its_place_is_not_opened(model: Path, tmp_path: Path, runtime: str, name: str) -> None:
    (model / name).write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    signed(model)
    assert str(model) in refusal(model, runtime)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_card_that_contradicts_the_model_is_told(model: Path, runtime: str) -> None:
    card = json.loads((model / "card.json").read_text()) | {"tile": 2 * TILE}
    (model / "card.json").write_text(json.dumps(card))
    assert "but the card says" in refusal(model, runtime)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_the_untouched_copy_loads(model: Path, runtime: str) -> None:
    signed(model)
    predictor = Predictor.load(model, runtime=runtime)  # type: ignore[arg-type]
    assert predictor(torch.zeros(1, TILE, TILE, 3, dtype=torch.uint8)).shape == (1, 3, TILE, TILE)


# -- ONNX ----------------------------------------------------------------------------------------------------------


def external(place: str) -> Callable[[Any], None]:
    def change(network: Any) -> None:
        import onnx

        tensor = next(t for t in network.graph.initializer if len(t.raw_data) > 100)
        length = len(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", place), ("offset", "0"), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)

    return change


def hidden_external(network: Any) -> None:
    """In a constant inside a branch, where a search of the initialisers alone does not look."""
    import onnx
    from onnx import helper

    tensor = onnx.TensorProto(name="inner", data_type=1, dims=[2], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../secret")
    constant = helper.make_node("Constant", [], ["inner"], value=tensor)
    body = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("inner", 1, [2])])
    network.graph.initializer.append(helper.make_tensor("always", onnx.TensorProto.BOOL, [], [True]))
    network.graph.node.append(helper.make_node("If", ["always"], ["taken"], then_branch=body, else_branch=body))


def foreign_operator(network: Any) -> None:
    from onnx import helper

    network.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    network.graph.node.append(helper.make_node("EPContext", [], ["x"], domain="com.microsoft", ep_cache_context="/x"))


def foreign_operator_unannounced(network: Any) -> None:
    network.graph.node[0].domain = "ai.other"


def function(network: Any) -> None:
    from onnx import helper

    network.functions.append(helper.make_function("f", "Relu", ["a"], ["a"], [], network.opset_import))


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (external("../../secret.bin"), "lies in another file ('../../secret.bin')"),
        (external("/etc/passwd"), "lies in another file ('/etc/passwd')"),
        (external("weights.bin"), "lies in another file ('weights.bin')"),
        (hidden_external, "lies in another file ('../../secret')"),
        (foreign_operator, "operators of 'com.microsoft' are not ONNX's own"),
        (foreign_operator_unannounced, "operators of 'ai.other' are not ONNX's own"),
        (function, "operators of 'f' are not ONNX's own"),
    ],
)
def test_an_onnx_file_that_is_not_whole_in_itself_is_refused(
    model: Path, attack: Callable[[Any], None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx
    import onnxruntime

    network = onnx.load_model_from_string((model / "model.onnx").read_bytes())
    attack(network)
    (model / "model.onnx").write_bytes(network.SerializeToString())
    (model / "weights.bin").write_bytes(bytes(10_000))
    signed(model)
    monkeypatch.chdir(model)
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)  # it must not even be given such a file
    line = refusal(model, "onnx")
    assert said in line and "it was not loaded" in line


def test_the_attack_on_onnx_is_real(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without our check onnxruntime takes weights from a file that no digest covers."""
    import onnx
    import onnxruntime

    network = onnx.load_model_from_string((model / "model.onnx").read_bytes())
    external("weights.bin")(network)
    (model / "model.onnx").write_bytes(network.SerializeToString())
    (model / "weights.bin").write_bytes(bytes(10_000))
    session = onnxruntime.InferenceSession(model / "model.onnx", providers=["CPUExecutionProvider"])
    tiles = tissue(TILE).numpy()
    assert not np.allclose(session.run(None, {"tiles": tiles})[0], Predictor.load(model)(tiles).numpy())


def test_an_onnx_graph_that_cannot_be_built_is_told(model: Path) -> None:
    import onnx

    network = onnx.load_model_from_string((model / "model.onnx").read_bytes())
    network.graph.node[0].op_type = "NoSuchOperator"
    (model / "model.onnx").write_bytes(network.SerializeToString())
    signed(model)
    assert "onnxruntime cannot build it" in refusal(model, "onnx")


# -- OpenVINO ------------------------------------------------------------------------------------------------------


def doctor(model: Path, old: str, new: str) -> None:
    text = (model / "model.xml").read_text()
    assert old in text
    (model / "model.xml").write_text(text.replace(old, new, 1))
    signed(model)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('type="Transpose" version="opset1"', 'type="Transpose" version="extension"', "layer 'extension.Transpose'"),
        ('type="Transpose" version="opset1"', 'type="Transpose"', "layer 'None.Transpose' is not OpenVINO's own"),
        ("<net ", '<!DOCTYPE net [<!ENTITY x SYSTEM "file:///etc/passwd">]><net ', "declares entities"),
        ("<layers>", "<strata>", "not a model of OpenVINO"),
        ('type="Transpose" version="opset1"', 'type="NoSuchLayer" version="opset1"', "OpenVINO cannot build it"),
        ('offset="0"', 'offset="99999999"', "OpenVINO cannot build it"),
        ('offset="0"', 'offset="-4"', "OpenVINO cannot build it"),
        ('size="32"', 'size="99999999"', "OpenVINO cannot build it"),
    ],
)
def test_a_description_of_anything_else_is_refused(model: Path, old: str, new: str, said: str) -> None:
    doctor(model, old, new)
    assert said in refusal(model, "openvino")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-7"])
def test_entities_do_not_hide_behind_an_encoding(model: Path, encoding: str) -> None:
    text = '<!DOCTYPE net [<!ENTITY x "y">]><net><layers/><edges/></net>'
    (model / "model.xml").write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>{text}'.encode(encoding))
    signed(model)
    assert "model.xml" in refusal(model, "openvino")


def test_notes_in_a_description_do_not_reach_openvino(model: Path) -> None:
    from eosin.predictor.runtimes.openvino import recognised

    doctor(model, "</edges>", '</edges><rt_info><weights_path value="../../secret"/></rt_info><meta_data/>')
    clean = recognised(model / "model.xml", (model / "model.xml").read_bytes())
    assert b"secret" not in clean and b"rt_info" not in clean and b"meta_data" not in clean
    assert Predictor.load(model, runtime="openvino")
