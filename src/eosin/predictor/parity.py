"""How far two forms of one model are from each other, and whether that is near enough to call them one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eosin.core.errors import EosinError
from eosin.predictor.runtimes import Run
from eosin.predictor.spec import Parity

BATCHES = (1, 5)
MOST_DIFFERENCE = 1e-4
LEAST_AGREEMENT = 0.999


def noise(side: int) -> Tensor:
    """Tiles of noise, uint8 ``[5, side, side, 3]``, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (max(BATCHES), side, side, 3), dtype=torch.uint8, generator=generator)


def parity(expected: Run, found: Run, tiles: Sequence[Tensor]) -> Parity:
    """Compare two functions of tiles, each of which is seen in a batch of one and in one of five.

    Args:
        expected: gives ``[B, C, ...]``, e.g. probabilities of the pixels, or of the tags.
        found: is to give the same.
        tiles: uint8 ``[N, side, side, 3]`` each.

    Raises:
        EosinError: if the shapes differ or a number is not finite.
    """
    difference, same, pixels = 0.0, 0, 0
    for batch in (batch for kind in tiles for size in BATCHES for batch in kind.split(size)):
        with torch.inference_mode():
            wanted, given = expected(batch), found(batch)
        if wanted.shape != given.shape or not bool(wanted.isfinite().all() and given.isfinite().all()):
            shapes = f"{list(given.shape)} where {list(wanted.shape)}"
            raise EosinError(f"the model gives {shapes} was wanted, or numbers that are not finite")
        difference = max(difference, float((given - wanted).abs().max()))
        same += int((given.argmax(1) == wanted.argmax(1)).sum())
        pixels += given.argmax(1).numel()
    return Parity(max_difference=difference, argmax_agreement=same / pixels)


def near(measured: Parity) -> bool:
    """Whether two forms are the same model: by 1e-4 in every probability and in 99.9 % of the classes."""
    return measured.max_difference <= MOST_DIFFERENCE and measured.argmax_agreement >= LEAST_AGREEMENT
