"""EBHI-Seg: six folders, binary labels, files without a partner, and cases that stay together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.formats.drawing import draw, draw_mask, errors, stripes
from eosin.core.errors import EosinError, WrongUse
from eosin.data.dataset import Dataset
from eosin.data.formats import ebhi, import_dataset
from eosin.slides.image import read_mask


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Ten cases of six images, each over the six folders; the folder as the archive unpacks it."""
    root = tmp_path / "src" / "EBHI-SEG"
    for case in range(10):
        for index, name in enumerate(ebhi.FOLDERS):
            file = f"GT20{case:02d}149-2-400-{index:03d}.png"
            draw(root / name / "image" / file)
            truth = stripes([0] if index == 0 else [0, 1] if index < 5 else [1])
            draw_mask(root / name / "label" / file, truth * 255)
    return tmp_path / "src"


def imported(source: Path, dest: Path, **options: Any) -> Dataset:
    return import_dataset("ebhi", source, dest, options)


def test_masks_become_numbers_and_images_stay(release: Path, tmp_path: Path) -> None:
    data = imported(release, tmp_path / "d")
    assert data.classes.names == ("rest", "gland") and data.mpp is None and data.tag_rule == 0.05
    for split in data.splits:
        items, truth = data.items(split), data.truth(split)
        assert truth is not None and len(truth) == len(items)
        for index in range(len(items)):
            assert items.path(index).is_relative_to(release)
            given = read_mask(Path(str(items.path(index)).replace("/image/", "/label/")))
            np.testing.assert_array_equal(read_mask(truth.path(index)), given // 255)
            assert items.tags[index].tolist() == [float((given == 0).mean() > 0.05), float((given > 0).mean() > 0.05)]
    assert not (data.folder / ebhi.LEFT_OUT).exists() and not data.known and errors(data) == []


def test_cases_stay_together_in_seven_to_one_to_two(release: Path, tmp_path: Path) -> None:
    data = imported(release, tmp_path / "d")
    patients = {split: set(data.items(split).patients.tolist()) for split in data.splits}
    assert [len(patients[split]) for split in ("train", "val", "test")] == [7, 1, 2]
    assert len(set.union(*patients.values())) == 10 and "GT2003149" in set.union(*patients.values())
    again = imported(release, tmp_path / "again", seed=5)
    assert set(again.items("test").patients.tolist()) != patients["test"]
    two = imported(release, tmp_path / "two", val_fraction=0, test_fraction=0.3)
    assert two.splits == ("train", "test") and len(two.items("test")) == 18


def test_folders_can_be_chosen(release: Path, tmp_path: Path) -> None:
    data = imported(release, tmp_path / "d", folders="Polyp, Low-grade IN")
    assert len(data) == 20
    assert {name.split("_GT")[0] for split in data.splits for name in data.items(split).ids} == {
        "Polyp",
        "Low-grade_IN",
    }
    with pytest.raises(WrongUse, match=r"EBHI-Seg has no 'Low grade IN' \(did you mean 'Low-grade IN'\?\)"):
        imported(release, tmp_path / "e", folders="Low grade IN")


def test_files_without_a_partner_are_left_out_and_listed(release: Path, tmp_path: Path) -> None:
    root = release / "EBHI-SEG"
    label = root / "Normal" / "label" / "GT2004149-2-400-000.png"
    label.rename(label.with_name("GTGT2004149-2-400-000.png"))
    data = imported(release, tmp_path / "d")
    listed = (data.folder / ebhi.LEFT_OUT).read_text().splitlines()
    assert len(data) == 59 and [Path(line).parent.name + "/" + Path(line).name for line in listed] == [
        "image/GT2004149-2-400-000.png",
        "label/GTGT2004149-2-400-000.png",
    ]


def test_folders_in_other_spelling_and_labels_of_bits(release: Path, tmp_path: Path) -> None:
    root = release / "EBHI-SEG"
    for name in ebhi.FOLDERS:
        (root / name).rename(root / name.lower().replace(" ", "_").replace("-", "_"))
    for file in (root / "polyp" / "label").iterdir():
        Image.fromarray(read_mask(file) > 0).save(file)
    for file in (root / "low_grade_in" / "label").iterdir():
        Image.fromarray(np.repeat(read_mask(file)[..., None], 3, axis=2)).save(file)
    root.rename(release / "flat")
    data = imported(release / "flat", tmp_path / "d")
    assert len(data) == 60 and errors(data) == []


def test_mistakes_name_the_file_and_the_mend(release: Path, tmp_path: Path) -> None:
    root = release / "EBHI-SEG"
    file = root / "Polyp" / "label" / "GT2001149-2-400-001.png"

    def refused(says: str, **options: Any) -> None:
        with pytest.raises(EosinError, match=says) as caught:
            imported(release, tmp_path / "d", **options)
        assert "\n" not in str(caught.value) and not (tmp_path / "d").exists() and not list(tmp_path.glob(".d*"))

    draw_mask(file, stripes([0, 128]))
    refused(r"Polyp/label/GT2001149-2-400-001\.png: value 128 is none of 0 rest, 1 gland or 0 rest, 255 gland;")
    draw_mask(file, stripes([0, 1], 15))
    refused(r"label/GT2001149-2-400-001\.png: 16 x 15 px where its image has 16 x 16")
    refused("they leave nothing for training", val_fraction=0.5, test_fraction=0.5)
    (root / "Polyp" / "label").rename(root / "Polyp" / "truth")
    refused("Polyp: needs subfolders image and label")
    (root / "Normal").rename(root / "Norm")
    refused("no folder 'Normal' in it")
