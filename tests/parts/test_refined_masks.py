"""Rules that refine, as the engine applies them: item by item, or on the whole parent image once it is merged."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from eosin.data.dataset import Items
from eosin.engine.device import Device, open_device
from eosin.engine.label import draw_masks
from eosin.parts.cams import Averaged, GradCam, Scaled
from eosin.parts.classifiers import CamClassifier
from eosin.parts.losses.soft_margin import SoftMargin
from eosin.parts.pooling.gap import GAP
from eosin.parts.pseudo import RefinedArgmax, TagGatedArgmax
from eosin.parts.refine import DenseCrf, Remainder, Subtracted
from patches import noise, write_items

STEPS = (partial(Remainder, factor=0.05), partial(Subtracted, True), partial(DenseCrf, steps=2))
TAGS = [[1, 1, 1], [1, 1, 0], [0, 1, 1], [np.nan, 1, 0]]


class Colours(nn.Module):
    """Features that are the colours, so that gradients can be taken."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.strides = [4], [1]
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        return [self.conv(image).relu()]


def learner() -> CamClassifier:
    torch.manual_seed(0)
    return CamClassifier(3, partial(Colours), partial(GAP), partial(SoftMargin)).eval()


class Watchful(RefinedArgmax):
    """Notes what it is given to refine, outside of autocast and inference mode."""

    def refine(self, maps: Tensor, allowed: Tensor, image: Tensor) -> Tensor:
        assert not torch.is_inference_mode_enabled() and not torch.is_autocast_enabled(image.device.type)
        self.seen = [*getattr(self, "seen", []), (maps, allowed, image)]
        return super().refine(maps, allowed, image)


def rule(merge: bool, steps: tuple = STEPS) -> Watchful:
    maker = partial(Scaled, partial(Averaged, views=4), "class")
    return Watchful(partial(GradCam, "plus-plus"), maker, merge, scored=True, steps=steps)


def drawn(items: Items, chosen: TagGatedArgmax, device: Device, has: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    masks: dict[str, np.ndarray] = {}

    def keep(name: str, mask: np.ndarray) -> None:
        masks[name] = mask.copy()

    draw_masks(learner(), chosen, items, device, keep, lambda item: item in has)
    return masks


@pytest.fixture(scope="module")
def device() -> Device:
    return open_device("fp32")


@pytest.fixture(params=["fp32", "bf16"])
def any_device(request: pytest.FixtureRequest) -> Device:
    return open_device(request.param)


def test_items_are_refined_one_by_one_with_their_own_pixels(tmp_path: Path, any_device: Device) -> None:
    images = [noise(9, 11, seed=i) for i in range(4)]
    items = write_items(tmp_path, images, TAGS)
    chosen = rule(merge=False)
    masks = drawn(items, chosen, any_device)
    ((maps, allowed, pixels),) = chosen.seen
    assert maps.shape == (4, 3, 9, 11) and allowed.shape == (4, 3, 1, 1)
    expected = torch.stack([torch.from_numpy(image).permute(2, 0, 1) / 255 for image in images])
    torch.testing.assert_close(pixels.contiguous(), expected)
    for i, name in enumerate(masks):
        alone = rule(merge=False)
        one = alone.decide(alone.refine(maps[i : i + 1], allowed[i : i + 1], pixels[i : i + 1]), allowed[i : i + 1])
        assert np.array_equal(one[0].numpy(), masks[name])


def test_a_parent_is_refined_whole_after_merging(tmp_path: Path, device: Device) -> None:
    whole = noise(12, 15, seed=9)
    places = [(0, 0), (6, 0), (0, 4), (6, 4)]
    images = [np.ascontiguousarray(whole[y : y + 8, x : x + 9]) for x, y in places]
    items = write_items(tmp_path, images, TAGS, ["big"] * 4, [(x + 1000, y + 500) for x, y in places])
    chosen = rule(merge=True)
    masks = drawn(items, chosen, device)
    ((maps, allowed, pixels),) = chosen.seen
    assert maps.shape == (1, 3, 12, 15) and allowed.shape == (1, 3, 12, 15)
    torch.testing.assert_close(pixels[0], torch.from_numpy(whole).permute(2, 0, 1) / 255)
    assert not allowed[0, 0, 4:8, :6].any() and not allowed[0, 2, :4, 9:].any() and allowed[0, 1].all()
    mask = chosen.decide(RefinedArgmax.refine(chosen, maps, allowed, pixels), allowed)[0].numpy()
    for (x, y), found in zip(places, masks.values(), strict=True):
        assert np.array_equal(found, mask[y : y + 8, x : x + 9])


def test_refinement_matters_and_repeats(tmp_path: Path, device: Device) -> None:
    items = write_items(tmp_path, [noise(16, 16, seed=i) for i in range(4)], TAGS)
    plain, twice = drawn(items, rule(False, ()), device), [drawn(items, rule(False), device) for _ in range(2)]
    assert all(np.array_equal(twice[0][name], twice[1][name]) for name in plain)
    assert np.mean([(twice[0][name] != plain[name]).mean() for name in plain]) > 0.1


def test_what_is_drawn_already_is_passed_over(tmp_path: Path, device: Device) -> None:
    images = [noise(8, 9, seed=i) for i in range(4)]
    places = [(0, 0), (4, 0), (0, 0), (4, 0)]
    items = write_items(tmp_path, images, TAGS, ["a", "a", "b", "b"], places)
    everything, rest = (drawn(items, rule(True), device, has) for has in ((), ("p0", "p1")))
    assert sorted(rest) == ["p2", "p3"]
    assert all(np.array_equal(rest[name], everything[name]) for name in rest)
