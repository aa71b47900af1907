"""What runs a model: what its folder holds, what is installed, what the processor has, in that order."""

from __future__ import annotations

from pathlib import Path

import pytest

from eosin.core.errors import EosinError
from eosin.predictor import choose as choosing
from eosin.predictor.choose import choose
from small_model import card

INSTALLED = frozenset({"openvino", "onnx", "onnxruntime"})


def folder(place: Path, forms: str, program: bool = True) -> Path:
    parity = {"max_difference": 0, "argmax_agreement": 1}
    exports = {form: {"files": {form: "0"}, "parity": parity} for form in forms.split()}
    place.mkdir()
    card(exports=exports).write(place)
    if program:
        (place / "program.pt2").touch()
    return place


@pytest.mark.parametrize(
    ("forms", "program", "installed", "bf16", "asked", "taken"),
    [
        ("", True, INSTALLED, True, ("auto", "auto"), ("torch", "bf16")),
        ("", True, INSTALLED, False, ("auto", "auto"), ("torch", "fp32")),
        ("onnx openvino", True, INSTALLED, True, ("auto", "auto"), ("openvino", "bf16")),
        ("onnx openvino", True, INSTALLED, False, ("auto", "auto"), ("openvino", "fp32")),
        ("onnx openvino", True, frozenset(), True, ("auto", "auto"), ("torch", "bf16")),
        ("onnx", True, INSTALLED, True, ("auto", "auto"), ("torch", "bf16")),
        ("onnx", False, INSTALLED, True, ("auto", "auto"), ("onnx", "fp32")),
        ("onnx openvino", False, INSTALLED - {"openvino"}, True, ("auto", "auto"), ("onnx", "fp32")),
        ("onnx openvino", False, INSTALLED - {"onnx"}, True, ("auto", "auto"), ("openvino", "bf16")),
        ("onnx openvino", True, INSTALLED, True, ("onnx", "auto"), ("onnx", "fp32")),
        ("onnx openvino", True, INSTALLED, True, ("auto", "fp32"), ("openvino", "fp32")),
        ("openvino-int8", True, INSTALLED, True, ("auto", "auto"), ("torch", "bf16")),
        ("openvino-int8", True, INSTALLED, True, ("auto", "int8"), ("openvino", "int8")),
        ("", True, INSTALLED, False, ("torch", "bf16"), ("torch", "bf16")),
    ],
)
def test_what_is_left_open_is_filled_in(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    forms: str,
    program: bool,
    installed: frozenset[str],
    bf16: bool,
    asked: tuple,
    taken: tuple,
) -> None:
    monkeypatch.setattr(choosing, "find_spec", lambda name: name if name in installed else None)
    monkeypatch.setattr(choosing, "has_bf16", lambda: bf16)
    assert choose(folder(tmp_path / "model", forms, program), *asked) == taken


@pytest.mark.parametrize(
    ("forms", "precision", "mend"),
    [
        ("", "auto", "copy the model folder whole"),
        ("onnx", "bf16", "copy the model folder whole"),
        ("onnx", "auto", r"pip install 'eosin\[onnx\]'"),
        ("onnx openvino", "auto", r"pip install 'eosin\[cpu\]' or pip install 'eosin\[onnx\]'"),
    ],
)
def test_a_folder_that_nothing_runs_is_told_with_its_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forms: str, precision: str, mend: str
) -> None:
    monkeypatch.setattr(choosing, "find_spec", lambda name: name if name == "onnx" else None)
    with pytest.raises(EosinError, match=mend) as told:
        choose(folder(tmp_path / "model", forms, program=False), "auto", precision)  # type: ignore[arg-type]
    assert "\n" not in str(told.value)
