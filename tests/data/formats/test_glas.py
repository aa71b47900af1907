"""GlaS from both forms of the source; the counts of the spec on the real files."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eosin.core.errors import EosinError, WrongUse
from eosin.data.check import check
from eosin.data.dataset import Dataset
from eosin.data.formats import _patches, import_dataset
from eosin.data.split import split_dataset
from eosin.slides.image import read_mask, read_rgb

SIZE = (48, 100)  # height, width: patches of 32 every 16 px have 2 x 6 places, the last column shifted to the border
SMALL = {"tile": 32, "stride": 16}
PATIENTS = {"train_1": "1", "train_2": "1", "train_3": "2", "train_10": "3", "testA_1": "2", "testB_1": "9"}


def content(name: str) -> tuple[np.ndarray, np.ndarray]:
    """An image, and glands numbered 1 and 2: left part and right part with a gap between."""
    rng = np.random.default_rng(sum(name.encode()))
    instances = np.zeros(SIZE, np.uint8)
    instances[:, :34], instances[10:, 96:] = 1, 2
    return rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8), instances


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """The official files, in a subfolder with blanks in its name as the archive has."""
    folder = tmp_path / "archive" / "Warwick QU Dataset (Released 2016_07_08)"
    folder.mkdir(parents=True)
    for name in PATIENTS:
        pixels, instances = content(name)
        Image.fromarray(pixels).save(folder / f"{name}.bmp")
        Image.fromarray(instances).save(folder / f"{name}_anno.bmp")
    lines = [f"{name}, {patient}, benign, healthy" for name, patient in PATIENTS.items()]
    header = "name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"
    (folder / "Grade.csv").write_text("\n".join([header, *lines]) + "\n")
    return tmp_path / "archive"


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """The folder form, with semantic masks and without test B."""
    source = tmp_path / "folders"
    rows = [["name", "split", "patient"]]
    for name, patient in PATIENTS.items():
        split = name.split("_", maxsplit=1)[0]
        if split == "testB":
            continue
        pixels, instances = content(name)
        for kind, values in (("images", pixels), ("masks", (instances > 0).astype(np.uint8))):
            (source / split / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(source / split / kind / f"{name}.png")
        rows.append([name, split, patient])
    with (source / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return source


def imported(source: Path, dest: Path, **options: Any) -> Dataset:
    return import_dataset("glas", source, dest, {**SMALL, **options})


def test_patches_are_cut_to_the_border_with_tags_from_their_masks(official: Path, tmp_path: Path) -> None:
    data = imported(official, tmp_path / "d", val_fraction=0)
    items, truth = data.items("train"), data.truth("train")
    assert truth is not None and len(items) == len(truth) == 4 * 12
    first = items.subset(items.parents == "train_1")
    assert first.xy.tolist() == [[x, y] for y in (0, 16) for x in (0, 16, 32, 48, 64, 68)]
    assert first.ids[5] == "train_1_0000_0068"
    pixels, instances = content("train_1")
    for index in range(len(first)):
        x, y = first.xy[index]
        patch = instances[y : y + 32, x : x + 32] > 0
        np.testing.assert_array_equal(read_rgb(first.path(index)), pixels[y : y + 32, x : x + 32])
        np.testing.assert_array_equal(read_mask(truth.path(index)), patch)
        assert first.tags[index].tolist() == [float((~patch).mean() > 0.05), float(patch.mean() > 0.05)]
    assert {tuple(tags) for tags in items.tags.tolist()} == {(1, 1), (1, 0), (0, 1)}


def test_natural_order_and_self_contained(official: Path, tmp_path: Path) -> None:
    data = imported(official, tmp_path / "d", val_fraction=0)
    assert list(dict.fromkeys(data.items("train").parents.tolist())) == ["train_1", "train_2", "train_3", "train_10"]
    assert all(data.items(split).path(0).is_relative_to(data.folder) for split in data.splits)


def test_validation_is_whole_images_of_other_patients(official: Path, tmp_path: Path) -> None:
    data = imported(official, tmp_path / "d", val_patients="1,3")
    val, truth = data.items("val"), data.truth("val")
    assert val.ids.tolist() == ["train_1", "train_2", "train_10"] and val.patients.tolist() == ["1", "1", "3"]
    assert set(data.items("train").patients.tolist()) == {"2"}
    pixels, instances = content("train_10")
    assert truth is not None
    np.testing.assert_array_equal(read_rgb(val.path(2)), pixels)
    np.testing.assert_array_equal(read_mask(truth.path(2)), instances > 0)


def test_validation_by_share_is_seeded(official: Path, tmp_path: Path) -> None:
    chosen = {
        seed: tuple(
            imported(official, tmp_path / f"d{seed}", val_fraction=0.25, seed=seed).items("val").patients.tolist()
        )
        for seed in range(6)
    }
    assert len(set(chosen.values())) > 1
    again = imported(official, tmp_path / "again", val_fraction=0.25, seed=4)
    assert tuple(again.items("val").patients.tolist()) == chosen[4]


def test_test_a_and_test_b_are_two_splits(official: Path, tmp_path: Path) -> None:
    data = imported(official, tmp_path / "d")
    assert data.splits == ("train", "val", "test", "testb")
    for split, name in (("test", "testA_1"), ("testb", "testB_1")):
        items, truth = data.items(split), data.truth(split)
        assert items.ids.tolist() == [name] and items.patients.tolist() == [PATIENTS[name]] and truth is not None
        np.testing.assert_array_equal(read_rgb(items.path(0)), content(name)[0])
        np.testing.assert_array_equal(read_mask(truth.path(0)), content(name)[1] > 0)


def test_test_b_of_the_folder_form_is_a_split_too(folders: Path, tmp_path: Path) -> None:
    (folders / "testA").rename(folders / "testB")
    table = folders / "labels.csv"
    table.write_text(table.read_text().replace("testA", "testB"))
    (folders / "testB" / "images" / "testA_1.png").rename(folders / "testB" / "images" / "testB_1.png")
    (folders / "testB" / "masks" / "testA_1.png").rename(folders / "testB" / "masks" / "testB_1.png")
    data = imported(folders, tmp_path / "d")
    assert data.splits == ("train", "val", "testb") and data.items("testb").ids.tolist() == ["testB_1"]
    assert not (data.folder / "test").exists()


@pytest.mark.parametrize("grade", ["benign", "malignant"])
def test_the_images_of_one_grade_are_a_data_set_of_their_own(
    official: Path, folders: Path, tmp_path: Path, grade: str
) -> None:
    malignant = {"train_2", "train_10", "testA_1"}
    table = next(official.glob("*/Grade.csv"))
    lines = [
        line.replace("benign", "malignant") if line.split(",")[0] in malignant else line
        for line in table.read_text().splitlines()
    ]
    table.write_text("\n".join(lines) + "\n")
    data = imported(official, tmp_path / "d", grade=grade, val_fraction=0)
    wanted = {name for name in PATIENTS if (name in malignant) == (grade == "malignant")}
    assert data.name == f"glas-{grade}"
    assert set(data.items("train").parents.tolist()) == {name for name in wanted if name.startswith("train")}
    assert data.splits == (("train", "testb") if grade == "benign" else ("train", "test"))
    with pytest.raises(EosinError, match="column 'grade_glas' is missing"):
        imported(folders, tmp_path / "none", grade=grade)


def test_both_forms_agree(official: Path, folders: Path, tmp_path: Path) -> None:
    first, second = imported(official, tmp_path / "a"), imported(folders, tmp_path / "b")
    assert first.items("test").ids.tolist() == second.items("test").ids.tolist() == ["testA_1"]
    assert second.splits == ("train", "val", "test") and not (second.folder / "testb").exists()
    for split in ("train", "val"):
        one, two = first.items(split), second.items(split)
        assert one.ids.tolist() == two.ids.tolist() and one.patients.tolist() == two.patients.tolist()
        np.testing.assert_array_equal(one.tags, two.tags)


def test_whole_images_keep_the_numbers_of_their_glands(official: Path, tmp_path: Path) -> None:
    anno = next(official.rglob("testA_1_anno.bmp"))
    Image.fromarray(
        np.select([content("testA_1")[1] == 1, content("testA_1")[1] == 2], [200, 7]).astype(np.uint8)
    ).save(anno)
    data = imported(official, tmp_path / "d", val_patients="1")
    assert data.objects is not None and (data.objects.tissue, data.objects.folder) == ("gland", "objects")
    names = [str(name) for split in ("val", "test", "testb") for name in data.items(split).ids]
    assert sorted(path.stem for path in (data.folder / "objects").iterdir()) == sorted(names)
    for name in names:
        path = data.object_path(name)
        assert path is not None
        np.testing.assert_array_equal(read_mask(path), content(name)[1], err_msg=name)
    assert data.object_path(str(data.items("train").ids[0])) is None


def test_numbers_of_the_folder_form(folders: Path, tmp_path: Path) -> None:
    assert imported(folders, tmp_path / "none").objects is None
    for split in ("train", "testA"):
        (folders / split / "instances").mkdir()
        for image in (folders / split / "images").iterdir():
            Image.fromarray(content(image.stem)[1]).save(folders / split / "instances" / image.name)
    data = imported(folders, tmp_path / "d")
    path = data.object_path("testA_1")
    assert path is not None and data.object_path(str(data.items("val").ids[0])) is not None
    np.testing.assert_array_equal(read_mask(path), content("testA_1")[1])
    Image.fromarray(content("testA_1")[1][:, ::-1].copy()).save(folders / "testA" / "instances" / "testA_1.png")
    with pytest.raises(EosinError, match=r"instances/testA_1\.png: its glands are not those of the mask"):
        imported(folders, tmp_path / "e")
    (folders / "testA" / "instances" / "testA_1.png").unlink()
    with pytest.raises(EosinError, match=r"instances/testA_1\.png: no such file"):
        imported(folders, tmp_path / "e")


def test_both_ways_makes_sound_folds(official: Path, tmp_path: Path) -> None:
    data = imported(official, tmp_path / "d", cut="all")
    train, whole, truth = data.items("train"), data.items("whole"), data.truth("whole")
    assert data.splits == ("train", "whole") and truth is not None
    assert set(whole.ids.tolist()) == set(PATIENTS) == set(train.parents.tolist()) and len(train) == 6 * 12
    for index, name in enumerate(whole.ids.tolist()):
        np.testing.assert_array_equal(read_rgb(whole.path(index)), content(name)[0])
        np.testing.assert_array_equal(read_mask(truth.path(index)), content(name)[1] > 0)
        assert data.object_path(name) is not None
    assert data.known == {
        "patient_overlap": "every image is here as patches and whole; make folds with eosin data split"
    }
    assert [(finding.level, finding.kind) for finding in check(data.folder)] == [("warning", "patient_overlap")]
    for folder in split_dataset(data.folder, tmp_path / "folds", by="patient", folds=2, val=0):
        fold = Dataset.open(folder)
        assert not set(fold.items("train").patients.tolist()) & set(fold.items("test").patients.tolist())
        assert not [finding for finding in check(folder) if finding.level == "error"]
    with pytest.raises(WrongUse, match="val_patients: nothing is held out with cut=all"):
        imported(official, tmp_path / "e", cut="all", val_patients="1")


def test_masks_with_swapped_colours_are_refused(folders: Path, tmp_path: Path) -> None:
    file = folders / "train" / "masks" / "train_2.png"
    mask = Image.open(file)
    mask.putpalette([64, 128, 0, 0, 64, 128])
    mask.save(file)
    imported(folders, tmp_path / "d")
    mask.putpalette([0, 64, 128, 64, 128, 0])
    mask.save(file)
    with pytest.raises(EosinError, match=r"train_2\.png: palette index 0 \(rest\) has the colour of gland"):
        imported(folders, tmp_path / "e")


def test_the_official_overlap_is_declared(official: Path, tmp_path: Path) -> None:
    data = imported(official, tmp_path / "d", val_patients="1")
    assert data.known == {"patient_overlap": "official split"} and data.tag_rule == 0.05
    assert data.classes.names == ("rest", "gland") and data.mpp == 0.62005 and "research only" in data.licence
    [found] = check(data.folder)
    assert (found.level, found.kind) == ("warning", "patient_overlap") and "'2'" in str(found)


def test_patients_that_only_test_a_and_b_share_are_declared_too(official: Path, tmp_path: Path) -> None:
    table = next(official.rglob("Grade.csv"))
    table.write_text(table.read_text().replace("testA_1, 2,", "testA_1, 9,"))
    data = imported(official, tmp_path / "d", val_patients="1")
    [found] = check(data.folder)
    assert (found.level, found.kind) == ("warning", "patient_overlap") and "(test and testb): '9'" in str(found)
    table.write_text(table.read_text().replace("testA_1, 9,", "testA_1, 8,"))
    assert not imported(official, tmp_path / "e", val_patients="1").known


def test_mistakes_name_the_file_and_the_mend(official: Path, tmp_path: Path) -> None:
    with pytest.raises(EosinError, match=r"neither Grade\.csv nor labels\.csv"):
        imported(tmp_path, tmp_path / "d")
    with pytest.raises(WrongUse, match=r"no training image is of patient '9' \(there are: 1, 2, 3\)"):
        imported(official, tmp_path / "d", val_patients="9")
    with pytest.raises(EosinError, match=r"train_1\.bmp: 100 x 48 px are less than a patch of 64 px; choose a smaller"):
        imported(official, tmp_path / "d", tile=64, val_fraction=0)
    with pytest.raises(WrongUse, match="stride"):
        imported(official, tmp_path / "d", stride=40)
    next(official.rglob("testA_1.bmp")).unlink()
    with pytest.raises(EosinError, match=r"testA_1\.bmp: no such file"):
        imported(official, tmp_path / "d")
    assert not (tmp_path / "d").exists() and not list(tmp_path.glob(".d*"))


def test_image_and_mask_of_different_size(folders: Path, tmp_path: Path) -> None:
    Image.new("L", (100, 47)).save(folders / "train" / "masks" / "train_2.png")
    with pytest.raises(EosinError, match=r"train_2\.png: 100 x 47 px where its image has 100 x 48"):
        imported(folders, tmp_path / "d")


def test_a_part_that_glas_does_not_have(folders: Path, official: Path, tmp_path: Path) -> None:
    for table, part in ((folders / "labels.csv", "testC"), (next(official.rglob("Grade.csv")), "testC")):
        table.write_text(table.read_text().replace("testA", part))
        with pytest.raises(EosinError, match=rf"{table.name}: 'testC_1' is in 'testC', which is none of train, testA"):
            imported(table.parent, tmp_path / "d")


def test_a_table_without_its_columns(folders: Path, tmp_path: Path) -> None:
    (folders / "labels.csv").write_text("name,split\n")
    with pytest.raises(EosinError, match=r"labels\.csv: line 1: column 'patient' is missing"):
        imported(folders, tmp_path / "d")


def test_the_counts_of_the_papers(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """9,703 patches at 112/56, counted by the importer; their pixels are not encoded here, to be quick."""
    monkeypatch.setattr(_patches, "png_bytes", lambda pixels, classes=None: b"")
    data = import_dataset("glas", real_data / "glas", tmp_path / "d", {"val_fraction": 0})
    tags = [tuple(row) for row in data.items("train").tags.astype(int).tolist()]
    counts = {kind: tags.count(kind) for kind in ((1, 1), (1, 0), (0, 1), (0, 0))}
    assert (len(tags), counts) == (9703, {(1, 1): 6956, (1, 0): 1624, (0, 1): 1123, (0, 0): 0})
    assert data.splits == ("train", "test") and len(data.items("test")) == 60 and data.objects is not None


@pytest.mark.slow
def test_the_real_data_set_is_sound(real_data: Path, tmp_path: Path) -> None:
    data = import_dataset("glas", real_data / "glas", tmp_path / "d", {})
    train, val = data.items("train"), data.items("val")
    assert not set(train.patients.tolist()) & set(val.patients.tolist())
    assert 12 <= len(val) <= 20 and len(set(train.parents.tolist())) == 85 - len(val)
    found = check(data.folder)
    assert [finding.level for finding in found] == ["warning"] and found[0].kind == "patient_overlap"
