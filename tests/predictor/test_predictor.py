"""A written model is the same function as its network, for every batch, and refuses what it was not made for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from eosin.core.errors import EosinError, WrongUse
from eosin.engine.export import tissue
from eosin.predictor.predictor import Predictor
from eosin.predictor.write import write_model
from small_model import TILE, SmallNet, card


def noise(batch: int, side: int = TILE) -> np.ndarray:
    return np.random.default_rng(batch).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 16])
def test_any_batch_gives_what_the_network_gives(plain: Path, batch: int) -> None:
    tiles = noise(batch)
    with torch.inference_mode():
        expected = SmallNet().eval()(torch.from_numpy(tiles))
    found = Predictor.load(plain)(tiles)
    assert found.dtype == torch.float32 and found.shape == (batch, 3, TILE, TILE)
    assert (found - expected).abs().max() <= 1e-4
    # The network is no constant, so that agreement means something.
    assert found.std((0, 2, 3)).min() > 0.03


def test_tensors_and_views_are_taken_too(plain: Path) -> None:
    predictor, tiles = Predictor.load(plain), noise(2)
    flipped = torch.from_numpy(tiles).flip(1)
    assert torch.equal(predictor(torch.from_numpy(tiles)), predictor(tiles))
    assert torch.equal(predictor(flipped.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)), predictor(flipped))


def test_the_card_holds_parity_and_digest(plain: Path) -> None:
    read = Predictor.load(plain).card
    assert read.parity is not None
    assert read.parity.max_difference <= 1e-4 and read.parity.argmax_agreement >= 0.999
    assert list(read.files) == ["program.pt2"]
    assert read.model_copy(update={"files": {}, "parity": None}) == card()


def test_bf16_is_near_and_not_the_same(plain: Path) -> None:
    tiles = noise(4)
    full, half = Predictor.load(plain)(tiles), Predictor.load(plain, "bf16")(tiles)
    assert half.dtype == torch.float32
    assert 0 < (full - half).abs().max() < 0.1


def test_the_same_network_gives_the_same_bytes_and_stays_as_it_was(plain: Path, tmp_path: Path) -> None:
    network = SmallNet().train()
    again = write_model(tmp_path / "again", network, card(), tissue(TILE))
    assert network.training and all(p.requires_grad for p in network.parameters())
    assert (again / "program.pt2").read_bytes() == (plain / "program.pt2").read_bytes()
    assert (again / "card.json").read_bytes() == (plain / "card.json").read_bytes()


def test_a_model_tells_nothing_of_the_machine_that_made_it(plain: Path) -> None:
    data = (plain / "program.pt2").read_bytes()
    assert b"small_model.py" not in data and str(Path(__file__).parent).encode() not in data


@pytest.mark.parametrize(
    "tiles",
    [
        noise(1, TILE + 1),
        noise(1, TILE // 2),
        noise(0),
        noise(1)[0],
        noise(1)[..., :2],
        noise(1).astype(np.float32),
        noise(1).transpose(0, 3, 1, 2),
    ],
)
def test_wrong_tiles_raise_with_the_right_size(plain: Path, tiles: np.ndarray) -> None:
    with pytest.raises(WrongUse, match=rf"takes uint8 \[B, {TILE}, {TILE}, 3\]"):
        Predictor.load(plain)(tiles)


class Unsteady(nn.Module):
    """Adds a little that differs from call to call."""

    def __init__(self) -> None:
        super().__init__()
        self.net = SmallNet()

    def forward(self, tiles: Tensor) -> Tensor:
        found: Tensor = self.net(tiles)
        return found + 0.01 * torch.rand_like(found)


def test_what_differs_from_the_network_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(EosinError, match="differs from the network"):
        write_model(tmp_path / "model", Unsteady(), card(), tissue(TILE))
    assert list(tmp_path.iterdir()) == []


class Tinted(nn.Module):
    """Differs from call to call where a tile is not grey on average, as tissue is and noise is not."""

    def __init__(self) -> None:
        super().__init__()
        self.net = SmallNet()

    def forward(self, tiles: Tensor) -> Tensor:
        found: Tensor = self.net(tiles)
        colour = tiles.float().mean((1, 2))
        return found + (colour.amax(1) - colour.amin(1) > 20)[:, None, None, None] * torch.rand_like(found)


def test_what_differs_on_tissue_alone_is_not_written_either(tmp_path: Path) -> None:
    with pytest.raises(EosinError, match="differs from the network"):
        write_model(tmp_path / "model", Tinted(), card(), tissue(TILE))
    assert list(tmp_path.iterdir()) == []
    assert write_model(tmp_path / "model", Tinted(), card(), torch.from_numpy(noise(5))).is_dir()  # noise is not enough


def test_what_is_not_a_number_is_not_written(tmp_path: Path) -> None:
    network = SmallNet()
    network.mean.fill_(float("nan"))
    with pytest.raises(EosinError, match="not finite"):
        write_model(tmp_path / "model", network, card(), tissue(TILE))
    assert list(tmp_path.iterdir()) == []


def test_a_card_of_other_classes_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(EosinError, match=r"gives \[1, 4, 32, 32\]"):
        write_model(tmp_path / "model", SmallNet(4), card(), tissue(TILE))


def test_a_card_that_contradicts_the_program_is_told(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "program.pt2").write_bytes((plain / "program.pt2").read_bytes())
    value = json.loads((plain / "card.json").read_text()) | {"tile": 64}
    (tmp_path / "card.json").write_text(json.dumps(value))
    with pytest.raises(EosinError, match="the card says"):
        Predictor.load(tmp_path)
