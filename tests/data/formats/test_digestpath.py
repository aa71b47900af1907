"""DigestPath: JPEG masks cut at 128, random crops that hold lesion, and splits by slide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.formats.drawing import errors
from eosin.core.errors import EosinError, WrongUse
from eosin.data.dataset import Dataset
from eosin.data.formats import import_dataset
from eosin.slides.image import read_mask, read_rgb

POSITIVE, NEGATIVE = "tissue-train-pos-v1", "tissue-train-neg"


class Release:
    """The release's folders: crops of 32 px scaled to 16, four of each positive image."""

    def __init__(self, folder: Path) -> None:
        self.root, self.out, self.count = folder / "DigestPath", folder / "out", 0

    def image(self, slide: str, lesion: np.ndarray | None = None, size: tuple[int, int] = (64, 80)) -> Path:
        self.count += 1
        folder = self.root / (NEGATIVE if lesion is None else POSITIVE)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{slide}-lv1-{self.count}-20-80-64.jpg"
        pixels = np.random.default_rng(self.count).integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, quality=95)
        if lesion is not None:
            Image.fromarray(lesion.astype(np.uint8) * 255).save(path.with_name(f"{path.stem}_mask.jpg"), quality=75)
        return path

    def imported(self, **options: Any) -> Dataset:
        few = {"crop": 32, "tile": 16, "crops": 4, "test_crops": 3, "val_fraction": 0, "test_fraction": 0}
        return import_dataset("digestpath", self.root, self.out, {**few, **options})


def left_half(height: int = 64, width: int = 80) -> np.ndarray:
    lesion = np.zeros((height, width), bool)
    lesion[:, : width // 2] = True
    return lesion


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return Release(tmp_path)


def test_crops_hold_lesion_and_twice_as_many_hold_none(release: Release) -> None:
    for number in range(3):
        release.image(f"2018_1-{number}", left_half())
        release.image(f"2018_9-{number}")
    data = release.imported()
    items, truth = data.items("train"), data.truth("train")
    assert data.classes.names == ("rest", "lesion") and data.mpp == 1 and data.tag_rule == 0.05
    assert truth is not None and len(items) == len(truth) == 12 + 24
    for index in range(len(items)):
        positive = str(items.slides[index]).startswith("2018_1")
        assert items.tags[index][1] == positive and read_rgb(items.path(index)).shape == (16, 16, 3)
        assert (read_mask(truth.path(index)) == 1).any() == positive
    counts = {slide: int((items.slides == slide).sum()) for slide in set(items.slides)}
    assert set(counts.values()) == {4, 8} and errors(data) == []


def test_a_crop_is_that_place_of_image_and_mask(release: Release) -> None:
    """An image of one crop alone, twice as wide as the patch: means of four pixels, and the greater part of a mask."""
    lesion = np.zeros((32, 32), bool)
    lesion[:, :15] = True
    path = release.image("a", lesion, (32, 32))
    data = release.imported(crops=1)
    truth = data.truth("train")
    assert truth is not None
    mask = read_mask(truth.path(0))
    assert (mask[:, :7] == 1).all() and (mask[:, 8:] == 0).all()
    means = np.array(Image.open(path), float).reshape(16, 2, 16, 2, 3).mean((1, 3))
    assert np.abs(read_rgb(data.items("train").path(0)) - means).max() <= 0.5


def test_masks_are_cut_at_128(release: Release) -> None:
    path = release.image("a", left_half(32, 32), (32, 32))
    grey = np.full((32, 32), 127, np.uint8)
    grey[:, 16:] = 129
    Image.fromarray(grey).save(path.with_name(f"{path.stem}_mask.jpg"), quality=100)
    truth = release.imported(crops=1).truth("train")
    assert truth is not None
    mask = read_mask(truth.path(0))
    assert (mask[:, :7] == 0).all() and (mask[:, 9:] == 1).all()


def test_crops_of_a_small_lesion_are_where_it_is(release: Release) -> None:
    """A spot of 10 px in a corner is 10 % of a crop that holds it; most crops of the image would miss it."""
    lesion = np.zeros((64, 80), bool)
    lesion[:10, :10] = True
    release.image("a", lesion)
    data = release.imported(crops=10)
    assert data.items("train").tags[:, 1].tolist() == [1] * 10


def test_an_image_smaller_than_a_crop_is_cut_to_its_shorter_side(release: Release) -> None:
    release.image("a", left_half(24, 40), (24, 40))
    data = release.imported()
    assert len(data.items("train")) == 4 and read_rgb(data.items("train").path(0)).shape == (16, 16, 3)


def test_no_crop_is_drawn_twice(release: Release) -> None:
    release.image("a", left_half(33, 32), (33, 32))
    release.image("n", size=(33, 33))
    data = release.imported(crops=40, negatives=20)
    assert {slide: int((data.items("train").slides == slide).sum()) for slide in "an"} == {"a": 2, "n": 4}
    assert errors(data) == []


def test_slides_stay_together_and_parts_have_their_numbers(release: Release) -> None:
    for number in range(20):
        release.image(f"s{number // 2}", left_half())
        release.image(f"n{number // 2}")
    data = release.imported(val_fraction=0.1, test_fraction=0.1)
    assert {split: len(data.items(split)) for split in data.splits} == {
        "train": 16 * 4 * 3,
        "val": 2 * 3 * 2,
        "test": 2 * 3 * 2,
    }
    slides = [set(data.items(split).slides.tolist()) for split in data.splits]
    assert sum(len(names) for names in slides) == len(set.union(*slides)) == 20 and errors(data) == []


def test_a_slide_with_and_without_lesion_is_in_one_split(release: Release) -> None:
    for number in range(10):
        release.image(f"s{number}", left_half())
        release.image(f"s{number}")
    data = release.imported(test_fraction=0.3)
    assert not set(data.items("train").slides) & set(data.items("test").slides) and errors(data) == []


def test_the_seed_draws_crops_whatever_else_is_there(release: Release) -> None:
    release.image("a", left_half())

    def crops(number: int, **options: Any) -> list[bytes]:
        release.out = release.out.with_name(f"out{number}")
        items = release.imported(negatives=0, **options).items("train")
        return [items.path(k).read_bytes() for k in range(4)]

    first = crops(0)
    assert crops(1, seed=1) != first
    release.image("b", left_half())
    assert crops(2) == first


def test_what_cannot_be_imported_is_told_in_one_line(release: Release) -> None:
    release.image("n")
    with pytest.raises(EosinError, match=r"DigestPath: no images in a folder tissue-train-pos"):
        release.imported()
    path = release.image("a", np.zeros((64, 80), bool))
    with pytest.raises(EosinError, match=r"DigestPath: no crop holds more than 5% lesion"):
        release.imported()
    mask = path.with_name(f"{path.stem}_mask.jpg")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(mask)
    with pytest.raises(EosinError, match=r"_mask.jpg: 9 x 9 px where its image has 80 x 64"):
        release.imported()
    mask.unlink()
    with pytest.raises(EosinError, match=r"64.jpg: no .*_mask.jpg beside it"):
        release.imported()
    with pytest.raises(WrongUse, match="they leave nothing for training"):
        Image.fromarray(left_half().astype(np.uint8) * 255).save(mask)
        release.imported(val_fraction=0.5, test_fraction=0.5)
    path.rename(path.with_name("a.jpg"))
    with pytest.raises(EosinError, match=r"a.jpg: its name does not end in -lv1-x-y-w-h"):
        release.imported()
    path.with_name("a.jpg").unlink()
    (release.root / "x-lv1-1-2-3-4.jpg").write_bytes(b"")
    with pytest.raises(EosinError, match=r"x-lv1-1-2-3-4.jpg: in no folder tissue-train-pos or tissue-train-neg"):
        release.imported()
    assert not release.out.exists()
