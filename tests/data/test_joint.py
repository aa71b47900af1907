"""Image and masks move together, colours change as the formula says, and nothing drawn changes nothing."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from eosin.core.values import Augment
from eosin.data.joint import Drawn, apply, draw, stain_jitter
from oracles import augmentation as slow

NONE = Augment(flip=False, turn=False)
EVERYTHING = Augment(scale=0.5, crop=16, stain=0.3, brightness=0.2, contrast=0.2, blur=1.5)


def random(height: int = 20, width: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def marked(height: int = 32, width: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """A white block on black, off the centre and of no symmetry, in the image and as class 1 of the mask."""
    mask = np.zeros((height, width), np.uint8)
    mask[4:12, 6:26] = 1
    mask[12:20, 6:12] = 1
    return np.repeat(mask[..., None] * np.uint8(255), 3, axis=2), mask


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_every_setting_at_zero_changes_nothing() -> None:
    image, mask = random(), random()[..., 0]
    for seed in range(20):
        drawn = draw(NONE, rng(seed), *mask.shape)
        pixels, masks = apply(image, {"pseudo": mask}, drawn)
        assert np.array_equal(pixels, image.astype(np.float32) / np.float32(255)) and pixels.dtype == np.float32
        assert np.array_equal(masks["pseudo"], mask) and masks["pseudo"].dtype == np.uint8


@pytest.mark.parametrize("setting", ["scale", "stain", "brightness", "contrast", "blur", "crop", "flip", "turn"])
def test_each_setting_changes_something_and_draws_for_itself_alone(setting: str) -> None:
    value = {"crop": 8, "flip": True, "turn": True}.get(setting, 0.5)
    augment = NONE.model_copy(update={setting: value})
    field = {"scale": "zoom"}.get(setting, setting)
    differ = 0
    for seed in range(20):
        drawn, plain, full = (draw(a, rng(seed), 20, 20) for a in (augment, NONE, EVERYTHING))
        changed = {f.name for f in dataclasses.fields(Drawn) if getattr(drawn, f.name) != getattr(plain, f.name)}
        assert changed <= {field}
        differ += bool(changed)
        assert full == draw(EVERYTHING, rng(seed), 20, 20)
        assert draw(EVERYTHING.model_copy(update={"stain": 0.0}), rng(seed), 20, 20) == dataclasses.replace(
            full, stain=None
        )
    assert differ >= 5


@pytest.mark.parametrize("turn", range(4))
@pytest.mark.parametrize("left_right", [False, True])
@pytest.mark.parametrize("up_down", [False, True])
def test_flips_and_turns_are_exact(up_down: bool, left_right: bool, turn: int) -> None:
    image, mask = random(5, 5), random(5, 5)[..., 0]
    pixels, masks = apply(image, {"a": mask}, Drawn(flip=(up_down, left_right), turn=turn))
    expected = slow.flip_and_turn(mask.tolist(), up_down, left_right, turn)
    assert masks["a"].tolist() == expected
    for channel in range(3):
        rows = slow.flip_and_turn(image[..., channel].tolist(), up_down, left_right, turn)
        assert np.array_equal(pixels[..., channel], np.array(rows, np.float32) / np.float32(255))
    assert pixels.flags.c_contiguous and masks["a"].flags.c_contiguous


def test_all_eight_positions_are_drawn_equally_often() -> None:
    counts: dict[bytes, int] = {}
    mask = np.arange(9, dtype=np.uint8).reshape(3, 3)
    for seed in range(1600):
        _, masks = apply(random(3, 3), {"a": mask}, draw(Augment(), rng(seed), 3, 3))
        counts[masks["a"].tobytes()] = counts.get(masks["a"].tobytes(), 0) + 1
    assert len(counts) == 8 and all(140 < n < 260 for n in counts.values())


def test_an_item_that_is_not_square_keeps_its_sides() -> None:
    turns = {draw(Augment(), rng(seed), 20, 24).turn for seed in range(40)}
    assert turns == {0, 2}
    assert {draw(Augment(crop=8), rng(seed), 20, 24).turn for seed in range(40)} == {0, 1, 2, 3}


def test_crops_lie_inside_and_reach_every_corner() -> None:
    image, mask = random(), np.arange(20 * 24, dtype=np.uint16).reshape(20, 24).astype(np.uint8)
    tops, lefts = set(), set()
    for seed in range(300):
        drawn = draw(NONE.model_copy(update={"crop": 16}), rng(seed), 20, 24)
        assert drawn.crop is not None
        top, left, side = drawn.crop
        pixels, masks = apply(image, {"a": mask}, drawn)
        assert side == 16
        assert np.array_equal(masks["a"], mask[top : top + 16, left : left + 16])
        assert np.array_equal(pixels, image[top : top + 16, left : left + 16].astype(np.float32) / np.float32(255))
        tops.add(top)
        lefts.add(left)
    assert tops == set(range(5)) and lefts == set(range(9))


def test_a_crop_larger_than_the_item_is_refused() -> None:
    with pytest.raises(ValueError, match="crop 21 is larger than the item of 20 x 24 px"):
        draw(Augment(crop=21), rng(), 20, 24)
    assert draw(Augment(crop=20), rng(), 20, 24).crop is not None


@pytest.mark.parametrize("augment", [Augment(), Augment(crop=20), Augment(scale=0.5), Augment(scale=0.5, crop=20)])
def test_image_and_mask_move_together(augment: Augment) -> None:
    image, mask = marked()
    for seed in range(40):
        drawn = draw(augment, rng(seed), 32, 32)
        pixels, masks = apply(image, {"a": mask, "b": mask}, drawn, ignore=200)
        moved = masks["a"]
        assert pixels.shape[:2] == moved.shape == (augment.crop or 32, augment.crop or 32)
        assert np.array_equal(moved, masks["b"])
        known = moved != 200
        agree = (pixels[..., 0] > 0.5) == (moved == 1)
        # The image is interpolated and the mask is not: on a border they may differ by less than half a pixel.
        assert agree[known].mean() > (0.98 if augment.scale else 0.9999)


ZOOMS = [(1.37, (0.21, 0.83)), (0.73, (0.21, 0.83)), (0.61, (0.0, 1.0)), (2.11, (1.0, 0.0)), (1.5, (0.5, 0.5))]


@pytest.mark.parametrize(("zoom", "shift"), ZOOMS)
def test_zooming_takes_each_pixel_from_where_it_belongs(zoom: float, shift: tuple[float, float]) -> None:
    height, width = 20, 24
    mask = rng(1).integers(0, 5, (height, width)).astype(np.uint8)
    # A ramp, on which linear interpolation is exact.
    y, x = np.mgrid[:height, :width]
    image = np.stack([4 * y + 20, 5 * x + 20, 2 * x + 2 * y], 2).astype(np.uint8)
    pixels, masks = apply(image, {"a": mask}, Drawn(zoom=zoom, shift=shift), ignore=9)
    assert pixels.shape == image.shape and masks["a"].shape == mask.shape
    outside = 0
    for i, j in itertools.product(range(height), range(width)):
        source_y = slow.zoomed_from(i, height, zoom, shift[0])
        source_x = slow.zoomed_from(j, width, zoom, shift[1])
        if any(abs(s % 1 - 0.5) < 0.02 for s in (source_y, source_x)):
            continue  # two neighbours are equally near
        near_y, near_x = round(source_y), round(source_x)
        inside = 0 <= near_y < height and 0 <= near_x < width
        assert masks["a"][i, j] == (mask[near_y, near_x] if inside else 9)
        outside += not inside
        if 0 <= source_y <= height - 1 and 0 <= source_x <= width - 1:
            expected = np.array([4 * source_y + 20, 5 * source_x + 20, 2 * source_x + 2 * source_y])
            assert np.abs(pixels[i, j] * 255 - expected).max() < 1.0
    assert (outside > 0) == (zoom < 1)


def test_zooms_are_as_often_in_as_out_and_within_their_range() -> None:
    zooms = np.array([draw(Augment(scale=0.5), rng(seed), 8, 8).zoom for seed in range(400)])
    assert zooms.min() >= 1 / 1.5 and zooms.max() <= 1.5 and 160 < (zooms > 1).sum() < 240


class TestStain:
    image = np.random.default_rng(0).integers(1, 256, (6, 7, 3)).astype(np.float32) / np.float32(255)

    def test_no_change_is_none_to_the_last_bit(self) -> None:
        image = np.concatenate([self.image, np.zeros((1, 7, 3), np.float32)])
        assert np.array_equal(stain_jitter(image, (1, 1, 1), (0, 0, 0)), image)

    @pytest.mark.parametrize("seed", range(5))
    def test_each_pixel_is_as_by_the_loop(self, seed: int) -> None:
        scale, offset = rng(seed).uniform(0.6, 1.4, 3), rng(seed + 9).uniform(-0.1, 0.1, 3)
        found = stain_jitter(self.image, tuple(scale), tuple(offset))
        expected = [[slow.stain_jitter(pixel, scale, offset) for pixel in row] for row in self.image.tolist()]
        np.testing.assert_allclose(found, expected, atol=2e-5)
        assert found.dtype == np.float32 and found.min() >= 0 and found.max() <= 1

    def test_more_haematoxylin_makes_a_nucleus_darker_and_leaves_white(self) -> None:
        white = np.ones((1, 1, 3), np.float32)
        nucleus = np.exp(-np.array([[[0.650, 0.704, 0.286]]], np.float32))
        assert (stain_jitter(nucleus, (1.3, 1, 1), (0, 0, 0)) < nucleus).all()
        np.testing.assert_allclose(stain_jitter(nucleus, (1, 1.3, 0.7), (0, 0, 0)), nucleus, atol=1e-6)
        assert np.array_equal(stain_jitter(white, (1.3, 0.7, 1.2), (0, 0, 0)), white)


def test_brightness_and_contrast_of_hand() -> None:
    image = np.array([[[51, 51, 51], [153, 153, 153]]], np.uint8)  # 0.2 and 0.6, mean 0.4
    pixels, _ = apply(image, {}, Drawn(contrast=1.5))
    np.testing.assert_allclose(pixels[0, :, 0], [0.1, 0.7], atol=1e-6)
    pixels, _ = apply(image, {}, Drawn(brightness=1.5, contrast=0.5))
    np.testing.assert_allclose(pixels[0, :, 0], [0.45, 0.75], atol=1e-6)
    pixels, _ = apply(image, {}, Drawn(brightness=2.0))
    np.testing.assert_allclose(pixels[0, :, 0], [0.4, 1.0], atol=1e-6)


def test_a_blur_is_a_gaussian_of_its_width() -> None:
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 255
    pixels, masks = apply(image, {"a": image[..., 0]}, Drawn(blur=2.0))
    y, x = np.mgrid[-20:21, -20:21]
    gaussian = np.exp(-(x**2 + y**2) / (2 * 2.0**2))
    np.testing.assert_allclose(pixels[..., 1], gaussian / gaussian.sum(), atol=2e-4)
    assert np.array_equal(masks["a"], image[..., 0]), "masks are not blurred"
    blurs = np.array([draw(Augment(blur=2.0), rng(seed), 8, 8).blur for seed in range(400)])
    assert 160 < (blurs == 0).sum() < 240 and 1.8 < blurs.max() <= 2.0


def test_colours_stay_in_their_range_whatever_is_drawn() -> None:
    augment = Augment(scale=3, stain=1, brightness=0.9, contrast=0.9, blur=3)
    for seed in range(40):
        pixels, _ = apply(random(seed=seed), {}, draw(augment, rng(seed), 20, 24))
        assert pixels.dtype == np.float32 and pixels.min() >= 0 and pixels.max() <= 1
