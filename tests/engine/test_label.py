"""Masks of training items, alone and merged with their neighbours, against exact fractions pixel by pixel."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from eosin.core.learner import Learner
from eosin.core.values import Batch, Clock
from eosin.data.dataset import Items
from eosin.engine import label
from eosin.engine.device import Device, open_device
from eosin.engine.label import draw_masks
from eosin.parts.cams import Averaged
from eosin.parts.pseudo import TagGatedArgmax
from oracles import merging
from patches import noise, write_items


class Pixels(Learner):
    """Class maps that are the colours, and a note of what was seen under which conditions."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {}

    def predict(self, image: Tensor) -> Tensor:
        assert torch.is_inference_mode_enabled() and not self.training
        self.seen.append(tuple(image.shape))
        return image


class Watchful(TagGatedArgmax):
    """Decides as its parent, outside of autocast and inference mode."""

    def decide(self, maps: Tensor, allowed: Tensor) -> Tensor:
        assert maps.dtype == torch.float32 and not torch.is_autocast_enabled(maps.device.type)
        return super().decide(maps, allowed)


@pytest.fixture(scope="module")
def device() -> Device:
    return open_device("fp32")


def drawn(
    items: Items, device: Device, merge: bool, learner: Pixels | None = None, band: float = 0.0
) -> dict[str, np.ndarray]:
    masks: dict[str, np.ndarray] = {}

    def keep(name: str, mask: np.ndarray) -> None:
        assert name not in masks and mask.dtype == np.uint8 and mask.flags.c_contiguous
        masks[name] = mask.copy()

    rule = Watchful(partial(Averaged), merge=merge, band=band)
    draw_masks((learner or Pixels()).eval(), rule, items, device, keep, lambda item: False)
    assert sorted(masks) == sorted(items.ids)
    return masks


def check(items: Items, images: list[np.ndarray], masks: dict[str, np.ndarray], families: list[list[int]]) -> None:
    """Compare with the loop, where the two best classes are not exactly equal."""
    for family in families:
        placed = [
            (
                *(items.xy[i].tolist() if len(family) > 1 else (0, 0)),
                images[i].transpose(2, 0, 1).tolist(),
                items.tags[i],
            )
            for i in family
        ]
        for i, expected in zip(family, merging.merged_masks(placed), strict=True):
            mask = masks[str(items.ids[i])]
            wanted = np.array([[254 if v is None else v for v in row] for row in expected], np.uint8)
            decided = wanted != 254
            assert mask.shape == wanted.shape and decided.mean() > 0.9
            assert np.array_equal(mask[decided], wanted[decided])


TAGS = [[1, 1, 1], [1, 1, 0], [0, 1, 1], [np.nan, 1, 0], [0, 0, 1], [0, 0, 0], [1, np.nan, np.nan]]


def test_items_stand_alone_unless_they_are_merged(tmp_path: Path, device: Device) -> None:
    images = [noise(6, 8, seed=i) for i in range(7)]
    items = write_items(tmp_path, images, TAGS, ["big"] * 7, [(3 * i, 2 * i) for i in range(7)])
    check(items, images, drawn(items, device, merge=False), [[i] for i in range(7)])


@pytest.mark.parametrize("batch", [64, 2])
def test_neighbours_are_merged(tmp_path: Path, device: Device, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label, "PIXELS", batch * 6 * 8)
    images = [noise(6, 8, seed=i) for i in range(7)]
    # Far from the parent's corner; overlaps of two, three and more, one item apart from all.
    places = [(0, 0), (4, 0), (0, 3), (4, 3), (8, 6), (2, 1), (100, 0)]
    xy = [(10**8 + x, 10**8 + y) for x, y in places]
    items = write_items(tmp_path, images, TAGS, ["big"] * 7, xy)
    masks = drawn(items, device, merge=True)
    check(items, images, masks, [[0, 1, 2, 3, 4, 5], [6]])
    assert np.array_equal(masks["p0"][:, 4:], masks["p1"][:, :4]), "what is seen twice is decided once"


def test_families_sizes_and_unknown_places(tmp_path: Path, device: Device) -> None:
    sizes = [(6, 8), (5, 5), (6, 8), (4, 12), (6, 8), (5, 5), (6, 8)]
    images = [noise(*size, seed=i) for i, size in enumerate(sizes)]
    parents = ["b", "a", "b", "a", "", "b", "a"]
    xy = [(0, 0), (0, 0), (2, 2), (3, 1), (0, 0), (-1, -1), (1, 2)]
    items = write_items(tmp_path, images, TAGS, parents, xy)
    masks = drawn(items, device, merge=True)
    check(items, images, masks, [[0, 2], [1, 3, 6], [4], [5]])


def test_a_tag_that_one_neighbour_lacks_is_allowed_to_none(tmp_path: Path, device: Device) -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0], red[..., 1] = 200, 100
    items = write_items(tmp_path, [red, red], [[1, 1, 0], [0, 1, 0]], ["big"] * 2, [(0, 0), (2, 0)])
    masks = drawn(items, device, merge=True)
    assert masks["p0"].tolist() == [[0, 0, 1, 1]] * 4 and masks["p1"].tolist() == [[1] * 4] * 4
    assert drawn(items, device, merge=False)["p0"].tolist() == [[0] * 4] * 4


def test_where_neighbours_contradict_each_other_nothing_is_trained(tmp_path: Path, device: Device) -> None:
    items = write_items(tmp_path, [noise(4, 4)] * 2, [[1, 0, 0], [0, 1, 0]], ["big"] * 2, [(0, 0), (2, 0)])
    masks = drawn(items, device, merge=True)
    assert masks["p0"].tolist() == [[0, 0, 255, 255]] * 4 and masks["p1"].tolist() == [[255, 255, 1, 1]] * 4


def test_merged_maps_are_averaged_not_added_up(tmp_path: Path, device: Device) -> None:
    images = [np.full((4, 4, 3), colour, np.uint8) for colour in ([102, 51, 0], [153, 102, 0], [51, 0, 0])]
    items = write_items(tmp_path, images, [[1, 1, 1]] * 3, ["big"] * 3, [(0, 0), (0, 0), (0, 0)])
    for band, expected in ((0.19, 0), (0.21, 255)):  # each leads by 0.2
        masks = drawn(items, device, merge=True, band=band)
        assert all(mask.tolist() == [[expected] * 4] * 4 for mask in masks.values())


def test_items_are_streamed_in_batches_of_one_size(
    tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label, "PIXELS", 3 * 6 * 6)
    images = [noise(6, 6, seed=i) for i in range(5)] + [noise(4, 6, seed=9)]
    learner = Pixels()
    drawn(write_items(tmp_path, images, TAGS[:6]), device, merge=False, learner=learner)
    assert learner.seen == [(3, 3, 6, 6), (2, 3, 6, 6), (1, 3, 4, 6)]


def test_maps_are_made_under_autocast_and_decided_without(tmp_path: Path) -> None:
    class Fast(Pixels):
        def predict(self, image: Tensor) -> Tensor:
            assert torch.is_autocast_enabled(image.device.type)
            return super().predict(image).bfloat16()

    items = write_items(tmp_path, [noise(6, 6, seed=i) for i in range(2)], TAGS[:2], ["big"] * 2, [(0, 0), (3, 0)])
    for merge in (False, True):
        drawn(items, open_device("bf16"), merge, Fast())
