"""Running a model folder: probabilities for tiles. Needs torch and nothing of the training code."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from eosin.core.errors import EosinError, WrongUse
from eosin.predictor.archive import Unsafe, read_program
from eosin.predictor.spec import PROGRAM, Card

Precision = Literal["fp32", "bf16"]


class Predictor:
    """A segmentation model as data: a card and a program, run on the CPU.

    Example:
        >>> predictor = Predictor.load(Path("runs/demo/model"))
        >>> probabilities = predictor(tiles)  # uint8 [B, tile, tile, 3] to float32 [B, C, tile, tile]
    """

    def __init__(self, card: Card, program: ExportedProgram, precision: Precision = "fp32") -> None:
        self.card = card
        self.precision = precision
        self._run = program.module()

    @classmethod
    def load(cls, folder: Path, precision: Precision = "fp32") -> Predictor:
        """Load a model folder, after checking that it is whole and holds no code.

        Args:
            folder: with ``card.json`` and ``program.pt2``.
            precision: ``bf16`` runs convolutions and products in bfloat16 (faster where the processor has it, and
                a little different); ``fp32`` gives what was scored.

        Raises:
            EosinError: if a file is missing or does not have the card's digest, the card is not valid, or the program
                holds anything but weights and tensor operators.
        """
        card = Card.read(folder)
        path = folder / PROGRAM
        if PROGRAM not in card.files:
            raise EosinError(f"{folder / 'card.json'}: files: {PROGRAM} is not listed; export the model again")
        if not path.is_file():
            raise EosinError(f"{path}: no such file; copy the model folder whole")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != card.files[PROGRAM]:
            raise EosinError(f"{path}: its SHA-256 is not the card's; the file is damaged or changed, copy it again")
        try:
            program = read_program(data)
        except Unsafe as error:
            raise EosinError(f"{path}: {error}; it was not loaded, export the model again") from None
        _check_shapes(path, card, program)
        return cls(card, program, precision)

    def __call__(self, tiles: np.ndarray | Tensor) -> Tensor:
        """Class probabilities of tiles.

        Args:
            tiles: uint8 ``[B, tile, tile, 3]``, RGB in 0..255, ``B >= 1``.

        Returns:
            float32 ``[B, C, tile, tile]``.

        Raises:
            WrongUse: if the tiles have another type or size.
        """
        batch = torch.as_tensor(tiles)
        side = self.card.tile
        if batch.dtype != torch.uint8 or batch.ndim != 4 or not len(batch) or batch.shape[1:] != (side, side, 3):
            given = f"{str(batch.dtype).removeprefix('torch.')} {list(batch.shape)}"
            raise WrongUse(f"tiles are {given}; this model takes uint8 [B, {side}, {side}, 3], cut them to {side} px")
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            probabilities: Tensor = self._run(batch.contiguous())
        return probabilities.float()


def _check_shapes(path: Path, card: Card, program: ExportedProgram) -> None:
    nodes = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature = program.graph_signature
    ends = [nodes.get(str(name)) for name in (*signature.user_inputs, *signature.user_outputs)]
    wanted = ((card.tile, card.tile, 3), torch.uint8), ((len(card.classes), card.tile, card.tile), torch.float32)
    found = tuple((tuple(end.shape[1:]), end.dtype) for end in ends if isinstance(end, Tensor))
    if found != wanted:
        raise EosinError(f"{path}: takes and gives {found}, but the card says {wanted}; export the model again")
