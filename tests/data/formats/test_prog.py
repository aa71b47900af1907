"""ProG (RINGS): crops that do not overlap, validation by name, and masks of several codings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.formats.drawing import draw, draw_mask, errors, kinds, stripes
from eosin.core.errors import EosinError, WrongUse
from eosin.data.dataset import Dataset
from eosin.data.formats import import_dataset
from eosin.slides.image import read_mask, read_rgb

TRAIN = ("P1_D1_1_1_1", "P1_D1_1_1_2", "P10_D1_1_1_1")
TEST = ("P2_D1_1_1_1", "P2_D1_1_1_2", "P20_D1_1_1_1")
SMALL = {"tile": 16, "val_images": 1}
TRUTH = stripes([0, 0, 0, 1, 1], 40, 40)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Images of 40 px: 2 x 2 crops of 16 px and 8 px left over."""
    root = tmp_path / "src" / "RINGS algorithm dataset"
    for part, names in (("TRAIN", TRAIN), ("TEST", TEST)):
        for name in names:
            draw(root / part / "IMAGES" / f"{name}.png", 40, 40)
            draw_mask(root / part / "MANUAL GLANDS" / f"{name}.png", TRUTH * 255)
            draw_mask(root / part / "MANUAL TUMOR" / f"{name}.png", TRUTH * 0)
    return tmp_path / "src"


def imported(source: Path, dest: Path, **options: Any) -> Dataset:
    return import_dataset("prog", source, dest, {**SMALL, **options})


def test_crops_do_not_overlap(release: Path, tmp_path: Path) -> None:
    data = imported(release, tmp_path / "d")
    assert data.classes.names == ("rest", "gland") and data.mpp == 0.934 and data.tag_rule == 0.05
    assert [len(data.items(split)) for split in ("train", "val", "test")] == [12, 4, 8]
    items, truth = data.items("train"), data.truth("train")
    assert truth is not None and set(items.parents.tolist()) == set(TRAIN)
    assert items.xy[:4].tolist() == [[0, 0], [16, 0], [0, 16], [16, 16]]
    for index in range(len(items)):
        x, y = items.xy[index]
        box = (slice(y, y + 16), slice(x, x + 16))
        image = release / "RINGS algorithm dataset" / "TRAIN" / "IMAGES" / f"{items.parents[index]}.png"
        np.testing.assert_array_equal(read_rgb(items.path(index)), read_rgb(image)[box])
        np.testing.assert_array_equal(read_mask(truth.path(index)), TRUTH[box])
        assert items.tags[index].tolist() == [float((TRUTH[box] == k).mean() > 0.05) for k in (0, 1)]
    assert errors(data) == []


def test_crops_can_meet_the_border(release: Path, tmp_path: Path) -> None:
    items = imported(release, tmp_path / "d", border=True).items("train")
    assert items.xy[:9].tolist() == [[x, y] for y in (0, 16, 24) for x in (0, 16, 24)]


def test_the_paper_counts_36_crops_of_224_px(tmp_path: Path) -> None:
    for part in ("TRAIN", "TEST"):
        for index in range(2):
            draw(tmp_path / "src" / part / "IMAGES" / f"P{index}_{part}.png", 1500, 1500)
            draw_mask(tmp_path / "src" / part / "MANUAL GLANDS" / f"P{index}_{part}.png", stripes([0, 1], 1500, 1500))
    data = import_dataset("prog", tmp_path / "src", tmp_path / "d", {"val_images": 1})
    assert [len(data.items(split)) for split in ("train", "val", "test")] == [72, 36, 36]


def test_validation_is_the_first_by_name_and_shared_patients_are_declared(release: Path, tmp_path: Path) -> None:
    data = imported(release, tmp_path / "d", scored="whole")
    val, test = data.items("val"), data.items("test")
    assert val.ids.tolist() == [TEST[0]] and test.ids.tolist() == list(TEST[1:])
    assert test.patients.tolist() == ["P2", "P20"] and set(data.known) == {"patient_overlap"}
    assert errors(data) == [] and "known" not in kinds(data)
    apart = imported(release, tmp_path / "e", val_images=2)
    assert not apart.known and errors(apart) == []


def test_masks_of_other_codings(release: Path, tmp_path: Path) -> None:
    root = release / "RINGS algorithm dataset" / "TRAIN" / "MANUAL GLANDS"
    draw_mask(root / f"{TRAIN[0]}.png", TRUTH)
    Image.fromarray(TRUTH.astype(bool)).save(root / f"{TRAIN[1]}.png")
    Image.fromarray(np.array([(68, 0, 83), (254, 230, 35)], np.uint8)[TRUTH]).save(root / f"{TRAIN[2]}.png")
    truth = imported(release, tmp_path / "d").truth("train")
    assert truth is not None
    for index in range(12):
        y, x = divmod(index % 4, 2)
        np.testing.assert_array_equal(read_mask(truth.path(index)), TRUTH[16 * y :, 16 * x :][:16, :16])


def test_mistakes_name_the_file_and_the_mend(release: Path, tmp_path: Path) -> None:
    root = release / "RINGS algorithm dataset"
    mask = root / "TRAIN" / "MANUAL GLANDS" / f"{TRAIN[0]}.png"

    def refused(says: str, kind: type[Exception] = EosinError, **options: Any) -> None:
        with pytest.raises(kind, match=says) as caught:
            imported(release, tmp_path / "d", **options)
        assert "\n" not in str(caught.value) and not (tmp_path / "d").exists() and not list(tmp_path.glob(".d*"))

    refused("val_images: 3 of the 3 test images leave none for the test", WrongUse, val_images=3)
    refused(r"\.png: 40 x 40 px are less than a patch of 41 px", tile=41)
    draw_mask(mask, stripes([0, 1, 255], 40, 40))
    refused(r"P1_D1_1_1_1\.png: value 255 is none of 0 rest, 1 gland or 0 rest, 255 gland")
    draw_mask(mask, TRUTH, ((254, 230, 35), (68, 0, 83)))
    refused(r"P1_D1_1_1_1\.png: palette index 0 \(rest\) has the colour of gland")
    mask.unlink()
    refused(r"P1_D1_1_1_1\.png: no mask of this name in .*MANUAL GLANDS")
    (root / "TRAIN" / "MANUAL GLANDS").rename(root / "TRAIN" / "GLANDS")
    refused("TRAIN: needs subfolders IMAGES and MANUAL GLANDS")
    (root / "TEST").rename(root / "TESTS")
    refused("no folder TEST in it")
