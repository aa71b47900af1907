"""Writing a model folder: export a network, check that the stored program is the same function, write its card."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

from eosin.core.artifact import atomic_folder
from eosin.core.errors import EosinError
from eosin.core.fingerprint import file_digest
from eosin.predictor.archive import Unsafe, read_program
from eosin.predictor.parity import near, noise, parity
from eosin.predictor.runtimes.torch import runner
from eosin.predictor.spec import PROGRAM, Card


def write_model(folder: Path, module: nn.Module, card: Card, tissue: Tensor) -> Path:
    """Export a network into a model folder.

    Args:
        folder: to be made; must not exist.
        module: from uint8 ``[B, tile, tile, 3]`` to float32 probabilities ``[B, C, tile, tile]``; it is copied and not
            changed.
        card: without ``files`` and ``parity``, which are filled here.
        tissue: tiles that look like what the model is for, uint8 ``[5, tile, tile, 3]``; parity is measured on them,
            and on noise.

    Returns:
        ``folder``.

    Raises:
        EosinError: if the stored program differs from the network by more than 1e-4 in a probability or in more than
            0.1 % of the pixels' classes, or holds an operator that :class:`Predictor` would not load.
    """
    network = copy.deepcopy(module).cpu().eval().requires_grad_(False)
    with atomic_folder(folder) as temporary:
        buffer = io.BytesIO()  # not the file itself: torch does not tell a full disk from other failures
        torch.export.save(_exported(network, card.tile), buffer)
        path = temporary / PROGRAM
        path.write_bytes(buffer.getbuffer())
        try:
            program = read_program(buffer.getvalue())
        except Unsafe as error:
            raise EosinError(f"{folder}: the network cannot be stored as data: {error}") from None
        _check_shape(network, card)
        measured = parity(network, runner(program, "fp32"), (tissue, noise(card.tile)))
        if not near(measured):
            raise EosinError(
                f"{folder}: the stored program differs from the network by {measured.max_difference:.2g} and agrees in"
                f" {measured.argmax_agreement:.2%} of the pixels; does the network depend on the batch or on chance?"
            )
        update = {"files": {PROGRAM: file_digest(path)}, "parity": measured}
        card.model_copy(update=update).write(temporary)
    return folder


def _check_shape(network: nn.Module, card: Card) -> None:
    with torch.inference_mode():
        shape = list(network(noise(card.tile)[:1]).shape)
    if shape != [1, len(card.classes), card.tile, card.tile]:
        raise EosinError(f"the network gives {shape} for one tile of {card.tile} px and {len(card.classes)} classes")


def _exported(network: nn.Module, tile: int) -> ExportedProgram:
    # Two tiles, because a batch of one would be taken for a constant.
    example = torch.zeros(2, tile, tile, 3, dtype=torch.uint8)
    with torch.no_grad():
        program = torch.export.export(network, (example,), dynamic_shapes=({0: Dim("batch", min=1)},))
    # What remains is weights and a graph: no pickled example, and no stack traces with the paths of this machine.
    program.example_inputs = None
    for part in program.graph_module.modules():
        if isinstance(part, torch.fx.GraphModule):
            part.meta.clear()
            for node in list(part.graph.nodes):
                node.meta = {key: value for key, value in node.meta.items() if key == "val"}
                # These assert the types that were seen at export, and would refuse to run in bfloat16.
                if node.target is torch.ops.aten._assert_tensor_metadata.default:
                    part.graph.erase_node(node)
    _drop_idle(program)
    return program


def _drop_idle(program: ExportedProgram) -> None:
    """Leave out the weights that no answer depends on, such as those of networks that only helped in training."""
    signature = program.graph_signature
    weights = {s.arg.name: s for s in signature.input_specs if s.kind in (InputKind.PARAMETER, InputKind.BUFFER)}
    for node in list(program.graph.nodes):
        if node.op == "placeholder" and node.name in weights and not node.users:
            program.graph.erase_node(node)
            idle = weights[node.name]
            signature.input_specs.remove(idle)
            program.state_dict.pop(idle.target, None)
