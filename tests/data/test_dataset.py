"""Opening, viewing and writing data sets."""

from __future__ import annotations

import gc
import pickle
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from broken.builders import CLASSES, sound
from eosin.core.classes import Classes, Tissue
from eosin.core.errors import EosinError
from eosin.core.fingerprint import digest
from eosin.data.dataset import Dataset, Row, write_dataset

TWO = Classes(tissues=(Tissue(name="rest", colour=(0, 0, 200)), Tissue(name="gland", colour=(200, 0, 0))))


def write(folder: Path, rows: list[Row], classes: Classes = TWO) -> Dataset:
    write_dataset(folder, name="small", classes=classes, rows=rows, mpp=0.5, licence="CC0-1.0", citation="")
    return Dataset.open(folder)


def rows() -> list[Row]:
    return [
        Row(id="a", split="train", image="a.png", patient="7", tags=(1, 0), slide="s", parent="big", x=0, y=56),
        Row(id="b", split="train", image="b.png", mask="b_mask.png", tags=(None, float("nan"))),
        Row(id="c", split="later", image="/far/c.png", mask="c_mask.png", tags=(0, 1), origin="C, D.tif"),
        Row(id="d", split="test", image="bilder/größe 1.png", tags=(1.0, 0.0)),
    ]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    data = write(tmp_path / "d", rows())
    assert (data.name, data.mpp, data.licence, data.tag_rule, data.known) == ("small", 0.5, "CC0-1.0", None, {})
    assert data.classes == TWO and data.splits == ("train", "test", "later") and len(data) == 4
    items = data.items("train")
    assert items.ids.tolist() == ["a", "b"] and items.patients.tolist() == ["7", ""]
    assert items.slides.tolist() == ["s", ""] and items.parents.tolist() == ["big", ""]
    assert items.xy.tolist() == [[0, 56], [-1, -1]] and items.xy.dtype == np.int32
    np.testing.assert_array_equal(items.tags, np.array([[1, 0], [np.nan, np.nan]], np.float32))
    assert items.path(1) == data.folder / "b.png"
    assert data.items("later").path(0) == Path("/far/c.png")
    assert data.items("test").path(0) == data.folder / "bilder" / "größe 1.png"


def test_truth_is_apart_from_items(tmp_path: Path) -> None:
    data = write(tmp_path / "d", rows())
    items, truth = data.items("train"), data.truth("train")
    assert truth is not None and truth.index.tolist() == [1] and truth.index.dtype == np.int64
    assert truth.path(0) == data.folder / "b_mask.png" and len(truth) == 1
    assert data.truth("test") is None
    assert b"mask" not in pickle.dumps(items), "the weak view must not know where masks lie"


def test_subset_takes_positions_and_masks(tmp_path: Path) -> None:
    items = write(tmp_path / "d", rows()).items("train")
    assert items.subset(np.array([1])).ids.tolist() == ["b"]
    some = items.subset(items.tags[:, 0] == 1)
    assert some.ids.tolist() == ["a"] and some.path(0).name == "a.png" and some.xy.tolist() == [[0, 56]]


def test_an_unknown_split_names_the_known_ones(tmp_path: Path) -> None:
    data = write(tmp_path / "d", rows())
    with pytest.raises(EosinError, match=r"items\.csv: no split 'tests' \(did you mean 'test'\?\)"):
        data.items("tests")
    with pytest.raises(EosinError, match=r"no split 'xyz' \(known: later, test, train\)"):
        data.truth("xyz")


def test_the_digest_follows_the_two_files(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", rows()), write(tmp_path / "b", rows())
    assert first.digest == second.digest and digest(first) == digest(second)
    table = tmp_path / "b" / "items.csv"
    table.write_text(table.read_text().replace("a,train,a.png,,7", "a,train,a.png,,8"))
    assert Dataset.open(tmp_path / "b").digest != first.digest


def test_optional_columns_order_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    draft = sound(tmp_path / "d")
    draft.header = [*CLASSES, "patient", "mask", "image", "split", "id"]
    draft.save()
    table = draft.folder / "items.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes() + b"\r\n\r\n")
    items = Dataset.open(draft.folder).items("train")
    assert len(items) == 40 and items.tags[1].tolist() == [0, 1, 0] and items.slides[1] == ""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda head: head.update(mmp=1), "dataset.yaml: unknown key 'mmp' (did you mean 'mpp'?)"),
        (lambda head: head.update(tag_rule={"min_fracton": 0.1}), "unknown key 'tag_rule.min_fracton' (did you mean"),
        (
            lambda head: head["classes"][1].update(color=[0, 0, 0]),
            "unknown key 'classes[1].color' (did you mean 'colour'?)",
        ),
        (lambda head: head.pop("licence"), "key 'licence' is missing; add it"),
        (lambda head: head.update(schema=2), "schema: Input should be 1 (it says 2)"),
        (lambda head: head.update(mpp=-1), "mpp: Input should be greater than 0 (it says -1)"),
        (lambda head: head.update(ignore=1), "the ignore index 1 is also a class"),
        (lambda head: head["classes"][2].update(name="stroma"), "two classes have the same name"),
        (lambda head: head["classes"][2].update(name="mask"), "class name 'mask' is a fixed column"),
        (lambda head: head["classes"][2].update(colour=[1, 2, 300]), "classes[2].colour: colour (1, 2, 300) must be"),
        (
            lambda head: head.update(known={"patient": "x"}),
            "known: 'patient' is not a finding that can be known (did you",
        ),
        (lambda head: head.update(splits=["Train"]), "splits: split 'Train' must be a lower-case name"),
    ],
)
def test_dataset_yaml_is_strict(tmp_path: Path, change: Callable[[dict[str, object]], object], says: str) -> None:
    draft = sound(tmp_path / "d")
    change(draft.head)
    with pytest.raises(EosinError, match=re.escape(says)) as caught:
        Dataset.open(draft.save())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("dataset.yaml", None, "dataset.yaml: cannot be read"),
        ("items.csv", None, "items.csv: cannot be read"),
        ("dataset.yaml", b"name: [", "dataset.yaml: not valid YAML"),
        ("dataset.yaml", b"just text", "must hold keys and values"),
        ("items.csv", b"", "line 1: column 'id' is missing"),
        ("items.csv", b"id,split,image,mask,patient,tumour,stroma,fat\n", "no items; add one line per image"),
        ("items.csv", b"id,split,image\n\xff\xfe,train,a.png", "not comma-separated UTF-8 text"),
        ("items.csv", b'id,split,image,mask,patient,tumour,stroma,fat\na,"tr\nain",a.png,,,1,1,1\n', "a line break"),
        (
            "items.csv",
            b'id,split,image,mask,patient,tumour,stroma,fat\na,"train,a.png,,,1,1,1\n',
            "not comma-separated",
        ),
        ("items.csv", b"id,id,split,image,mask,patient,tumour,stroma,fat\na,b,train,a.png,,,1,1,1\n", "appears twice"),
    ],
)
def test_unreadable_text_files(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    folder = sound(tmp_path / "d").save()
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(EosinError, match=re.escape(says)) as caught:
        Dataset.open(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (Row(id="a b", split="train", image="a.png", tags=(1, 0)), "id 'a b' must be of letters"),
        (Row(id="a", split="Train", image="a.png", tags=(1, 0)), "split 'Train' must be a lower-case name"),
        (Row(id="a", split="train", image="../a.png", tags=(1, 0)), "leads out of the data set"),
        (Row(id="a", split="train", image="a.png", tags=(1, 0.5)), "tag '0.5' of class 'gland'"),
        (Row(id="a", split="train", image="a.png", tags=(1,)), "item 'a': 1 tags for 2 classes"),
        (Row(id="a", split="train", image="a.png", tags=(1, 0), x=-3), "x '-3' must be a whole number"),
        (Row(id="a", split="train", image="a\udcff.png", tags=(1, 0)), "not UTF-8; rename the file"),
    ],
)
def test_writing_refuses_what_could_not_be_opened(tmp_path: Path, row: Row, says: str) -> None:
    with pytest.raises(EosinError, match=re.escape(says)):
        write(tmp_path / "d", [row])
    assert not list(tmp_path.rglob("*.*"))


def test_writing_twice_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "d", rows())
    with pytest.raises(EosinError, match="already holds a data set"):
        write(tmp_path / "d", rows())


def test_a_hundred_thousand_items_open_fast_and_travel_light(tmp_path: Path) -> None:
    many = [
        Row(id=f"it-{i}", split="train", image=f"p/{i}.png", mask=f"m/{i}.png", patient=f"p{i % 99}", tags=(i % 2, 1))
        for i in range(100_000)
    ]
    write(tmp_path / "d", many)
    begin = time.process_time()
    data = Dataset.open(tmp_path / "d")
    assert time.process_time() - begin < 2
    items = data.items("train")
    assert len(items) == 100_000 and items.path(99_999) == data.folder / "p" / "99999.png"
    columns = (items.ids, items.images, items.tags, items.patients, items.slides, items.parents, items.xy)
    assert all(column.dtype != object for column in columns)
    packed = pickle.dumps(items)
    before = len(gc.get_objects())
    arrived = pickle.loads(packed)
    assert len(gc.get_objects()) - before < 100, "workers hold arrays, not an object per item"
    assert len(packed) < 12e6 and arrived.path(5) == items.path(5)
