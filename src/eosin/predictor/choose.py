"""What a model is best run by on this machine: what its folder holds, what is installed, what the processor has."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from eosin.core.errors import EosinError
from eosin.core.processor import has_bf16
from eosin.predictor.spec import PROGRAM, Card, Precision, Runtime

Auto = Literal["auto"]
_NEEDS = {"openvino": ("openvino",), "onnx": ("onnx", "onnxruntime")}  # what is imported
_EXTRAS = {"openvino": "cpu", "onnx": "onnx"}  # what brings it


def choose(
    folder: Path, runtime: Runtime | Auto = "auto", precision: Precision | Auto = "auto"
) -> tuple[Runtime, Precision]:
    """Fill in what is left open.

    Args:
        folder: a model folder.
        runtime: ``auto`` takes OpenVINO if the folder holds that form and it is installed, else torch if the program
            is there, else ONNX.
        precision: ``auto`` takes bf16 where the processor has it and the runtime can, else fp32; never int8.

    Returns:
        A runtime and a precision. What was asked for is not judged here; loading does.

    Raises:
        EosinError: if nothing that is installed runs any form in the folder.
    """
    if runtime == "auto":
        runtime = "openvino" if precision == "int8" else _best(folder, precision)
    if precision == "auto":
        precision = "bf16" if runtime != "onnx" and has_bf16() else "fp32"
    return runtime, precision


def _best(folder: Path, precision: Precision | Auto) -> Runtime:
    card, missing = Card.read(folder), []
    for runtime in ("openvino", "torch", "onnx"):
        if runtime == "torch":
            if (folder / PROGRAM).is_file():
                return "torch"
        elif runtime in card.exports and (runtime != "onnx" or precision != "bf16"):
            if all(find_spec(package) is not None for package in _NEEDS[runtime]):
                return runtime
            missing.append(f"pip install 'eosin[{_EXTRAS[runtime]}]'")
    mend = f"; {' or '.join(missing)}" if missing else ", copy the model folder whole"
    raise EosinError(f"{folder}: nothing here can be run: no {PROGRAM}, and no form of it for what is installed{mend}")
