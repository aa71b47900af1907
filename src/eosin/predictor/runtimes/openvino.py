"""An OpenVINO model (IR), run by OpenVINO on the CPU.

The description is XML, the weights are raw bytes. Both are read here and handed over as bytes, so that no path is ever
followed. Of the description only layers of OpenVINO's own sets and the edges between them are kept: notes on how it
was made, and anything else, could mean something to a later OpenVINO.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor

from eosin.core.errors import EosinError, WrongUse
from eosin.predictor.files import check_ends, listed
from eosin.predictor.runtimes import Run
from eosin.predictor.spec import Card, Precision

STEMS: Mapping[Precision, str] = {"fp32": "model", "bf16": "model", "int8": "model-int8"}
_HINTS: Mapping[Precision, str] = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}  # of what is not quantised
_OWN = re.compile(r"opset\d+", re.ASCII)


def load(folder: Path, files: Mapping[str, str], card: Card, precision: Precision) -> Run:
    """See ``eosin.predictor.runtimes``; ``int8`` is a model of its own, which was calibrated at its export.

    Raises:
        EosinError: if a file is missing, changed, or holds anything but weights and OpenVINO's own layers, or OpenVINO
            is not installed.
        WrongUse: for ``bf16`` on a processor that has none.
    """
    stem = STEMS[precision]
    path = folder / f"{stem}.xml"
    described, weights = listed(folder, path.name, files), listed(folder, f"{stem}.bin", files)
    core = library().Core()
    if precision == "bf16" and not has_bf16(core):
        raise WrongUse("--precision bf16: this processor computes no bfloat16 in OpenVINO; use fp32")
    settings = {"INFERENCE_PRECISION_HINT": _HINTS[precision], "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    try:
        model = core.read_model(recognised(path, described), weights)
        check_ends(path, card, tuple(map(_end, (*model.inputs, *model.outputs))))
        compiled = core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        line = str(error).strip().splitlines()[-1]
        raise EosinError(f"{path}: OpenVINO cannot build it ({line:.120}); export the model again") from None

    def run(tiles: Tensor) -> Tensor:
        found: np.ndarray = compiled(tiles.contiguous().numpy(), share_inputs=True)[0]
        return torch.from_numpy(found)

    return run


def library() -> Any:
    """OpenVINO, which on its own tells its makers when it is imported, as NNCF does of what it is used for.

    They do so by a package that is kept from them here.

    Raises:
        EosinError: if it is not installed.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError:
        raise EosinError("OpenVINO is not installed: pip install 'eosin[cpu]'") from None
    return openvino


def has_bf16(core: Any) -> bool:
    """Whether OpenVINO computes in bfloat16 on this processor."""
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def recognised(path: Path, described: bytes) -> bytes:
    """The layers and edges of a description, and nothing else of it.

    Raises:
        EosinError: if it is none, declares entities, or has a layer that is not OpenVINO's own.
    """
    if b"<!" in described:
        raise EosinError(f"{path}: declares entities, as no model does; it was not loaded")
    try:
        root = ElementTree.fromstring(described.decode("utf-8"))  # as text: what encoding it declares does not count
    except (ElementTree.ParseError, UnicodeDecodeError):
        root = ElementTree.Element("nothing")
    if root.tag != "net" or root.find("layers") is None or root.find("edges") is None:
        raise EosinError(f"{path}: not a model of OpenVINO; export the model again")
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == "rt_info" or (parent is root and child.tag not in ("layers", "edges")):
                parent.remove(child)
            elif child.tag == "layer" and not _OWN.fullmatch(child.get("version", "")):
                kind = f"{child.get('version')}.{child.get('type')}"
                raise EosinError(f"{path}: layer {kind!r:.60} is not OpenVINO's own; it was not loaded")
    return b'<?xml version="1.0"?>' + ElementTree.tostring(root)


def _end(end: Any) -> tuple[tuple[int, ...], str]:
    shape = end.partial_shape
    sides = tuple(int(side.get_length()) if side.is_static else -1 for side in list(shape)[1:])
    return sides, str(end.element_type.to_dtype())
