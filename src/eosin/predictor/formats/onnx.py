"""A stored program as one ONNX file: batch free, tile fixed, weights inside, nothing of the machine that made it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.nn import functional as F

from eosin.core.errors import EosinError
from eosin.predictor.runtimes.onnx import MODEL, parts

if TYPE_CHECKING:
    from onnx import GraphProto

INPUT, OUTPUT, BATCH = "tiles", "probabilities", "batch"
LARGEST = 2_000_000_000  # bytes of weights; a file of this kind has 2**31 at most


def write(program: ExportedProgram, folder: Path) -> list[str]:
    """Write ``model.onnx`` into a folder and return the names of what was written; raises as :func:`to_onnx`."""
    (folder / MODEL).write_bytes(to_onnx(program))
    return [MODEL]


def to_onnx(program: ExportedProgram) -> bytes:
    """The bytes of an ONNX model.

    Args:
        program: one tensor in, one out, with a free batch; it must not be used afterwards.

    Raises:
        EosinError: if ONNX has no word for an operator, the model is larger than the 2 GB that one file may have, or
            the libraries are not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise EosinError(f"ONNX needs {error.name}, which is not installed: pip install 'eosin[onnx]'") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        try:
            made = torch.onnx.export(
                program, (), dynamo=True, verbose=False, input_names=[INPUT], output_names=[OUTPUT]
            )
        except RuntimeError as error:
            line = " ".join(str(error).split())
            raise EosinError(f"the model cannot be written as ONNX: {line:.200}") from None
    assert made is not None
    model = made.model_proto
    _smooth_by_products(model.graph)
    for part in parts(model):
        for note in ("metadata_props", "doc_string"):  # how the exporter came to it
            if note in part.DESCRIPTOR.fields_by_name:
                part.ClearField(note)
    del model.graph.value_info[:]  # every reader finds these by itself
    for end in (model.graph.input[0], model.graph.output[0]):
        end.type.tensor_type.shape.dim[0].dim_param = BATCH
    if (size := sum(len(weights.raw_data) for weights in model.graph.initializer)) > LARGEST:
        raise EosinError(f"the model has {size / 1e9:.1f} GB of weights, more than the 2 GB of one ONNX file")
    content: bytes = model.SerializeToString()
    return content


def _smooth_by_products(graph: GraphProto) -> None:
    """Write every smoothed resizing (antialias) as what it is at a fixed size: a product with a matrix on either side.

    OpenVINO resizes otherwise than torch there, without an error, and other runtimes do not know it at all.
    """
    from onnx import helper, numpy_helper

    ends = (*graph.input, *graph.value_info, *graph.output)
    sides = {end.name: [d.dim_value for d in end.type.tensor_type.shape.dim] for end in ends}
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        said: dict[str, Any] = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type != "Resize" or not said.get("antialias"):
            graph.node.append(node)
            continue
        (rows, columns), (below, right) = sides[node.input[0]][-2:], sides[node.output[0]][-2:]
        mode = "bicubic" if said["mode"] == b"cubic" else "bilinear"
        name = node.output[0]
        down, across = _matrix(rows, below, mode), _matrix(columns, right, mode).T
        graph.initializer.append(numpy_helper.from_array(down, f"{name}_down"))
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(across), f"{name}_across"))
        graph.node.append(helper.make_node("MatMul", [f"{name}_down", node.input[0]], [f"{name}_rows"]))
        graph.node.append(helper.make_node("MatMul", [f"{name}_rows", f"{name}_across"], [name]))


def _matrix(before: int, after: int, mode: str) -> np.ndarray:
    """What a smoothed resizing does to one axis, float32 ``[after, before]``: its answer to every unit vector."""
    units = torch.eye(before)[None, None]
    return F.interpolate(units, size=(after, before), mode=mode, antialias=True)[0, 0].numpy()
