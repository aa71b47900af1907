"""Advice on tags: which pairs are too much together, and which tiles would part them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from broken.builders import CLASSES, Draft, pixels, sound
from eosin.data.advice import FEW_ITEMS, FEW_SHARE, Pair, entangled, tile_tags
from eosin.data.check import check
from eosin.data.phantom import PhantomSpec, draw_dataset

SIDE = 128


def tags(both: int, first: int, second: int, neither: int = 5) -> np.ndarray:
    return np.array([(1, 1)] * both + [(1, 0)] * first + [(0, 1)] * second + [(0, 0)] * neither, np.float32)


@pytest.mark.parametrize(
    ("both", "first", "second", "few"),
    [
        (1000, 30, 19, True),  # 4.7 %
        (1000, 30, 23, False),  # 5.0 %
        (1000, 0, 60, False),  # one direction is enough
        (90, 19, 0, True),  # 17 %, but fewer than 20
        (90, 19, 1, False),
        (30, 9, 0, True),  # 23 %, fewer than 20
        (9, 3, 0, False),  # few items in all: a quarter is apart
        (8, 0, 0, True),  # never apart
        (0, 5, 5, False),
    ],
)
def test_limits(both: int, first: int, second: int, few: bool) -> None:
    assert entangled(tags(both, first, second)) == ([Pair(0, 1, both, first, second)] if few else [])


def test_pairs_against_a_plain_count() -> None:
    rng = np.random.default_rng(0)
    values = rng.choice([0.0, 1.0, np.nan], (300, 4), p=[0.1, 0.8, 0.1]).astype(np.float32)
    values[:, 1] = np.where(rng.random(300) < 0.97, values[:, 0], 1 - values[:, 0])
    found = {(pair.first, pair.second): pair for pair in entangled(values)}
    for a in range(4):
        for b in range(a + 1, 4):
            rows = [(x, y) for x, y in values[:, [a, b]].tolist() if x in (0, 1) and y in (0, 1)]
            both, first, second = (rows.count(kind) for kind in ((1, 1), (1, 0), (0, 1)))
            share = (first + second) / (both + first + second)
            few = share < FEW_SHARE or (first + second < FEW_ITEMS and share < 0.25)
            assert ((a, b) in found) == few
            if few:
                assert found[a, b] == Pair(a, b, both, first, second)
    assert (0, 1) in found


def test_unknown_tags_and_absent_classes_say_nothing() -> None:
    values = tags(50, 0, 0)
    values[:, 1] = np.nan
    assert entangled(values) == []
    assert entangled(tags(0, 0, 50)) == []


def test_tile_tags_against_loops() -> None:
    mask = np.random.default_rng(1).choice([0, 1, 2, 255], (70, 45), p=[0.7, 0.1, 0.15, 0.05]).astype(np.uint8)
    sides = (64, 45, 10, 7)
    for side, found in zip(sides, tile_tags(mask, sides, 3, 0.1), strict=True):
        wanted = []
        for y in range(0, 70 - side + 1, side):
            for x in range(0, 45 - side + 1, side):
                tile = mask[y : y + side, x : x + side]
                wanted.append([(tile == k).sum() / side**2 > 0.1 for k in range(3)])
        assert found.shape == (len(wanted), 3) and found.tolist() == wanted


def striped(width: int) -> np.ndarray:
    """Tumour and stroma in turn, in stripes of so many pixels."""
    return np.repeat((np.arange(SIDE, dtype=np.uint8) // width % 2)[None], SIDE, axis=0)


def drawn(folder: Path, width: int, masks: str, alone: int = 1) -> Draft:
    """A data set of striped items: tumour and stroma together on all but ``alone`` of 40; ``masks`` in one split."""
    draft = sound(folder)
    for number, row in enumerate(draft.rows):
        both = row["split"] == "train" and number >= alone
        row |= dict(zip(CLASSES, ("1", "1" if both else "0", "0" if both else "1"), strict=True))
        picture = np.random.default_rng(number).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(picture).save(draft.image(row["id"]))
        row["mask"] = (
            f"{row['split']}/masks/{row['id']}.png" if row["split"] == masks and (both or masks == "val") else ""
        )
        if row["mask"]:
            Image.fromarray(striped(width)).save(draft.mask(row["id"]))
            row |= dict(zip(CLASSES, ("1", "1", "0"), strict=True))
    return draft


def said(draft: Draft, kind: str = "cooccurring") -> str:
    [found] = [finding for finding in check(draft.save()) if finding.kind == kind and "'tumour'" in finding.message]
    return found.message


@pytest.mark.parametrize("masks", ["train", "val"])
@pytest.mark.parametrize(
    ("width", "says"),
    [
        (64, "or cut tiles of 64 px: of those that hold either, 100% hold just one"),
        (32, "or cut tiles of 32 px: of those that hold either, 100% hold just one"),
        (8, "smaller tiles would not do: just one is on 0% at 64 px, 0% at 32 px"),
    ],
)
def test_the_largest_tile_that_helps_is_named(tmp_path: Path, masks: str, width: int, says: str) -> None:
    line = said(drawn(tmp_path / "d", width, masks))
    assert "come together on 97.5% of the 40 training items that hold either" in line
    assert "(1 'tumour' without 'stroma', 0 'stroma' without 'tumour')" in line
    assert says in line and line.endswith(f"({39 if masks == 'train' else 20} masks of {masks})")


def test_classes_never_apart_get_the_same_advice(tmp_path: Path) -> None:
    line = said(drawn(tmp_path / "d", 64, "val", alone=0), "inseparable")
    assert "or merge them, or cut tiles of 64 px" in line


@pytest.mark.parametrize("change", ["rule", "masks", "damage"])
def test_nothing_is_said_of_tiles_where_it_cannot_be_known(tmp_path: Path, change: str) -> None:
    draft = drawn(tmp_path / "d", 64, "val")
    for row in draft.rows if change != "rule" else ():
        if row["mask"] and change == "damage":
            draft.mask(row["id"]).write_bytes(b"no picture")
        row["mask"] = "" if change == "masks" else row["mask"]
    if change == "rule":
        draft.head["tag_rule"] = None
    line = said(draft)
    assert line.endswith("add items with one of them")


def test_items_of_many_sizes_are_tried_at_usual_sides(tmp_path: Path) -> None:
    draft = drawn(tmp_path / "d", 56, "val")
    Image.fromarray(pixels(1).repeat(8, axis=0).repeat(7, axis=1)).save(draft.image("train-3"))
    line = said(draft)
    assert "or cut tiles of 56 px" in line


def test_a_declared_pair_is_known(tmp_path: Path) -> None:
    draft = drawn(tmp_path / "d", 64, "val")
    draft.head["known"] = {"cooccurring": "as in the tissue"}
    assert said(draft).endswith("[known: as in the tissue]")


def test_drawn_tissue_as_it_comes_needs_no_advice(tmp_path: Path) -> None:
    spec = PhantomSpec(patches=120, val=8, test=8, large=1, patients=20, size=64, large_size=64)
    draw_dataset(tmp_path / "d", spec)
    assert check(tmp_path / "d") == []
