"""An ONNX file, run by onnxruntime on the CPU in float32.

Such a file holds no code, but it may name other files as the place of its weights, and operators that read files or
come from libraries. So it is taken apart first: everything must lie in the file itself, and every operator must be of
ONNX's own set. What was recognised is written out anew, so that two readers of one file cannot see two models.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from eosin.core.errors import EosinError, WrongUse
from eosin.predictor.files import check_ends, listed
from eosin.predictor.runtimes import Run
from eosin.predictor.spec import Card, Precision

if TYPE_CHECKING:
    from onnx import ModelProto

MODEL = "model.onnx"
OWN = ("", "ai.onnx")  # names of ONNX's own set of operators


def load(folder: Path, files: Mapping[str, str], card: Card, precision: Precision) -> Run:
    """See ``eosin.predictor.runtimes``.

    Raises:
        EosinError: if the file is missing, changed, or holds anything but weights and ONNX's own operators, or
            onnxruntime is not installed.
        WrongUse: for another precision than ``fp32``.
    """
    if precision != "fp32":
        raise WrongUse(f"onnxruntime runs this model in fp32, not {precision}; use --runtime openvino or torch")
    path = folder / MODEL
    data = listed(folder, MODEL, files)
    onnxruntime = library()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what is wrong is raised
    state = onnxruntime.capi.onnxruntime_pybind11_state
    known = (state.Fail, state.InvalidGraph, state.InvalidProtobuf, state.InvalidArgument, state.NotImplemented)
    clean = recognised(path, data).SerializeToString()
    try:
        session = onnxruntime.InferenceSession(clean, options, providers=["CPUExecutionProvider"])
    except (*known, state.RuntimeException, state.NoSuchFile) as error:
        line = " ".join(str(error).split())
        raise EosinError(f"{path}: onnxruntime cannot build it ({line:.120}); export the model again") from None
    check_ends(path, card, tuple(map(_end, (*session.get_inputs(), *session.get_outputs()))))
    name = session.get_inputs()[0].name

    def run(tiles: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: tiles.contiguous().numpy()})[0])

    return run


def library() -> Any:
    """onnxruntime, which on its own gives the machine an id and sends it to its makers when it is imported.

    Raises:
        EosinError: if it is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnx  # noqa: F401  (reads what a file holds)
        import onnxruntime
    except ImportError as error:
        raise EosinError(f"{error.name} is not installed: pip install 'eosin[onnx]'") from None
    onnxruntime.disable_telemetry_events()  # where somebody else has imported it before
    return onnxruntime


def recognised(path: Path, data: bytes) -> ModelProto:
    """Read an ONNX file that is whole in itself.

    Raises:
        EosinError: if it is none, or names another file or an operator that is not ONNX's own.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load_model_from_string(data)
    except DecodeError:
        raise EosinError(f"{path}: not an ONNX model; export the model again") from None
    model.DiscardUnknownFields()
    for part in parts(model):
        kind = part.DESCRIPTOR.name
        if kind == "TensorProto" and (part.external_data or part.data_location == onnx.TensorProto.EXTERNAL):
            place = {entry.key: entry.value for entry in part.external_data}.get("location", "")
            raise EosinError(
                f"{path}: tensor {part.name!r:.60} lies in another file ({place!r:.60}); it was not loaded"
            )
        if kind == "FunctionProto" or (kind in ("NodeProto", "OperatorSetIdProto") and part.domain not in OWN):
            raise EosinError(f"{path}: operators of {part.domain!r:.60} are not ONNX's own; it was not loaded")
    return model


def parts(message: Any) -> Iterator[Any]:
    """Every message inside a message, and itself."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                yield from parts(part)


def _end(end: Any) -> tuple[tuple[int | str, ...], str]:
    kind = end.type.removeprefix("tensor(").removesuffix(")")
    return tuple(end.shape[1:]), "float32" if kind == "float" else kind
