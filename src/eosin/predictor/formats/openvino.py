"""A stored program as a model of OpenVINO (IR), in float32 or with 8-bit weights and activations.

It goes by way of ONNX: OpenVINO reads some programs of torch not at all (resizing with smoothing, as timm's
transformers do), and every one of them from ONNX at a fixed tile.
"""

from __future__ import annotations

import io
import logging
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.export import ExportedProgram

from eosin.core.errors import EosinError
from eosin.predictor.formats.onnx import to_onnx
from eosin.predictor.runtimes.openvino import STEMS, library, recognised


def write(program: ExportedProgram, folder: Path) -> list[str]:
    """Write ``model.xml`` and ``model.bin`` into a folder; the names of what was written.

    Raises:
        EosinError: if a library is not installed, or the model has an operator without a word in ONNX.
    """
    return _save(_converted(program), folder, STEMS["fp32"])


def write_int8(program: ExportedProgram, folder: Path, tiles: Tensor) -> list[str]:
    """Write ``model-int8.xml`` and ``model-int8.bin``: quantised by NNCF after training, on tiles of real images.

    Args:
        program: the model.
        folder: to write into.
        tiles: uint8 ``[N, tile, tile, 3]``, from which the ranges of all activations are taken.

    Raises:
        EosinError: as :func:`write`.
    """
    converted = _converted(program)  # first: from then on NNCF cannot tell its makers what it is used for
    try:
        import nncf
    except ImportError:
        raise EosinError("int8 needs NNCF, which is not installed: pip install 'eosin[cpu]'") from None
    nncf.set_log_level(logging.ERROR)
    data = nncf.Dataset([tile[None].numpy() for tile in tiles])
    with redirect_stdout(io.StringIO()):  # its progress bars
        model = nncf.quantize(converted, data, subset_size=len(tiles))
    return _save(model, folder, STEMS["int8"])


def _converted(program: ExportedProgram) -> Any:
    core = library().Core()
    try:
        return core.read_model(to_onnx(program))
    except RuntimeError as error:
        line = str(error).strip().splitlines()[-1]
        raise EosinError(f"the model cannot be written for OpenVINO: {line:.200}") from None


def _save(model: Any, folder: Path, stem: str) -> list[str]:
    path = folder / f"{stem}.xml"
    library().save_model(model, path, compress_to_fp16=False)
    path.write_bytes(recognised(path, path.read_bytes()))  # without notes on how it was made
    return [path.name, f"{stem}.bin"]
