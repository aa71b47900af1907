"""Running a model folder: probabilities for tiles. Needs torch and nothing of the training code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eosin.core.errors import EosinError, WrongUse
from eosin.core.fingerprint import digest
from eosin.predictor.runtimes import Run
from eosin.predictor.spec import CARD, Card, Form, Precision, Runtime


class Predictor:
    """A segmentation model as data: a card and one of the forms that it is stored in, run on the CPU.

    Example:
        >>> predictor = Predictor.load(Path("runs/demo/model"))
        >>> probabilities = predictor(tiles)  # uint8 [B, tile, tile, 3] to float32 [B, C, tile, tile]

    Attributes:
        card: what the model is.
        runtime: what runs it.
        precision: what that computes in.
        files: digest (hex) of the names and the content of the files that are run.
    """

    def __init__(self, card: Card, run: Run, runtime: Runtime, precision: Precision, files: str) -> None:
        self.card, self.runtime, self.precision, self.files = card, runtime, precision, files
        self._run = run

    @classmethod
    def load(cls, folder: Path, precision: Precision = "fp32", runtime: Runtime = "torch") -> Predictor:
        """Load a model folder, after checking that what is loaded is whole and holds no code.

        Args:
            folder: with ``card.json`` and the files of the form that the runtime takes.
            precision: ``bf16`` runs convolutions and products in bfloat16 (faster where the processor has it, and
                a little different); ``int8`` the form that was calibrated at its export (OpenVINO only); ``fp32`` gives
                what was scored.
            runtime: ``torch`` runs the program, the others what ``eosin export`` made of it.

        Raises:
            EosinError: if the folder has no such form, a file of it is missing or does not have the card's digest, the
                card is not valid, a file holds anything but weights and operators on tensors, or the runtime is not
                installed.
            WrongUse: if the runtime does not compute in that precision.
        """
        card = Card.read(folder)
        form = form_of(runtime, precision)
        if form is not None and form not in card.exports:
            extra = " --int8 DATA" if precision == "int8" else ""
            raise EosinError(f"{folder / CARD}: no {form} form; make one: eosin export {folder} --to {runtime}{extra}")
        files = card.files if form is None else card.exports[form].files
        run = open_run(folder, files, card, runtime, precision)
        return cls(card, run, runtime, precision, digest(dict(files)))

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
        return self._run(batch)


def form_of(runtime: Runtime, precision: Precision) -> Form | None:
    """What a runtime takes; None is the program."""
    if runtime == "torch":
        return None
    return "openvino-int8" if runtime == "openvino" and precision == "int8" else runtime


def open_run(folder: Path, files: Mapping[str, str], card: Card, runtime: Runtime, precision: Precision) -> Run:
    """Load what a runtime takes; see ``eosin.predictor.runtimes``. Nothing of the other runtimes is imported."""
    if runtime == "onnx":
        from eosin.predictor.runtimes.onnx import load
    elif runtime == "openvino":
        from eosin.predictor.runtimes.openvino import load
    else:
        from eosin.predictor.runtimes.torch import load
    return load(folder, files, card, precision)
