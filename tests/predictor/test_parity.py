"""How far two forms of a model are from each other is measured on every tile, alone and among five."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from eosin.core.errors import EosinError
from eosin.predictor.parity import near, noise, parity
from eosin.predictor.spec import Parity

SIDE = 4


def model(tiles: Tensor) -> Tensor:
    """Probabilities of two classes, ``[B, 2, side, side]``, by the first channel."""
    first = tiles[..., 0].float() / 255
    return torch.stack([first, 1 - first], 1)


def off_by(amount: float, where: Callable[[Tensor], Tensor | bool]) -> Callable[[Tensor], Tensor]:
    def other(tiles: Tensor) -> Tensor:
        wrong = torch.as_tensor(where(tiles)).reshape(-1, 1, 1, 1)
        return model(tiles) + amount * wrong * torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1)

    return other


def test_the_same_function_differs_by_nothing() -> None:
    assert parity(model, model, [noise(SIDE)]) == Parity(max_difference=0, argmax_agreement=1)


@pytest.mark.parametrize(
    "where",
    [
        lambda tiles: len(tiles) == 1,
        lambda tiles: len(tiles) == 5,
        lambda tiles: (tiles == noise(SIDE)[3]).all((1, 2, 3)),
        lambda tiles: (tiles == 255 - noise(SIDE)[4]).all((1, 2, 3)),
    ],
)
def test_what_differs_in_one_batch_or_one_tile_is_seen(where: Callable[[Tensor], Tensor | bool]) -> None:
    tiles = [noise(SIDE), 255 - noise(SIDE)]
    measured = parity(model, off_by(2.0, where), tiles)
    assert measured.max_difference == 2 and measured.argmax_agreement < 1


def test_agreement_is_the_share_of_pixels_with_the_same_class() -> None:
    tiles = torch.zeros(5, SIDE, SIDE, 3, dtype=torch.uint8)  # all of the second class
    measured = parity(model, off_by(0.75, lambda tiles: len(tiles) == 5), [tiles])
    assert (measured.max_difference, measured.argmax_agreement) == (0.75, 0.5)  # five tiles alone, five together


@pytest.mark.parametrize(
    ("difference", "agreement", "is_near"),
    [(1e-4, 0.999, True), (1.1e-4, 1.0, False), (0.0, 0.9989, False)],
)
def test_near_is_by_both_bounds(difference: float, agreement: float, is_near: bool) -> None:
    assert near(Parity(max_difference=difference, argmax_agreement=agreement)) is is_near


@pytest.mark.parametrize("other", [lambda tiles: model(tiles) * float("nan"), lambda tiles: model(tiles)[:, :1]])
def test_other_shapes_and_what_is_no_number_are_told(other: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(EosinError, match=r"the model gives \[1, \d, 4, 4\] where \[1, 2, 4, 4\] was wanted, or"):
        parity(model, other, [noise(SIDE)])
