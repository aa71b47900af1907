"""The public part of WSSS4LUAD: cut into patches with tags from their masks, or both ways for folds."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.formats.drawing import draw, draw_mask, errors, kinds, stripes
from eosin.core.errors import EosinError, WrongUse
from eosin.data.dataset import Dataset
from eosin.data.formats import import_dataset, wsss4luad
from eosin.data.split import split_dataset
from eosin.slides.image import read_mask, read_rgb

COLOURS = (*wsss4luad.CLASSES.colours, (255, 255, 255))
SMALL = {"tile": 16, "stride": 16}


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """Ten development images of 24 x 32 px and two for the test; the left half tumor, the right stroma or white."""
    folder = tmp_path / "src" / "test"
    rows = [["name", "dev_split", "tumor"]]
    for index in range(12):
        name = f"{index:02d}"
        draw(folder / "images" / f"{name}.png", 24, 32)
        right = 3 if index % 2 else 1
        draw_mask(folder / "masks" / f"{name}.png", stripes([index % 3, right], 24, 32), COLOURS)
        rows.append([name, "val" if index < 2 else "train", "1"])
    draw(tmp_path / "src" / "train_examples" / "436219-7159-48057-[1, 0, 0].png")
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return tmp_path / "src"


def imported(source: Path, dest: Path, **options: Any) -> Dataset:
    return import_dataset("wsss4luad", source, dest, {**SMALL, **options})


def test_the_parts(public: Path, tmp_path: Path) -> None:
    data = imported(public, tmp_path / "d")
    train, val, test = (data.items(split) for split in ("train", "val", "test"))
    assert data.splits == ("train", "val", "test") and test.ids.tolist() == ["00", "01"]
    assert len(val) == 2 and len(set(train.parents.tolist())) == 8
    assert not set(val.ids.tolist()) & set(train.parents.tolist())
    assert data.mpp is None and data.tag_rule == 0.05 and data.classes.ignore == 3 and not data.known
    assert errors(data) == [] and set(kinds(data)) <= {"mpp", "patient"}
    other = imported(public, tmp_path / "e", seed=1)
    assert other.items("val").ids.tolist() != val.ids.tolist()
    assert imported(public, tmp_path / "f").items("val").ids.tolist() == val.ids.tolist()


def test_patches_are_those_of_the_image_and_white_ones_are_left_out(public: Path, tmp_path: Path) -> None:
    data = imported(public, tmp_path / "d", val_fraction=0)
    items, truth = data.items("train"), data.truth("train")
    assert truth is not None and len(truth) == len(items) and data.splits == ("train", "test")
    assert (items.tags.sum(axis=1) > 0).all()
    for index in range(len(items)):
        name, (x, y) = str(items.parents[index]), items.xy[index]
        box = (slice(y, y + 16), slice(x, x + 16))
        mask = read_mask(public / "test" / "masks" / f"{name}.png")[box]
        np.testing.assert_array_equal(
            read_rgb(items.path(index)), read_rgb(public / "test" / "images" / f"{name}.png")[box]
        )
        np.testing.assert_array_equal(read_mask(truth.path(index)), mask)
        assert items.tags[index].tolist() == [float((mask == k).mean() > 0.05) for k in range(3)]
    odd = items.subset(items.parents == "03")
    assert odd.xy.tolist() == [[0, 0], [0, 8]], "the right half is white, the last row meets the border"
    even = items.subset(items.parents == "04")
    assert even.xy.tolist() == [[0, 0], [16, 0], [0, 8], [16, 8]]


def test_whole_images_are_copied_with_their_masks(public: Path, tmp_path: Path) -> None:
    data = imported(public, tmp_path / "d")
    items, truth = data.items("test"), data.truth("test")
    assert truth is not None
    for index, name in enumerate(items.ids.tolist()):
        np.testing.assert_array_equal(read_rgb(items.path(index)), read_rgb(public / "test" / "images" / f"{name}.png"))
        np.testing.assert_array_equal(
            read_mask(truth.path(index)), read_mask(public / "test" / "masks" / f"{name}.png")
        )
        assert items.path(index).is_relative_to(data.folder)


def test_both_ways_makes_sound_folds(public: Path, tmp_path: Path) -> None:
    data = imported(public, tmp_path / "d", cut="all")
    assert data.splits == ("train", "whole") and len(data.items("whole")) == 12
    assert set(data.items("train").parents.tolist()) == set(data.items("whole").ids.tolist())
    assert set(data.known) == {"parent_overlap"} and errors(data) == [] and "known" not in kinds(data)
    tested: list[str] = []
    for folder in split_dataset(data.folder, tmp_path / "folds", by="image", folds=3):
        fold = Dataset.open(folder)
        tested += fold.items("test").ids.tolist()
        held = {*fold.items("test").ids.tolist(), *fold.items("val").ids.tolist()}
        assert not held & set(fold.items("train").parents.tolist())
        assert not fold.known and errors(fold) == []
    assert sorted(tested) == data.items("whole").ids.tolist()


def test_mistakes_name_the_file_and_the_mend(public: Path, tmp_path: Path) -> None:
    with pytest.raises(EosinError, match=r"\.png: 32 x 24 px are less than a patch of 25 px; choose a smaller tile"):
        imported(public, tmp_path / "d", tile=25)
    with pytest.raises(WrongUse, match="stride"):
        imported(public, tmp_path / "d", stride=17)
    draw_mask(public / "test" / "masks" / "05.png", stripes([1], 23, 32))
    with pytest.raises(EosinError, match=r"masks/05\.png: 32 x 23 px where its image has 32 x 24"):
        imported(public, tmp_path / "d")
    draw_mask(public / "test" / "masks" / "05.png", stripes([4], 24, 32))
    with pytest.raises(EosinError, match=r"masks/05\.png: value 4 is none of 0 tumor, 1 stroma, 2 normal, 3 ignore"):
        imported(public, tmp_path / "d")
    (public / "test" / "masks" / "05.png").unlink()
    with pytest.raises(EosinError, match=r"masks/05\.png: no such file"):
        imported(public, tmp_path / "d")
    table = public / "test" / "labels.csv"
    table.write_text(table.read_text().replace("05,train", "05,test"))
    with pytest.raises(EosinError, match=r"labels\.csv: dev_split of image '05' is 'test'; it must be train or val"):
        imported(public, tmp_path / "d")
    assert not (tmp_path / "d").exists() and not list(tmp_path.glob(".d*"))


def test_the_real_public_part(real_data: Path, tmp_path: Path) -> None:
    data = import_dataset("wsss4luad", real_data / "wsss4luad", tmp_path / "d", {})
    train, val, test = (data.items(split) for split in ("train", "val", "test"))
    assert (len(test), len(val), len(set(train.parents.tolist())), len(train)) == (22, 9, 36, 535)
    assert data.classes.names == ("tumor", "stroma", "normal") and data.classes.ignore == 3
    assert (train.tags.sum(axis=1) >= 1).all() and (train.tags.sum(axis=0) > 90).all()
    with (real_data / "wsss4luad" / "test" / "labels.csv").open() as file:
        official = {row["name"] for row in csv.DictReader(file) if row["dev_split"] == "val"}
    assert set(test.ids.tolist()) == official
    assert errors(data) == [] and set(kinds(data)) <= {"mpp", "patient", "cooccurring"}


@pytest.mark.slow
def test_the_real_public_part_both_ways(real_data: Path, tmp_path: Path) -> None:
    data = import_dataset("wsss4luad", real_data / "wsss4luad", tmp_path / "d", {"cut": "all"})
    assert len(data.items("whole")) == 67 and len(set(data.items("train").parents.tolist())) == 67
    assert errors(data) == []
