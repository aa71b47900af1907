"""An unknown tag is unknown wherever tags are read: it draws nothing, counts for nothing and accuses nobody."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from broken.builders import sound
from eosin.data import module
from eosin.data.advice import entangled
from eosin.data.check import check
from eosin.data.dataset import Items
from eosin.data.module import Plan
from eosin.data.split import deal
from eosin.engine.suspects import deal_folds
from eosin.metrics.doubt import doubts, presence
from eosin.metrics.tags import average_precision, exact_match, mean_average_precision
from oracles import sampling

NAN = float("nan")
Tags = NDArray[np.float32]
Rows = NDArray[np.int64]


def chances(rows: list[list[float]] | Tags) -> NDArray[np.float64]:
    found = Plan(np.array(rows, np.float32), 4, 1, 0, sampler="balanced").chances
    assert found is not None
    return found


@st.composite
def tagged(draw: st.DrawFn, unknown: bool = True) -> list[list[float]]:
    tag = st.sampled_from([0.0, 1.0, NAN] if unknown else [0.0, 1.0])
    classes = draw(st.integers(1, 4))
    return draw(st.lists(st.lists(tag, min_size=classes, max_size=classes), min_size=1, max_size=30))


class TestBalancedSampler:
    @settings(deadline=None)
    @given(tagged())
    def test_chances_are_those_of_the_loop(self, rows: list[list[float]]) -> None:
        found = chances(rows)
        np.testing.assert_allclose(found, sampling.balanced(rows), rtol=1e-9)
        np.testing.assert_allclose(found.sum(), 1)

    @settings(deadline=None)
    @given(tagged(unknown=False))
    def test_with_all_tags_known_they_are_to_the_last_bit_the_inverse_roots_of_the_counts(
        self, rows: list[list[float]]
    ) -> None:
        counts = Counter(map(tuple, rows))
        roots = 1.0 / np.sqrt(np.array([counts[tuple(row)] for row in rows]))
        np.testing.assert_array_equal(chances(rows), roots / roots.sum())

    def test_by_hand(self) -> None:
        rows = [[1, NAN]] * 3 + [[1, 0]] * 12 + [[1, 1]] * 12
        np.testing.assert_allclose(chances(rows), 1 / 27)  # 13.5 of each kind, wherever the three belong
        rows = [[1, NAN]] * 4 + [[1, 0]] * 9 + [[1, 1]] * 3 + [[0, 0]] * 25
        first, second = 9 + 3, 3 + 1  # three of the four are probably of the first kind
        each = np.array([0.75 / first**0.5 + 0.25 / second**0.5, 1 / first**0.5, 1 / second**0.5, 1 / 5])
        expected = np.repeat(each, [4, 9, 3, 25])
        np.testing.assert_allclose(chances(rows), expected / expected.sum())

    def test_an_image_of_which_one_tag_is_unknown_is_no_rarity(self) -> None:
        rows = [[1, 0, 0]] * 90 + [[0, 1, 0]] * 90 + [[1, NAN, 0]]
        found = chances(rows)
        assert found[-1] == pytest.approx(found[0]), "a combination of its own would be drawn nearly ten times as often"

    @settings(deadline=None)
    @given(tagged(unknown=False), st.data())
    def test_what_can_be_only_one_thing_is_as_if_it_were_known(
        self, rows: list[list[float]], data: st.DataObject
    ) -> None:
        at = data.draw(st.integers(0, len(rows) - 1))
        hidden = [NAN if data.draw(st.booleans()) else tag for tag in rows[at]]
        others = rows[:at] + rows[at + 1 :]
        possible = {tuple(r) for r in others if all(math.isnan(h) or h == t for h, t in zip(hidden, r, strict=True))}
        if len(possible) == 1:
            [known] = possible
            np.testing.assert_allclose(chances([*others, hidden]), chances([*others, list(known)]))

    @given(tagged(unknown=False), st.integers(1, 5))
    def test_an_image_of_which_nothing_is_known_is_drawn_as_often_as_any(
        self, rows: list[list[float]], more: int
    ) -> None:
        found = chances(rows + [[NAN] * len(rows[0])] * more)
        np.testing.assert_allclose(found[len(rows) :], 1 / len(found))

    @settings(deadline=None)
    @given(tagged(), st.integers(0, 4))
    def test_a_class_that_is_never_known_changes_nothing(self, rows: list[list[float]], at: int) -> None:
        wider = [[*row[:at], NAN, *row[at:]] for row in rows]
        np.testing.assert_allclose(chances(wider), chances(rows))

    def test_images_of_two_sources_that_tag_different_classes_are_balanced_by_what_is_known(self) -> None:
        rows = [[1, NAN]] * 16 + [[0, NAN]] * 4 + [[NAN, 1]] * 1 + [[NAN, 0]] * 9
        expected = np.repeat([1 / 4, 1 / 2, 1, 1 / 3], [16, 4, 1, 9])
        np.testing.assert_allclose(chances(rows), expected / expected.sum())

    def test_many_combinations_are_compared_in_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = np.random.default_rng(0).choice([0.0, 1.0, NAN], (400, 5)).astype(np.float32)
        whole = chances(rows)
        monkeypatch.setattr(module, "_COMPARED", 100)
        np.testing.assert_array_equal(chances(rows), whole)

    def test_a_hundred_thousand_images_take_less_than_a_second(self) -> None:
        rng = np.random.default_rng(0)
        rows = (rng.random((100_000, 6)) < 0.3).astype(np.float32)
        rows[rng.random(rows.shape) < 0.2] = np.nan
        seconds = []
        for _ in range(2):
            start = time.process_time()
            found = chances(rows)
            seconds.append(time.process_time() - start)
        assert min(seconds) < 1 and np.isfinite(found).all() and (found > 0).all()


N, K = 120, 4
REST = [0, 1, 3]
SCORES = np.random.default_rng(1).random((N, K))
EVIDENCE = np.random.default_rng(2).random((N, K, 2))


def some_unknown() -> Tags:
    rng = np.random.default_rng(0)
    tags = (rng.random((N, K)) < [0.95, 0.95, 0.3, 0.5]).astype(np.float32)
    tags[rng.random((N, K)) < 0.2] = np.nan
    return tags


def doubted(tags: Tags, rows: Rows, classes: list[int]) -> NDArray[np.float64]:
    """Doubts of items and classes; each item alone, since what is said of a patient's other items may count for it."""
    evidence = EVIDENCE[rows][:, classes]
    found = doubts(presence(evidence, tags, rows % 5, np.arange(len(rows))), tags)
    assert (np.isnan(found) == np.isnan(tags)).all()
    return found


def advised(tags: Tags, classes: list[int]) -> list[tuple[int, ...]]:
    found = entangled(tags)
    assert found, "or nothing is shown"
    return [(classes[p.first], classes[p.second], p.both, p.only_first, p.only_second) for p in found]


def folds(tags: Tags) -> list[int]:
    """Which fold each item is dealt to for ranking tags."""
    count = len(tags)
    blank, names = np.full(count, ""), np.array([f"i{i}" for i in range(count)])
    patients = np.array([f"p{i // 4}" for i in range(count)])
    items = Items(Path("."), names, blank.astype(bytes), tags, patients, blank, blank, np.full((count, 2), -1))
    return list(deal_folds(items, 0).of.tolist())


def splits(tags: Tags) -> list[int]:
    """Which split each item is dealt to, evenly by class."""
    counts = np.column_stack([np.ones(len(tags)), tags == 1]).astype(np.int64)
    return list(deal(counts, [0.5, 0.3, 0.2], True, 0, 0).tolist())


Reader = Callable[[Tags, list[int]], object]
READERS: dict[str, Reader] = {
    "average precision": lambda tags, classes: average_precision(SCORES[:, classes], tags)[np.isin(classes, REST)],
    "its mean": lambda tags, classes: mean_average_precision(SCORES[:, classes], tags),
    "exact match": lambda tags, classes: exact_match(SCORES[:, classes], tags),
    "doubts": lambda tags, classes: doubted(tags, np.arange(N), classes)[:, np.isin(classes, REST)],
    "advice": advised,
    "sampler": lambda tags, classes: chances(tags),
    "folds": lambda tags, classes: folds(tags),
    "splits": lambda tags, classes: splits(tags),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_class_that_nobody_knows_of_is_as_if_it_were_not_there(reader: str) -> None:
    tags = some_unknown()
    tags[:, 2] = np.nan
    found, expected = READERS[reader](tags, list(range(K))), READERS[reader](tags[:, REST], REST)
    np.testing.assert_allclose(np.array(found), np.array(expected))


ITEM_READERS: dict[str, Callable[[Tags, Rows], object]] = {
    "average precision": lambda tags, rows: average_precision(SCORES[rows], tags),
    "exact match": lambda tags, rows: exact_match(SCORES[rows], tags),
    "doubts": lambda tags, rows: doubted(tags, rows, list(range(K)))[~np.isnan(tags).all(1)],
    "advice": lambda tags, rows: advised(tags, list(range(K))),
}


@pytest.mark.parametrize("reader", ITEM_READERS)
def test_an_item_of_which_nothing_is_known_is_as_if_it_were_not_there(reader: str) -> None:
    tags, rows = some_unknown(), np.arange(N)
    tags[::3] = np.nan
    known = ~np.isnan(tags).all(1)
    found, expected = ITEM_READERS[reader](tags, rows), ITEM_READERS[reader](tags[known], rows[known])
    np.testing.assert_allclose(np.array(found), np.array(expected))


def test_classes_that_no_item_with_both_tags_known_holds_are_not_said_to_come_together() -> None:
    """Each is there only where the other is unknown; of the two together nothing is known but that both can lack."""
    tags = np.array([[1, NAN]] * 20 + [[NAN, 1]] * 20 + [[0, 0]] * 30, np.float32)
    assert entangled(tags) == []
    together = np.array([[1, 1]] * 2, np.float32)
    assert [pair.both for pair in entangled(np.concatenate([tags, together]))] == [2]


def test_a_class_of_which_no_training_tag_is_known_is_not_said_to_be_on_no_item(tmp_path: Path) -> None:
    draft = sound(tmp_path / "d")
    for row in draft.rows:
        if row["split"] == "train":
            row["fat"] = ""
    [line] = [str(f) for f in check(draft.save()) if f.kind == "absent_class"]
    assert line == (
        f"{draft.folder / 'items.csv'}: class 'fat' has no known tag on a training item; "
        "fill its column, or leave it out of dataset.yaml"
    )
    for row in draft.rows[:1]:
        row["fat"] = "0"
    [line] = [str(f) for f in check(draft.save()) if f.kind == "absent_class"]
    assert "class 'fat' is on no training item; add some" in line
