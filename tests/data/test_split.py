"""Splitting anew: no group is torn, nothing is lost, shares and classes are even, and what is written is sound."""

from __future__ import annotations

import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broken.builders import sound
from eosin.core.classes import Classes, Tissue
from eosin.core.errors import EosinError, WrongUse
from eosin.data.check import check
from eosin.data.contract import Objects
from eosin.data.dataset import Dataset, Row, write_dataset
from eosin.data.split import By, split_dataset

TWO = Classes(tissues=(Tissue(name="rest", colour=(0, 0, 200)), Tissue(name="gland", colour=(200, 0, 0))))


def write(folder: Path, rows: Sequence[Row], known: dict[str, str] | None = None, **more: object) -> Path:
    settings = {"name": "small", "classes": TWO, "mpp": 0.5, "licence": "CC0-1.0", "citation": "we", **more}
    write_dataset(folder, rows=rows, known=known, **settings)  # type: ignore[arg-type]
    return folder


def patients(sizes: Sequence[int], gland: Sequence[int] | None = None) -> list[Row]:
    """Items of patients p0, p1, ...: so many each, and so many of these with gland (every other one by default)."""
    rows = []
    for p, size in enumerate(sizes):
        for i in range(size):
            holds = i % 2 if gland is None else int(i < gland[p])
            name = f"p{p}-{i}"
            rows.append(Row(name, "train", f"images/{name}.png", patient=f"p{p}", tags=(1 - holds, holds)))
    return rows


def whole_and_patches(images: int, cut: int = 6, patient: bool = False) -> list[Row]:
    """Each image whole and as patches, as importers write them for folds."""
    rows = []
    for k in range(images):
        who = f"p{k // 2}" if patient else ""
        rows.append(Row(f"i{k}", "whole", f"w/i{k}.png", mask=f"w/i{k}-m.png", patient=who, tags=(1, 1)))
        for n in range(cut):
            name = f"i{k}_{n}"
            tags = (n % 2, 1 - n % 2)
            rows.append(Row(name, "train", f"t/{name}.png", f"t/{name}-m.png", who, tags, parent=f"i{k}", x=n, y=0))
    return rows


def where(folder: Path) -> dict[str, str]:
    """The split of each item."""
    data = Dataset.open(folder)
    return {str(name): split for split in data.splits for name in data.items(split).ids}


def sizes_of(folder: Path) -> Counter[str]:
    return Counter(where(folder).values())


@settings(deadline=None, max_examples=25)
@given(
    sizes=st.lists(st.integers(2, 9), min_size=6, max_size=25),
    folds=st.sampled_from([2, 3, 5]),
    stratify=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_folds_keep_groups_and_items(sizes: list[int], folds: int, stratify: bool, seed: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        rows = patients(sizes)
        source = write(Path(place, "d"), rows)
        made = split_dataset(source, Path(place, "f"), by="patient", folds=folds, stratify=stratify, seed=seed)
        assert [folder.name for folder in made] == [f"fold-{k + 1}" for k in range(folds)]
        tested: Counter[str] = Counter()
        for folder in made:
            found = where(folder)
            assert found.keys() == {row.id for row in rows}
            splits = defaultdict(set)
            for name, split in found.items():
                splits[name.partition("-")[0]].add(split)
            assert all(len(these) == 1 for these in splits.values())
            assert set(found.values()) == {"train", "val", "test"}
            tested.update(name for name, split in found.items() if split == "test")
        assert tested == Counter(row.id for row in rows), "each item is tested once"
        counts = [sizes_of(folder)["test"] for folder in made]
        assert stratify or max(counts) - min(counts) <= max(sizes)


@settings(deadline=None, max_examples=25)
@given(
    sizes=st.lists(st.integers(2, 6), min_size=15, max_size=40),
    shares=st.sampled_from([(0.2, 0.2), (0.3, 0.3), (0.25, 0.0), (0.0, 0.4)]),
    seed=st.integers(0, 10_000),
)
def test_shares_are_met_within_the_largest_group(sizes: list[int], shares: tuple[float, float], seed: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        source = write(Path(place, "d"), patients(sizes))
        val, test = shares
        [made] = split_dataset(source, Path(place, "s"), by="patient", val=val, test=test, seed=seed)
        assert made == Path(place, "s")
        counts = sizes_of(made)
        wanted = {"train": 1 - val - test, "val": val, "test": test}
        assert all(abs(counts[split] - share * sum(sizes)) <= max(sizes) for split, share in wanted.items())
        assert set(counts) == {split for split, share in wanted.items() if share}


def deviation(folders: Sequence[Path]) -> float:
    """Largest deviation of a fold's test split from its even share of one class."""
    positive = np.stack([(Dataset.open(folder).items("test").tags == 1).sum(axis=0) for folder in folders])
    return float(np.abs(positive / positive.sum(axis=0) - 1 / len(folders)).max())


@pytest.mark.parametrize("seed", range(8))
def test_stratified_folds_are_more_even(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(4, 12, 30)
    gland = np.where(rng.random(30) < 0.25, sizes - 1, 1)  # a quarter of the patients has most of the glands
    source = write(tmp_path / "d", patients(sizes.tolist(), gland.tolist()))
    made = {
        even: split_dataset(source, tmp_path / f"f{even}", by="patient", folds=5, stratify=even, seed=seed)
        for even in (True, False)
    }
    assert deviation(made[True]) <= deviation(made[False])
    assert deviation(made[True]) < 0.1  # a patient has about a tenth of the glands


def test_the_seed_decides_and_the_order_of_lines_does_not(tmp_path: Path) -> None:
    rows = patients([3, 5, 2, 4, 6, 3, 2, 5, 4])
    shuffled = rows.copy()
    random.Random(1).shuffle(shuffled)
    sources = [write(tmp_path / "a", rows), write(tmp_path / "b", shuffled)]
    results = []
    for source in (sources[0], *sources):
        for stratify in (False, True):
            made = split_dataset(
                source, tmp_path / f"f{len(results)}", by="patient", folds=3, stratify=stratify, seed=4
            )
            results.append([where(folder) for folder in made])
    assert results[0::2] == [results[0]] * 3 and results[1::2] == [results[1]] * 3
    other = split_dataset(sources[0], tmp_path / "other", by="patient", folds=3, seed=5)
    assert [where(folder) for folder in other] != results[0]


def test_everything_is_carried_on_and_files_stay_in_place(tmp_path: Path) -> None:
    rows = patients([4] * 6)
    rows[0] = replace(rows[0], mask="masks/a.png", slide="s", parent="big", x=3, y=0, origin="a, b.tif")
    rows[1] = replace(rows[1], image=str(tmp_path / "far.png"), tags=(None, 1), split="val")
    objects = Objects(tissue="gland", folder="objects")
    source = write(tmp_path / "d", rows, tag_rule=0.1, objects=objects)
    first, *_ = split_dataset(source, tmp_path / "f", by="patient", folds=3)
    old, new = Dataset.open(source), Dataset.open(first)
    for name in ("name", "classes", "mpp", "licence", "citation", "tag_rule"):
        assert getattr(new, name) == getattr(old, name)
    assert new.fold is not None and (new.fold.number, new.fold.of, new.fold.source) == (1, 3, old.digest)
    assert new.objects == Objects(tissue="gland", folder=str(source / "objects"))
    lines = {line.partition(",")[0]: line.split(",", 2)[2] for line in (first / "items.csv").read_text().splitlines()}
    assert lines["p0-0"] == f'{source}/images/p0-0.png,{source}/masks/a.png,p0,s,big,3,0,"a, b.tif",1,0'
    assert lines["p0-1"] == f"{tmp_path}/far.png,,p0,,,,,,,1"


def test_a_split_is_no_fold(tmp_path: Path) -> None:
    [made] = split_dataset(write(tmp_path / "d", patients([4] * 6)), tmp_path / "s", by="patient")
    assert Dataset.open(made).fold is None


def test_what_is_written_is_sound(tmp_path: Path) -> None:
    source = sound(tmp_path / "d").save()
    for folds, by in ((3, "patient"), (0, "slide"), (2, "image")):
        kind: By = by  # type: ignore[assignment]
        for folder in split_dataset(source, tmp_path / by, by=kind, folds=folds, stratify=True):
            assert check(folder) == []
            assert Dataset.open(folder).items("train").path(0).is_file()


# -- whole images and their patches


@pytest.mark.parametrize("by", ["image", "patient"])
@pytest.mark.parametrize("folds", [0, 4])
def test_whole_images_are_judged_and_patches_are_taught(tmp_path: Path, by: By, folds: int) -> None:
    source = write(tmp_path / "d", whole_and_patches(16, patient=True), {"patient_overlap": "x", "parent_overlap": "x"})
    tested: Counter[str] = Counter()
    for folder in split_dataset(source, tmp_path / "f", by=by, folds=folds):
        found = where(folder)
        images = {split: {name.split("_")[0] for name, s in found.items() if s == split} for split in found.values()}
        assert all(("_" in name) == (split == "train") for name, split in found.items())
        assert not any(a & b for a, b in pairwise([*images.values(), images["train"]]))
        assert sum(map(len, images.values())) == 16 and sizes_of(folder)["train"] == 6 * len(images["train"])
        if by == "patient":
            groups = [{int(name[1:]) // 2 for name in names} for names in images.values()]
            assert sum(map(len, groups)) == 8
        assert ("patient_overlap" in Dataset.open(folder).known) == (by == "image")
        assert "parent_overlap" not in Dataset.open(folder).known
        tested.update(images["test"])
    assert not folds or tested == Counter(f"i{k}" for k in range(16))


def test_a_whole_image_without_patches_and_patches_without_a_whole(tmp_path: Path) -> None:
    rows = whole_and_patches(10)
    rows = [row for row in rows if row.parent != "i0" and row.id != "i1"]
    for number, folder in enumerate(split_dataset(write(tmp_path / "d", rows), tmp_path / "f", by="image", folds=3)):
        found = where(folder)
        assert all(found[f"i1_{n}"] == "train" for n in range(6)), number
        assert found.get("i0") in (None, "val", "test"), number


def test_an_image_may_name_itself_or_a_larger_one_as_its_parent(tmp_path: Path) -> None:
    rows = [
        replace(row, parent=(row.id if row.id < "i5" else "slide") if row.split == "whole" else row.parent)
        for row in whole_and_patches(10)
    ]
    source = write(tmp_path / "d", rows, {"parent_overlap": "x"})
    for folder in split_dataset(source, tmp_path / "f", by="image", folds=5):
        found = where(folder)
        large = {"train" if "_" in name else split for name, split in found.items() if name[1] >= "5"}
        assert len(large) == 1, "images of one larger image stay together"


# -- what was declared


def test_overlaps_are_declared_where_they_are_chosen_and_dropped_where_they_are_gone(tmp_path: Path) -> None:
    rows = [replace(row, slide=f"{row.patient}-{i % 3}") for i, row in enumerate(patients([6] * 8))]
    known = {
        "patient_overlap": "official split",
        "duplicate_image": "two scans",
        "cooccurring": "biology",
        "absent_class": "rare",
    }
    source = write(tmp_path / "d", rows, known)
    found = {}
    for by in ("patient", "slide", "image"):
        kind: By = by  # type: ignore[assignment]
        [made] = split_dataset(source, tmp_path / by, by=kind)
        found[by] = Dataset.open(made).known
    assert found["patient"] == {"duplicate_image": "two scans"}
    assert found["slide"] == {"duplicate_image": "two scans", "patient_overlap": "split by slide"}
    both = {"patient_overlap": "split by image", "slide_overlap": "split by image"}
    assert found["image"] == {"duplicate_image": "two scans", **both}


def test_a_class_that_training_would_lose_is_refused_unless_declared(tmp_path: Path) -> None:
    rows = patients([6] * 6, [6, 0, 0, 0, 0, 0])
    source = write(tmp_path / "d", rows)
    with pytest.raises(EosinError, match=r"fold \d of 3 by patient: class 'gland' is on no training item; .*stratify"):
        split_dataset(source, tmp_path / "f", by="patient", folds=3)
    assert not (tmp_path / "f").exists() and list(tmp_path.iterdir()) == [source]
    declared = write(tmp_path / "e", rows, {"absent_class": "one patient alone has glands"})
    kept = [
        "absent_class" in Dataset.open(folder).known
        for folder in split_dataset(declared, tmp_path / "f", by="patient", folds=3, val=0)
    ]
    assert sorted(kept) == [False, False, True]


def test_a_defect_that_was_there_does_not_hinder(tmp_path: Path) -> None:
    source = write(tmp_path / "d", patients([6] * 6, [0] * 6))
    assert len(split_dataset(source, tmp_path / "f", by="patient", folds=3)) == 3


# -- what cannot be


@pytest.mark.parametrize(
    ("by", "says"), [("patient", "split by slide or image"), ("slide", "split by patient or image")]
)
def test_an_item_without_its_group_is_named(tmp_path: Path, by: By, says: str) -> None:
    rows = [replace(row, slide=row.patient) for row in patients([2] * 6)]
    for k in (3, 5):
        rows[k] = replace(rows[k], patient="" if by == "patient" else "p9", slide="" if by == "slide" else "s")
    source = write(tmp_path / "d", rows)
    with pytest.raises(EosinError, match=rf"line 5: item 'p1-1' has no {by} \(nor have 1 more\); .*{says}") as caught:
        split_dataset(source, tmp_path / "f", by=by, folds=2)
    assert caught.value.exit_code == 1 and "\n" not in str(caught.value)


def test_a_slide_of_two_patients_is_named(tmp_path: Path) -> None:
    rows = [replace(row, slide=f"s-{row.patient}") for row in patients([2] * 6)]
    rows[4] = replace(rows[4], slide="s-p0")
    source = write(tmp_path / "d", rows)
    said = r"line 6: slide 's-p0' is of two patients, 'p0' \(line 2\) and 'p2'; give each slide a name of its own"
    with pytest.raises(EosinError, match=said):
        split_dataset(source, tmp_path / "f", by="patient")
    assert split_dataset(source, tmp_path / "f", by="slide")


@pytest.mark.parametrize("by", ["patient", "slide"])
def test_an_image_beside_its_patches_of_another_patient_is_named(tmp_path: Path, by: By) -> None:
    """Declared as importers do: that whole images stand beside their patches says nothing of whose they are."""
    rows = [replace(row, slide=f"s-{row.patient}") for row in whole_and_patches(12, patient=True)]
    rows[7] = replace(rows[7], patient="p5", slide="s-p5")  # the image i1, whose patches are of p0
    source = write(tmp_path / "d", rows, {"patient_overlap": "x", "slide_overlap": "x", "parent_overlap": "x"})
    with pytest.raises(EosinError, match=rf"line 10: parent 'i1' is of two {by}s, '(s-)?p5' \(line 9\) and '(s-)?p0'"):
        split_dataset(source, tmp_path / "f", by=by, folds=3)


def test_images_that_name_each_other_as_parents_stay_together(tmp_path: Path) -> None:
    rows = patients([1] * 12, [k % 2 for k in range(12)])
    rows = [replace(row, parent=f"p{k ^ 1}-0") for k, row in enumerate(rows)]
    for folder in split_dataset(write(tmp_path / "d", rows), tmp_path / "f", by="image", folds=3):
        found = where(folder)
        assert all(found[f"p{k}-0"] == found[f"p{k + 1}-0"] for k in range(0, 12, 2))


def test_patches_and_whole_images_are_not_pooled(tmp_path: Path) -> None:
    rows = [replace(row, split="test" if row.split == "whole" else "train") for row in whole_and_patches(8)]
    source = write(tmp_path / "d", rows)
    said = "the items of 'train' are patches of a parent and those of 'test' are not, .*; import with cut=all"
    with pytest.raises(EosinError, match=said):
        split_dataset(source, tmp_path / "f", by="image")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"folds": 5}, "4 patients for 5 folds"),
        ({"folds": 1}, "folds: 1 cannot be"),
        ({"folds": -2}, "folds: -2 cannot be"),
        ({"val": 0.5, "test": 0.5}, "leave nothing for train"),
        ({"val": -0.1}, "must be shares"),
        ({"folds": 2, "val": 1.0}, "must be shares"),
        ({"val": 0, "test": 0}, "nothing is split"),
    ],
)
def test_what_cannot_be_is_wrong_use(tmp_path: Path, settings: dict[str, float], says: str) -> None:
    source = write(tmp_path / "d", patients([4] * 4))
    with pytest.raises(WrongUse, match=says):
        split_dataset(source, tmp_path / "f", by="patient", **settings)  # type: ignore[arg-type]
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize(
    ("count", "folds", "says"),
    [(2, 0, "2 patients for 3 splits"), (2, 2, "fold 1 of 2 leaves 1 of 2 patients for train and val; use val 0")],
)
def test_too_few_groups_are_counted(tmp_path: Path, count: int, folds: int, says: str) -> None:
    source = write(tmp_path / "d", patients([4] * count))
    with pytest.raises(WrongUse, match=says):
        split_dataset(source, tmp_path / "f", by="patient", folds=folds)


def test_whole_images_alone_leave_nothing_to_train_on(tmp_path: Path) -> None:
    rows = [row for row in whole_and_patches(8) if row.split == "whole" or row.parent == "i0"]
    source = write(tmp_path / "d", rows)
    with pytest.raises(WrongUse, match=r"fold \d of 4 by image: no patch is left for train"):
        split_dataset(source, tmp_path / "f", by="image", folds=4)


def test_nothing_is_overwritten_and_broken_tables_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "d", patients([4] * 4))
    (tmp_path / "f").mkdir()
    with pytest.raises(EosinError, match="f: exists already"):
        split_dataset(source, tmp_path / "f", by="patient")
    (source / "items.csv").write_text((source / "items.csv").read_text().replace(",0,1\n", ",0,2\n"))
    with pytest.raises(EosinError, match=r"line 3: tag '2' .* \(the whole list: eosin data check .*d\)"):
        split_dataset(source, tmp_path / "g", by="patient")
