"""The stored program, run by torch on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from eosin.core.errors import EosinError, WrongUse
from eosin.predictor.archive import Unsafe, read_program
from eosin.predictor.files import check_ends, listed
from eosin.predictor.runtimes import Run
from eosin.predictor.spec import PROGRAM, Card, Precision


def load(folder: Path, files: Mapping[str, str], card: Card, precision: Precision) -> Run:
    """See ``eosin.predictor.runtimes``; ``bf16`` is autocast.

    Raises:
        EosinError: if the program is missing, changed, or holds anything but weights and tensor operators.
        WrongUse: for ``int8``.
    """
    if precision == "int8":
        raise WrongUse("torch runs this model in fp32 or bf16; int8 needs --runtime openvino")
    return runner(load_program(folder, files, card), precision)


def load_program(folder: Path, files: Mapping[str, str], card: Card) -> ExportedProgram:
    """Check and load ``program.pt2``; raises as :func:`load`."""
    path = folder / PROGRAM
    data = listed(folder, PROGRAM, files)
    try:
        program = read_program(data)
    except Unsafe as error:
        raise EosinError(f"{path}: {error}; it was not loaded, export the model again") from None
    check_ends(path, card, _ends(program))
    return program


def runner(program: ExportedProgram, precision: Precision) -> Run:
    """A program as a function of tiles."""
    module = program.module()

    def run(tiles: Tensor) -> Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            probabilities: Tensor = module(tiles.contiguous())
        return probabilities.float()

    return run


def _ends(program: ExportedProgram) -> tuple[tuple[tuple[int, ...], str], ...]:
    nodes = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature = program.graph_signature
    ends = [nodes.get(str(name)) for name in (*signature.user_inputs, *signature.user_outputs)]
    return tuple((tuple(e.shape[1:]), str(e.dtype).removeprefix("torch.")) for e in ends if isinstance(e, Tensor))
