"""A share of the training items: exact, nested, by whole patients, the same for any order of lines."""

from __future__ import annotations

import math
import random
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.core.classes import Classes, Tissue
from eosin.core.errors import WrongUse
from eosin.data.contract import Table
from eosin.data.dataset import Dataset, Row, write_dataset
from eosin.data.fraction import count_units, fraction_of, missing_classes

TWO = Classes(tissues=(Tissue(name="rest", colour=(0, 0, 200)), Tissue(name="gland", colour=(200, 0, 0))))
SHARES = (0.01, 0.05, 0.1, 0.2, 0.5, 0.9, 0.99)


def opened(rows: Sequence[Row]) -> Dataset:
    with tempfile.TemporaryDirectory() as place:
        write_dataset(Path(place), name="d", classes=TWO, rows=rows, mpp=None, licence="CC0", citation="")
        return Dataset.open(place)


def taken(dataset: Dataset, fraction: float, seed: int = 0) -> list[str]:
    return [str(name) for name in fraction_of(dataset, fraction, seed).items("train").ids]


def patient_of(row: Row) -> str:
    """The coarsest unit that is known."""
    for kind in ("patient", "slide", "parent", "id"):
        if name := getattr(row, kind):
            return f"{kind} {name}"
    raise AssertionError


def cut(rows: Sequence[Row], names: set[str], unit: Callable[[Row], str]) -> set[str]:
    """The units of which some items are among the names and others are not."""
    sides = defaultdict(set)
    for row in rows:
        sides[unit(row)].add(row.id in names)
    return {name for name, those in sides.items() if len(those) == 2}


@st.composite
def trained(draw: st.DrawFn) -> list[Row]:
    """Training items in any order; of some the patient, slide or parent is not known."""
    several = st.integers(-1, 3)
    rows = []
    for i, (p, s, m) in enumerate(draw(st.lists(st.tuples(several, several, several), min_size=1, max_size=40))):
        patient = f"p{p}" if p >= 0 else ""
        slide = f"{patient}s{s}" if s >= 0 else ""
        parent = f"{patient}s{s}m{m}" if m >= 0 else ""
        rows.append(Row(f"i{i}", "train", f"i{i}.png", patient=patient, slide=slide, parent=parent, tags=(1, 0)))
    return rows


FRACTION = st.one_of(st.sampled_from(SHARES), st.floats(1e-3, 1, exclude_max=True))
SEED = st.integers(0, 1000)


@settings(deadline=None, max_examples=60)
@given(rows=trained(), fraction=FRACTION, seed=SEED)
def test_the_count_is_exact_the_order_is_that_of_the_file_and_at_most_one_patient_is_cut(
    rows: list[Row], fraction: float, seed: int
) -> None:
    names = taken(opened(rows), fraction, seed)
    assert len(names) == math.ceil(Decimal(str(fraction)) * len(rows))
    assert names == [row.id for row in rows if row.id in set(names)]
    assert len(cut(rows, set(names), patient_of)) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_of_the_patient_that_is_cut_one_slide_is_cut_and_of_that_one_image(seed: int) -> None:
    rows = [
        Row(f"{p}{s}{m}{i}", "train", "i.png", patient=f"p{p}", slide=f"p{p}s{s}", parent=f"p{p}s{s}m{m}", tags=(1, 0))
        for p in range(3)
        for s in range(3)
        for m in range(3)
        for i in range(3)
    ]
    dataset = opened(rows)
    for count in range(1, len(rows)):
        names = set(taken(dataset, (count - 0.5) / len(rows), seed))
        assert len(names) == count
        for unit in ("patient", "slide", "parent"):
            whole = count % {"patient": 27, "slide": 9, "parent": 3}[unit] == 0
            assert len(cut(rows, names, attrgetter(unit))) == (0 if whole else 1), (unit, count)


@settings(deadline=None, max_examples=40)
@given(rows=trained(), seed=SEED, fractions=st.lists(FRACTION, min_size=2, max_size=6))
def test_smaller_fractions_lie_inside_larger_ones(rows: list[Row], seed: int, fractions: list[float]) -> None:
    dataset = opened(rows)
    found = [set(taken(dataset, fraction, seed)) for fraction in [*sorted(fractions), 1.0]]
    assert all(small <= large for small, large in pairwise(found))
    assert found[-1] == {row.id for row in rows}


@settings(deadline=None, max_examples=40)
@given(rows=trained(), fraction=FRACTION, seed=SEED, shuffled=st.randoms())
def test_the_order_of_lines_decides_nothing(
    rows: list[Row], fraction: float, seed: int, shuffled: random.Random
) -> None:
    other = list(rows)
    shuffled.shuffle(other)
    assert set(taken(opened(rows), fraction, seed)) == set(taken(opened(other), fraction, seed))


@pytest.mark.parametrize(
    ("fraction", "count", "expected"),
    [(0.07, 100, 7), (0.29, 100, 29), (0.05, 100, 5), (0.05, 101, 6), (1 / 3, 3, 1), (2 / 3, 3, 2), (1e-9, 7, 1)],
)
def test_the_count_is_that_of_the_decimal_that_was_written(fraction: float, count: int, expected: int) -> None:
    """0.07 * 100 and 0.29 * 100 are not 7 and 29 in binary."""
    dataset = opened([Row(f"i{i}", "train", f"{i}.png", tags=(1, 0)) for i in range(count)])
    assert len(taken(dataset, fraction)) == expected


def many(patients: int = 20, each: int = 6) -> list[Row]:
    """Patients of two slides with three images each; only the last patient has glands."""
    return [
        Row(
            f"p{p}-{i}",
            "train",
            f"{p}-{i}.png",
            mask=f"{p}-{i}-m.png",
            patient=f"p{p}",
            slide=f"p{p}s{i % 2}",
            tags=(1, None if p == 0 else int(p == patients - 1)),
        )
        for p in range(patients)
        for i in range(each)
    ]


def test_every_seed_takes_other_patients_and_each_comes_about_as_often() -> None:
    rows = many()
    dataset = opened(rows)
    assert taken(dataset, 0.2, 3) == taken(dataset, 0.2, 3)
    found = [frozenset(name.partition("-")[0] for name in taken(dataset, 0.05, seed)) for seed in range(400)]
    assert all(len(patients) == 1 for patients in found)
    counts = [sum(f"p{p}" in patients for patients in found) for p in range(20)]
    assert sum(counts) == 400 and all(abs(n - 20) < 4.5 * math.sqrt(400 * 0.05 * 0.95) for n in counts)
    first = [taken(dataset, 0.001, seed)[0].partition("-")[2] for seed in range(400)]
    assert all(first.count(str(i)) > 30 for i in range(6)), "slides and items come in random order too"


def test_an_unknown_patient_is_as_many_as_its_slides_images_or_items() -> None:
    def rows(**units: Callable[[int], str]) -> list[Row]:
        return [
            Row(f"i{i}", "train", f"{i}.png", tags=(1, 0), **{k: of(i) for k, of in units.items()}) for i in range(12)
        ]

    def half(i: int) -> str:
        return f"a{i // 6}"

    def third(i: int) -> str:
        return f"b{i // 4}"

    for given_units, units in (
        (rows(patient=half, slide=third, parent=third), 2),
        (rows(slide=half, parent=third), 2),
        (rows(parent=third), 3),
        (rows(), 12),
        (rows(patient=lambda i: "" if i < 6 else "p", slide=third), 3),  # two slides, and one patient
    ):
        dataset = opened(given_units)
        assert count_units(dataset.items("train")) == units
        sizes = set(Counter(map(patient_of, given_units)).values())
        for seed in range(5):
            names = set(taken(dataset, 1 / units, seed))
            assert len(sizes) > 1 or not cut(given_units, names, patient_of), "units of one size are taken whole"


def test_a_patient_is_not_taken_for_a_slide_or_an_item_of_the_same_name() -> None:
    rows = [
        Row("a", "train", "0.png", tags=(1, 0)),
        Row("b", "train", "1.png", slide="a", tags=(1, 0)),
        Row("c", "train", "2.png", patient="a", tags=(1, 0)),
    ]
    assert count_units(opened(rows).items("train")) == 3


def test_a_whole_image_beside_its_patches_is_of_that_image() -> None:
    rows = [Row(f"m{m}", "train", f"m{m}.png", tags=(1, 0)) for m in range(3)]
    rows += [
        Row(f"m{m}_{i}", "train", f"m{m}_{i}.png", parent=f"m{m}", tags=(1, 0)) for m in range(3) for i in range(3)
    ]
    dataset = opened(rows)
    assert count_units(dataset.items("train")) == 3
    for seed in range(10):
        assert len({name.partition("_")[0] for name in taken(dataset, 1 / 3, seed)}) == 1


def test_the_other_splits_and_all_else_stay_as_they_are() -> None:
    rows = many()
    rows[7:7] = [Row("v", "val", "v.png", tags=(0, 1)), Row("t", "test", "t.png", mask="t-m.png", tags=(1, None))]
    dataset = opened(rows)
    for seed in range(5):
        part = fraction_of(dataset, 0.3, seed)
        assert part.splits == dataset.splits and len(part) == 2 + 36 and len(dataset) == 122
        for split in ("val", "test"):
            np.testing.assert_equal(
                [getattr(part.items(split), name) for name in ("ids", "tags", "images")],
                [getattr(dataset.items(split), name) for name in ("ids", "tags", "images")],
            )
        whole, truth = part.truth("test"), part.truth("train")
        assert whole is not None and whole.path(0) == dataset.folder / "t-m.png"
        assert truth is not None and len(truth) == len(part.items("train")) == 36, "each item keeps its own mask"
        for i, name in enumerate(part.items("train").ids):
            assert truth.path(i).name == f"{str(name).removeprefix('p')}-m.png"
    same = replace(part, digest=dataset.digest, _table=dataset._table)
    assert all(getattr(same, name) is getattr(dataset, name) for name in Dataset.__dataclass_fields__)


def test_a_fraction_of_another_size_seed_or_data_set_has_another_digest() -> None:
    dataset, other = opened(many()), opened(many(19))
    digests = [
        dataset.digest,
        *(fraction_of(data, f, seed).digest for data in (dataset, other) for f in (0.1, 0.2) for seed in (0, 1)),
        fraction_of(fraction_of(dataset, 0.2, 0), 0.1, 0).digest,
    ]
    assert len(set(digests)) == len(digests)
    assert fraction_of(dataset, 0.1, 0).digest == digests[1]


def test_the_whole_is_the_data_set_itself() -> None:
    dataset = opened(many())
    assert fraction_of(dataset, 1, 5) is dataset and fraction_of(dataset, 1.0, 5) is dataset


@pytest.mark.parametrize("fraction", [0, -0.1, 1.0001, 20, float("nan"), float("inf")])
def test_a_share_that_cannot_be_is_refused(fraction: float) -> None:
    with pytest.raises(WrongUse, match=rf"fraction {fraction} must be above 0 and at most 1"):
        fraction_of(opened(many()), fraction, 0)


def test_without_a_training_split_it_is_refused() -> None:
    with pytest.raises(WrongUse, match=r"items\.csv: no split 'train'"):
        fraction_of(opened([Row("v", "val", "v.png", tags=(1, 0))]), 0.5, 0)


def test_classes_that_got_lost_are_told_in_one_line() -> None:
    dataset = opened(many())
    for seed in range(10):
        part = fraction_of(dataset, 0.1, seed)
        line = missing_classes(dataset, part)
        if any(name.startswith("p19-") for name in part.items("train").ids):
            assert line is None
        else:
            assert line == (
                f"{dataset.folder / 'items.csv'}: 12 of 120 training items are taken, none of them tagged 'gland' "
                "(on 6 of all); take a larger fraction or another seed"
            )
    assert missing_classes(dataset, dataset) is None
    without = opened([replace(row, tags=(1, None)) for row in many()])  # nobody knows of a gland in the whole, either
    assert missing_classes(without, fraction_of(without, 0.1, 0)) is None


def in_memory(count: int) -> Dataset:
    """A data set of long names that is nowhere on disk."""
    rng = np.random.default_rng(0)
    patient, slide, image = rng.integers(0, count // 100, count), rng.integers(0, 3, count), rng.integers(0, 9, count)
    slides = [f"TCGA-{p:06d}-{s}" for p, s in zip(patient, slide, strict=True)]
    blank = np.full(count, b"")
    table = Table(
        line=np.arange(2, count + 2, dtype=np.int32),
        ids=np.array([f"{name}_{i:07d}_some-longer-name" for i, name in enumerate(slides)]),
        split=np.full(count, "train"),
        image=blank,
        mask=blank,
        patient=np.array([f"TCGA-{p:06d}" for p in patient]),
        slide=np.array(slides),
        parent=np.array([f"{name}-{i}" for name, i in zip(slides, image, strict=True)]),
        origin=np.full(count, ""),
        xy=np.full((count, 2), -1, np.int32),
        tags=np.ones((count, 2), np.float32),
        lacking=(),
    )
    known = {"name": "d", "mpp": None, "licence": "", "citation": "", "tag_rule": None, "objects": None, "fold": None}
    return Dataset(folder=Path("d"), classes=TWO, known={}, digest="0", splits=("train",), _table=table, **known)  # type: ignore[arg-type]


def test_a_hundred_thousand_items_take_less_than_a_second() -> None:
    dataset = in_memory(100_000)
    seconds = []
    for seed in range(3):
        start = time.process_time()
        assert len(fraction_of(dataset, 0.05, seed).items("train")) == 5000
        seconds.append(time.process_time() - start)
    assert min(seconds) < 1
