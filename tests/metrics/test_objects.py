"""Objects of the GlaS contest: drawings worked out by hand, and the slow oracle."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import ndimage

from eosin.core.errors import EosinError
from eosin.metrics.objects import ObjectTally
from oracles import objects as slow


def scored(*images: tuple[np.ndarray, np.ndarray], mpp: float | None = None):
    tally = ObjectTally(mpp)
    for prediction, objects in images:
        tally.add(prediction.astype(bool), objects.astype(np.uint8))
    entry = tally.entry()
    assert json.loads(json.dumps(entry, allow_nan=False)) == entry
    return entry


def drawn(text: str) -> np.ndarray:
    """A map drawn in digits; a dot is 0."""
    rows = text.split()
    return np.array([[0 if mark == "." else int(mark) for mark in row] for row in rows], np.uint8)


def blots(rng: np.random.Generator, size: tuple[int, int], share: float) -> np.ndarray:
    field = ndimage.gaussian_filter(rng.random(size), 1.1)
    return field > np.quantile(field, 1 - share)


TWO = drawn("""
    11......
    11...222
    .....222
    ........
""")


def test_the_entry_is_exactly_the_promised_one():
    assert scored((TWO > 0, TWO), mpp=0.5) == {
        "f1": 1.0,
        "dice": 1.0,
        "hausdorff": 0.0,
        "hausdorff_um": 0.0,
        "truth": 2,
        "predicted": 2,
        "images": 1,
    }


def test_a_shifted_square():
    # Half of the object is covered: a hit by the text of the contest. Both sides have one pair: Dice 2 * 8 / 32.
    truth, prediction = np.zeros((2, 20, 20), np.uint8)
    truth[4:8, 4:8] = 1
    prediction[4:8, 6:10] = 1
    entry = scored((prediction, truth), mpp=2.0)
    assert (entry["f1"], entry["dice"], entry["hausdorff"], entry["hausdorff_um"]) == (1.0, 0.5, 2.0, 4.0)
    prediction = np.roll(prediction, 1, 1)
    entry = scored((prediction, truth))
    assert (entry["f1"], entry["dice"], entry["hausdorff"]) == (0.0, 0.25, 3.0)


def test_one_piece_over_two_objects_finds_the_larger_one():
    objects = drawn("11.222")
    entry = scored((np.ones((1, 6)), objects))
    assert (entry["truth"], entry["predicted"]) == (2, 1)
    assert entry["f1"] == 2 / 3  # a hit, and object 1 is missed though it is covered
    predicted_side = 2 * 3 / (6 + 3)
    true_side = 2 / 5 * (2 * 2 / (6 + 2)) + 3 / 5 * predicted_side
    assert entry["dice"] == pytest.approx((predicted_side + true_side) / 2)
    assert entry["hausdorff"] == pytest.approx((3 + 2 / 5 * 4 + 3 / 5 * 3) / 2)


def test_two_pieces_of_one_object():
    objects = drawn("1111111")
    prediction = drawn("11.1111")
    entry = scored((prediction, objects))
    assert entry["f1"] == 2 / 3  # the larger piece hits, the other is wrong, nothing is missed
    predicted_side = 2 / 6 * (4 / 9) + 4 / 6 * (8 / 11)
    assert entry["dice"] == pytest.approx((predicted_side + 8 / 11) / 2)
    assert entry["hausdorff"] == pytest.approx((2 / 6 * 5 + 4 / 6 * 3 + 3) / 2)


def test_two_exact_halves_are_two_hits():
    entry = scored((drawn("11.11"), drawn("11.11")))  # an object need not be in one piece
    assert (entry["truth"], entry["predicted"], entry["f1"]) == (1, 2, 1.0)


def test_pieces_hang_together_over_corners_and_numbers_may_have_gaps():
    objects = drawn("""
        7...
        .7..
        ..99
    """)
    prediction = objects > 0
    assert scored((prediction, objects))["predicted"] == 1
    assert scored((prediction, objects))["truth"] == 2


def test_touching_objects_stay_apart():
    entry = scored((drawn("111222"), drawn("111222")))
    assert (entry["truth"], entry["predicted"]) == (2, 1)
    assert entry["f1"] == 2 / 3


def test_without_an_overlap_the_nearest_object_is_the_partner():
    # The piece at the right end is 2 px from object 2 and 7 px from object 1
    objects = drawn("1....2..")
    prediction = drawn("1......1")
    entry = scored((prediction, objects))
    assert entry["f1"] == 0.5
    assert entry["dice"] == 0.5
    assert entry["hausdorff"] == pytest.approx((2 / 2 + 2 / 2) / 2)


def test_all_pixels_count_not_only_the_outline():
    # A disc and its ring: outlines differ by a pixel, but the middle of the disc is 4 px from the ring
    objects = np.ones((9, 9), np.uint8)
    prediction = np.ones((9, 9), bool)
    prediction[1:8, 1:8] = False
    assert scored((prediction, objects))["hausdorff"] == 4.0


def test_an_empty_side_of_an_image_is_a_diagonal_away():
    objects = np.zeros((30, 40), np.uint8)
    objects[2:4, 2:4] = 1
    none = np.zeros((30, 40))
    missed = scored((none, objects), mpp=0.5)
    assert missed == {
        "f1": 0.0,
        "dice": 0.0,
        "hausdorff": 50.0,
        "hausdorff_um": 25.0,
        "truth": 1,
        "predicted": 0,
        "images": 1,
    }
    invented = scored((objects, none))
    assert (invented["f1"], invented["dice"], invented["hausdorff"]) == (0.0, 0.0, 50.0)
    # With a perfect image beside it: half of the true area has no partner, all of the predicted area has one
    both = scored((none, objects), (objects, objects))
    assert (both["f1"], both["dice"], both["hausdorff"]) == (2 / 3, 0.75, 12.5)


def test_no_object_at_all_has_no_score():
    none = np.zeros((5, 5))
    for entry in (scored(), scored((none, none), mpp=1.0)):
        assert entry["f1"] is entry["dice"] is entry["hausdorff"] is entry["hausdorff_um"] is None
        assert entry["truth"] == entry["predicted"] == 0


def test_an_image_without_objects_changes_nothing_but_the_count():
    none = np.zeros((9, 9))
    alone, beside = scored((TWO == 1, TWO)), scored((TWO == 1, TWO), (none, none))
    assert beside == {**alone, "images": 2}


def test_objects_are_weighed_by_area_over_all_images():
    # 8 px found in one image, 2 px missed in the other: true side 8 / 10, predicted side 1
    large, small = np.zeros((2, 4, 6), np.uint8)
    large[:2, :4] = 1
    small[0, :2] = 1
    entry = scored((large, large), (np.zeros((4, 6)), small))
    assert entry["dice"] == pytest.approx((1 + 0.8) / 2)
    assert entry["hausdorff"] == pytest.approx(0.2 * math.hypot(4, 6) / 2)


@pytest.mark.parametrize("seed", range(40))
def test_agrees_with_the_slow_one(seed):
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(3):
        size = tuple(rng.integers(2, 16, 2))
        objects, _ = ndimage.label(blots(rng, size, rng.choice([0, 0.1, 0.4, 0.7])))
        objects = (objects * 11) % 256
        if rng.random() < 0.5:  # two numbers side by side
            objects[:, size[1] // 2 :] = np.where(objects[:, size[1] // 2 :] > 0, 250, 0)
        near = np.roll(objects > 0, rng.integers(0, 3), 1)
        images.append((near if rng.random() < 0.7 else blots(rng, size, rng.choice([0, 0.05, 0.4])), objects))
    entry = scored(*images)
    f1, dice, distance = slow.scores([(p.tolist(), o.tolist()) for p, o in images])
    assert entry["f1"] == pytest.approx(f1)
    assert entry["dice"] == pytest.approx(dice)
    assert entry["hausdorff"] == pytest.approx(distance, rel=1e-6)


def test_shapes_must_agree():
    with pytest.raises(EosinError, match=r"prediction \(3, 4\) and objects \(4, 3\)"):
        scored((np.zeros((3, 4)), np.zeros((4, 3))))
