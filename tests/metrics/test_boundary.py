"""Outlines: the specification's values, drawings worked out by hand, and the slow oracle."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import directed_hausdorff

from eosin.core.classes import Classes, Tissue
from eosin.core.errors import EosinError
from eosin.metrics.boundary import BoundaryTally, distance_to, hausdorff
from oracles import boundaries as slow


def classes_of(count: int, ignore: int = 255) -> Classes:
    tissues = tuple(Tissue(name=f"c{i}", colour=(i, i, i)) for i in range(count))
    return Classes(tissues=tissues, ignore=ignore)


def drawn(*squares: tuple[int, int, int, int], size: tuple[int, int] = (256, 256)) -> np.ndarray:
    mask = np.zeros(size, bool)
    for top, bottom, left, right in squares:
        mask[top:bottom, left:right] = True
    return mask


def scored(*images: tuple[np.ndarray, np.ndarray], classes: int = 2, mpp: float | None = None, ignore: int = 255):
    tally = BoundaryTally(classes_of(classes, ignore), mpp)
    for prediction, truth in images:
        tally.add(prediction.astype(np.uint8), truth.astype(np.uint8))
    entry = tally.entry()
    assert json.loads(json.dumps(entry, allow_nan=False)) == entry
    return entry


def noise(rng: np.random.Generator, classes: int, most: int = 14) -> np.ndarray:
    """Blots of a few pixels, so that masks have insides."""
    size = rng.integers(1, most, 2)
    fields = ndimage.gaussian_filter(rng.random((classes, *size)), (0, 1.2, 1.2))
    return fields.argmax(0).astype(np.uint8)


SQUARE = (100, 150, 100, 150)


@pytest.mark.parametrize(
    "predicted, expected",
    [
        ([(100, 150, 110, 160)], 10.0),
        ([SQUARE, (10, 20, 10, 20), (200, 205, 200, 205), (230, 235, 20, 25)], 127.279),
        ([SQUARE, (10, 20, 10, 20)], 127.279),
        ([], 362.04),  # the diagonal of 256 x 256
        ([SQUARE], 0.0),
    ],
)
def test_hausdorff_is_that_of_the_specification(predicted, expected):
    truth, prediction = drawn(SQUARE), drawn(*predicted)
    assert hausdorff(prediction, truth)[0] == pytest.approx(expected, abs=1e-2 if not predicted else 1e-3)
    assert hausdorff(truth, prediction) == hausdorff(prediction, truth)


def test_the_95th_percentile_is_interpolated_and_the_larger_one_counts():
    # Of 21 pixels in a row the first is in the other mask: distances 0..20 one way, 0 the other way.
    line, dot = drawn((0, 1, 0, 21), size=(1, 30)), drawn((0, 1, 0, 1), size=(1, 30))
    assert hausdorff(line, dot) == pytest.approx((20.0, 19.0))
    # Of 5 pixels the 95th percentile lies at rank 3.8, between 3 and 4
    assert hausdorff(drawn((0, 1, 0, 5), size=(1, 30)), dot) == pytest.approx((4.0, 3.8))


def test_only_boundaries_are_compared():
    # A square and its rim of two pixels have the same outer boundary. Between the squares as a whole lie 4 pixels.
    full = drawn((2, 13, 2, 13), size=(15, 15))
    ring = full.copy()
    ring[4:11, 4:11] = False
    assert hausdorff(full, ring)[0] == 1.0  # the rim's inner boundary lies next to the outer one


def test_two_empty_masks_are_equal():
    assert hausdorff(drawn(), drawn()) == (0.0, 0.0)


@pytest.mark.parametrize("seed", range(40))
def test_hausdorff_agrees_with_every_pair_of_pixels(seed):
    rng = np.random.default_rng(seed)
    a = noise(rng, 2) == 1
    b = np.resize(noise(rng, 2) == 1, a.shape)
    assert hausdorff(a, b) == pytest.approx(slow.hausdorff(a.tolist(), b.tolist()), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_hausdorff_agrees_with_scipy_on_images(seed):
    rng = np.random.default_rng(seed)
    a, b = ndimage.gaussian_filter(rng.random((2, 130, 190)), (0, 6, 6)) > 0.51
    points = [np.argwhere(mask & ~ndimage.binary_erosion(mask)) for mask in (a, b)]
    expected = max(directed_hausdorff(*points)[0], directed_hausdorff(*points[::-1])[0])
    assert hausdorff(a, b)[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [(122, 175), (1, 900), (900, 3)])
def test_distances_are_exact(size):
    rng = np.random.default_rng(0)
    mask = rng.random(size) < 0.001
    mask[-1, -1] = True
    there, points = np.indices(size).reshape(2, -1).T, np.argwhere(mask)
    nearest = np.min([((there - point) ** 2).sum(1) for point in points], 0)
    assert (distance_to(mask).ravel() == np.sqrt(nearest)).all()


@pytest.mark.parametrize("seed", range(15))
def test_the_tally_agrees_with_the_slow_one(seed):
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(3):
        prediction = noise(rng, 3)
        truth = np.where(rng.random(prediction.shape) < 0.6, prediction, np.resize(noise(rng, 3), prediction.shape))
        truth[rng.random(prediction.shape) < 0.1] = 255
        images.append((prediction, truth))
    entry = scored(*images, classes=3)
    iou, distances = slow.scores([(p.tolist(), t.tolist()) for p, t in images], 3)
    assert list(entry["iou"].values()) == pytest.approx(iou)
    assert entry["miou"] == pytest.approx(np.mean([value for value in iou if value is not None]))
    for k, name in enumerate(entry["hd"]):
        assert entry["images"][name] == len(distances[k])
        if distances[k]:
            assert (entry["hd"][name], entry["hd95"][name]) == pytest.approx(np.mean(distances[k], 0), rel=1e-6)


def test_equal_maps_are_perfect():
    truth = drawn((3, 9, 0, 7), size=(12, 16)).astype(np.uint8)
    assert scored((truth, truth), mpp=0.5) == {
        "width_px": 2,
        "iou": {"c0": 1.0, "c1": 1.0},
        "miou": 1.0,
        "hd": {"c0": 0.0, "c1": 0.0},
        "hd95": {"c0": 0.0, "c1": 0.0},
        "hd_um": {"c0": 0.0, "c1": 0.0},
        "hd95_um": {"c0": 0.0, "c1": 0.0},
        "images": {"c0": 1, "c1": 1},
        "empty": {"c0": 0, "c1": 0},
    }


def test_the_border_of_the_image_is_contour():
    # Predicted 10 x 10 everywhere: the band is all but the inner 6 x 6. Truth lacks the first column: its band is
    # 90 - 6 * 5 = 60, of which 90 - 36 = 54 are in the other; the union has 64 + 60 - 54.
    truth = drawn((0, 10, 1, 10), size=(10, 10))
    entry = scored((np.ones((10, 10)), truth))
    assert entry["iou"]["c1"] == 54 / 70
    assert entry["hd"]["c1"] == 1.0


def test_a_band_forgives_nothing_far_away():
    # A square of 20 shifted by 2 (the width of the band): of the 144 band pixels on each side those shared are, top
    # and bottom, 2 rows of 18, and of the vertical bands, two columns apart, nothing
    truth, prediction = drawn((5, 25, 5, 25), size=(30, 40)), drawn((5, 25, 7, 27), size=(30, 40))
    entry = scored((prediction, truth))
    assert entry["iou"]["c1"] == pytest.approx(72 / (2 * 144 - 72))
    assert entry["hd"]["c1"] == entry["hd95"]["c1"] == 2.0


def test_an_empty_prediction_is_the_diagonal_and_is_counted():
    truth = drawn((1, 3, 1, 3), size=(30, 40))
    good, none = (truth, truth), (np.zeros((30, 40)), truth)
    entry = scored(good, none, mpp=0.5)
    assert entry["hd"]["c1"] == entry["hd95"]["c1"] == 25.0  # the mean of 0 and 50
    assert entry["hd_um"]["c1"] == entry["hd95_um"]["c1"] == 12.5
    assert entry["images"] == {"c0": 2, "c1": 2}
    assert entry["empty"] == {"c0": 0, "c1": 1}
    assert entry["iou"]["c1"] == 0.5  # 4 of 4 and 0 of 4, pooled


def test_without_truth_of_a_class_there_is_no_distance_but_its_pixels_are_wrong():
    prediction = drawn((1, 3, 1, 3), size=(8, 8))
    entry = scored((prediction, np.zeros((8, 8))), classes=3)
    assert entry["hd"]["c1"] is None
    assert entry["images"] == {"c0": 1, "c1": 0, "c2": 0}
    assert entry["iou"]["c1"] == 0.0
    assert entry["iou"]["c2"] is None  # occurs nowhere, and is left out of the mean
    assert entry["miou"] == pytest.approx(entry["iou"]["c0"] / 2)


@pytest.mark.parametrize("ignore", [255, 7])
def test_ignored_pixels_belong_to_no_class(ignore):
    truth = drawn((4, 10, 4, 10), size=(20, 20)).astype(np.uint8)
    truth[:, 14:] = ignore
    wrong = truth.copy()
    wrong[:, 14:] = 1  # a class predicted where truth is ignored changes nothing
    wrong[0, 19] = 0
    entry = scored((wrong, truth), ignore=ignore)
    assert entry["iou"] == {"c0": 1.0, "c1": 1.0}
    assert entry["hd"] == {"c0": 0.0, "c1": 0.0}


def test_a_class_predicted_under_ignored_truth_only_is_an_empty_prediction():
    truth = drawn((0, 2, 0, 2), size=(6, 8)).astype(np.uint8)
    truth[4:] = 255
    prediction = np.zeros_like(truth)
    prediction[5, 5] = 1
    entry = scored((prediction, truth))
    assert entry["hd"]["c1"] == 10.0
    assert entry["empty"]["c1"] == 1


def test_no_image_and_nothing_but_ignored_pixels_say_nothing():
    nothing = {"c0": None, "c1": None}
    for entry in (scored(), scored((np.zeros((4, 4)), np.full((4, 4), 255)))):
        assert entry["iou"] == entry["hd"] == entry["hd95"] == nothing
        assert entry["miou"] is entry["hd_um"] is None
        assert entry["images"] == {"c0": 0, "c1": 0}


def test_shapes_must_agree():
    with pytest.raises(EosinError, match=r"prediction \(3, 4\) and truth \(4, 3\)"):
        scored((np.zeros((3, 4)), np.zeros((4, 3))))
