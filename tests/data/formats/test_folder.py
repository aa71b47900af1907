"""Your own patches: names, tables and folders, indexed in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eosin.core.errors import EosinError, WrongUse
from eosin.data.check import check
from eosin.data.dataset import Dataset
from eosin.data.formats import import_dataset
from eosin.data.formats._common import coloured, label_of, unlabelled
from oracles.colours import least

SEEN = [0]


def draw(path: Path) -> Path:
    """An image that no other test image equals."""
    SEEN[0] += 1
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(SEEN[0]).integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)
    return path


def draw_mask(path: Path, *values: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.resize(np.array(values, np.uint8), (8, 8))).save(path)


def imported(tmp_path: Path, **options: Any) -> Dataset:
    return import_dataset("folder", tmp_path / "src", tmp_path / "out", options)


def errors(dataset: Dataset) -> list[str]:
    return [str(finding) for finding in check(dataset.folder) if finding.level == "error"]


@pytest.mark.parametrize(
    ("name", "tags"),
    [
        ("TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500+0[1101].png", (1, 1, 0, 1)),
        ("387709-9108-71176-[1 0 0 1].png", (1, 0, 0, 1)),
        ("436219-7159-48057-[1, 0, 0].png", (1, 0, 0)),
        ("a[1_1_0].JPG", (1, 1, 0)),
        ("a[01]-b[1].tiff", (1,)),
        ("a[2].png", None),
        ("a[10]b.png", None),
        ("[10]", None),
        ("a.png", None),
    ],
)
def test_labels_in_names(name: str, tags: tuple[int, ...] | None) -> None:
    assert label_of(name) == tags


def test_names_without_their_labels() -> None:
    for name, bare in (("387709-9108-71176-[1 0 0 1].png", "387709-9108-71176"), ("a.b[1].png", "a.b"), ("c.PNG", "c")):
        assert unlabelled(name) == bare


@pytest.mark.parametrize("count", range(2, 7))
def test_class_colours_are_told_apart_by_every_eye(count: int) -> None:
    assert least(coloured([f"c{index}" for index in range(count)]).colours)[0] >= 15


def test_names_with_labels(tmp_path: Path) -> None:
    for name in ("p1-1-[1, 0, 0].png", "p1-2-[0, 1, 1].png", "sub/p2-10[111].png", "sub/p2-9[0 0 1].png"):
        draw(tmp_path / "src" / name)
    data = imported(tmp_path, classes="tumour, stroma,normal", mpp="0.5", licence="CC0-1.0", patient=r"(p\d+)-")
    items = data.items("train")
    assert data.classes.names == ("tumour", "stroma", "normal") and data.mpp == 0.5 and data.name == "src"
    assert items.ids.tolist() == ["p1-1", "p1-2", "sub_p2-9", "sub_p2-10"]
    assert items.tags.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 1], [1, 1, 1]]
    assert items.patients.tolist() == ["p1", "p1", "p2", "p2"]
    assert items.path(0) == tmp_path / "src" / "p1-1-[1, 0, 0].png", "images are indexed where they are"
    assert sorted(path.name for path in data.folder.iterdir()) == ["dataset.yaml", "items.csv"]
    assert errors(data) == []


def test_class_folders(tmp_path: Path) -> None:
    for name in ("normal/a.png", "dysplastic/a.png", "dysplastic/deep/b.png"):
        draw(tmp_path / "src" / name)
    (tmp_path / "src" / "normal" / ".hidden.png").write_bytes(b"")
    (tmp_path / "src" / "normal" / "notes.txt").write_bytes(b"")
    items = imported(tmp_path).items("train")
    assert items.ids.tolist() == ["dysplastic_a", "dysplastic_deep_b", "normal_a"]
    assert items.tags.tolist() == [[1, 0], [1, 0], [0, 1]]


def test_the_order_of_class_folders_can_be_chosen(tmp_path: Path) -> None:
    for name in ("normal/a.png", "dysplastic/a.png"):
        draw(tmp_path / "src" / name)
    data = imported(tmp_path, classes="normal,dysplastic")
    assert data.classes.names == ("normal", "dysplastic") and data.items("train").tags.tolist() == [[0, 1], [1, 0]]


def table(tmp_path: Path, text: str) -> None:
    for name in "abc":
        draw(tmp_path / "src" / "img" / f"{name}.png")
    (tmp_path / "src" / "labels.csv").write_text(text, encoding="utf-8")


def test_a_table(tmp_path: Path) -> None:
    draw_mask(tmp_path / "src" / "c_mask.png", 0, 1)
    table(
        tmp_path,
        "image,split,mask,patient,slide,tumour,stroma\n"
        "img/a.png,train,,7,s1,1,0\nimg/b.png,train,,7,s1,,1\nimg/c.png,test,c_mask.png,8,s2,1,1\n",
    )
    data = imported(tmp_path)
    items, truth = data.items("train"), data.truth("test")
    assert data.splits == ("train", "test") and data.classes.names == ("tumour", "stroma")
    np.testing.assert_array_equal(items.tags, np.array([[1, 0], [np.nan, 1]], np.float32))
    assert items.patients.tolist() == ["7", "7"] and items.slides.tolist() == ["s1", "s1"]
    assert truth is not None and truth.path(0) == tmp_path / "src" / "c_mask.png"
    assert errors(data) == []


def test_a_table_with_other_columns_needs_the_classes(tmp_path: Path) -> None:
    table(tmp_path, "image,grade,tumour\nimg/a.png,II,1\n")
    with pytest.raises(EosinError, match=r"labels\.csv: line 2: 'grade' is 'II'; a tag must be 1, 0 or empty \(other"):
        imported(tmp_path)
    assert imported(tmp_path, classes="tumour").items("train").tags.tolist() == [[1]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,tumour\na.png,1\n", r"labels\.csv: line 1: column 'image' is missing"),
        ("image,tumour\n,1\n", r"labels\.csv: line 2: no image; give its path"),
        ("image\na.png\n", r"labels\.csv: no class columns; add them"),
        ("image,tumour\n", r"labels\.csv: no items; add them"),
        ("image,tumour\na.png\n", r"labels\.csv: line 2: 'tumour' is None"),
    ],
)
def test_wrong_tables(tmp_path: Path, text: str, says: str) -> None:
    table(tmp_path, text)
    with pytest.raises(EosinError, match=says):
        imported(tmp_path)
    assert not (tmp_path / "out").exists()


def test_validation_and_test_folders(tmp_path: Path) -> None:
    for name in ("a[10].png", "b[01].png"):
        draw(tmp_path / "src" / "training" / name)
    draw(tmp_path / "src" / "val" / "img" / "x.png")
    draw_mask(tmp_path / "src" / "val" / "mask" / "x.png", 1, 4)
    draw(tmp_path / "src" / "test" / "images" / "y[11].png")
    draw_mask(tmp_path / "src" / "test" / "masks" / "y[11].png", 1, 0)
    folders = {split: tmp_path / "src" / split for split in ("val", "test")}
    data = imported(tmp_path, classes="tum,str", ignore="4", **folders)
    assert data.classes.ignore == 4 and data.splits == ("train", "val", "test")
    assert data.items("train").ids.tolist() == ["training_a", "training_b"]
    assert data.items("val").tags.tolist() == [[0, 1]], "from the mask"
    assert data.items("test").tags.tolist() == [[1, 1]], "from the name"
    assert len(data.truth("val") or ()) == len(data.truth("test") or ()) == 1
    assert errors(data) == []


def test_validation_images_without_masks_have_unknown_tags(tmp_path: Path) -> None:
    draw(tmp_path / "src" / "a[10].png")
    draw(tmp_path / "val" / "x.png")
    data = imported(tmp_path, classes="tum,str", val=tmp_path / "val")
    assert np.isnan(data.items("val").tags).all() and data.truth("val") is None
    assert data.items("val").ids.tolist() == ["val_x"]


def test_a_validation_image_without_its_mask_is_an_error(tmp_path: Path) -> None:
    draw(tmp_path / "src" / "a[10].png")
    draw(tmp_path / "val" / "img" / "x.png")
    (tmp_path / "val" / "mask").mkdir()
    with pytest.raises(EosinError, match=r"x\.png: no mask of this name in .*mask; add it"):
        imported(tmp_path, classes="tum,str", val=tmp_path / "val")


def test_holding_out_keeps_patients_together(tmp_path: Path) -> None:
    for patient in range(6):
        for index in range(3):
            draw(tmp_path / "src" / f"p{patient}-{index}[1{index % 2}].png")
    data = imported(tmp_path, classes="a,b", patient=r"^p\d", val_fraction="0.34")
    train, val = (set(data.items(split).patients.tolist()) for split in ("train", "val"))
    assert len(val) == 2 and len(train) == 4 and not train & val
    other = import_dataset(
        "folder",
        tmp_path / "src",
        tmp_path / "b",
        {"classes": "a,b", "patient": r"^p\d", "val_fraction": 0.34, "seed": 3},
    )
    assert set(other.items("val").patients.tolist()) != val


def test_holding_out_by_image_where_patients_are_unknown(tmp_path: Path) -> None:
    for index in range(10):
        draw(tmp_path / "src" / f"{index}[1].png")
    data = imported(tmp_path, classes="a", val_fraction=0.2)
    assert len(data.items("val")) == 2 and len(data.items("train")) == 8


def test_equal_names_get_their_own_ids(tmp_path: Path) -> None:
    for name in ("a b[1].png", "a_b[1].png", "a;b[1].png", "é[1].png"):
        draw(tmp_path / "src" / name)
    assert imported(tmp_path, classes="tum").items("train").ids.tolist() == ["a_b", "a_b-2", "a_b-3", "item"]


@pytest.mark.parametrize(
    ("names", "options", "error", "says"),
    [
        (["a[10].png", "b.png"], {"classes": "x,y"}, EosinError, r"b\.png: no label such as \[11\]"),
        (["a[10].png"], {"classes": "x,y,z"}, EosinError, r"a\[10\]\.png: 2 digits in the label for 3 classes"),
        (["a[10].png"], {}, WrongUse, "what do the digits mean"),
        (["a.png"], {}, EosinError, r"a\.png: no label; add labels\.csv"),
        (["notes.txt"], {}, EosinError, "no images in it"),
        (["tumor/a.png"], {"classes": "tumour"}, EosinError, r"no class 'tumor' .* \(did you mean 'tumour'\?\)"),
        (["x/a.png"], {"classes": "x,y"}, WrongUse, "no images in a folder 'y'"),
        (["p1[1].png"], {"classes": "x", "patient": "q"}, EosinError, "the expression 'q' finds no patient"),
        (
            ["p1[1].png"],
            {"classes": "x", "val": "nowhere"},
            EosinError,
            "nowhere: no such folder; correct the option val",
        ),
        (["p1[1].png"], {"classes": "x", "val_fraction": 0.5}, WrongUse, "cannot hold out 50%"),
        (["p1[1].png"], {"classes": "mask"}, EosinError, "^dataset.yaml: class name 'mask' is a fixed column"),
    ],
)
def test_mistakes_name_the_file_and_the_mend(
    tmp_path: Path, names: list[str], options: dict[str, Any], error: type[Exception], says: str
) -> None:
    for name in names:
        draw(tmp_path / "src" / name) if name.endswith(".png") else (tmp_path / "src").mkdir()
    with pytest.raises(error, match=says) as caught:
        imported(tmp_path, **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_two_ways_to_choose_validation_are_refused(tmp_path: Path) -> None:
    draw(tmp_path / "src" / "a[1].png")
    draw(tmp_path / "val" / "b[1].png")
    with pytest.raises(WrongUse, match="both choose the validation images"):
        imported(tmp_path, classes="x", val=tmp_path / "val", val_fraction=0.5)
    table(tmp_path, "image,split,x\nimg/a.png,train,1\n")
    with pytest.raises(WrongUse, match="has a column 'split'"):
        imported(tmp_path, val_fraction=0.5)


def test_real_names(tmp_path: Path, real_data: Path) -> None:
    source = real_data / "wsss4luad" / "train_examples"
    data = import_dataset("folder", source, tmp_path / "out", {"classes": "tumor,stroma,normal", "patient": r"^\d+"})
    items = data.items("train")
    assert items.patients.tolist() == ["436219", "436219", "449636", "1003370"]
    assert items.tags.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert errors(data) == []
