"""Protocol mil-patch: the released numbers as the specification verified them, and the honest ones beside them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score

from eosin.core.classes import Classes, Tissue
from eosin.core.errors import EosinError, WrongUse
from eosin.metrics.protocols import MilPatch, Subject
from eosin.metrics.protocols.mil import vertex_distance
from oracles import protocols as slow

CLASSES = Classes(tissues=(Tissue(name="rest", colour=(0, 0, 0)), Tissue(name="tumour", colour=(9, 9, 9))))
SUBJECT = Subject(dataset="drawn", split="test", step="segmenter", selection="tags")
RULE = MilPatch(CLASSES)
SIDE = 256


def squares(*corners: tuple[int, int, int, int]) -> np.ndarray:
    """A mask that is true in ``(top, bottom, left, right)``."""
    mask = np.zeros((SIDE, SIDE), np.bool_)
    for top, bottom, left, right in corners:
        mask[top:bottom, left:right] = True
    return mask


SQUARE = (100, 150, 100, 150)
FAR = (10, 20, 10, 20)


@pytest.mark.parametrize(
    ("predicted", "released", "hd"),
    [
        ([(100, 150, 110, 160)], 10.0, 10.0),
        ([SQUARE, FAR, (200, 205, 200, 205), (230, 235, 20, 25)], 0.0, 127.279),
        ([SQUARE, FAR], 127.279, 127.279),
        ([], 179.446, 362.039),
    ],
)
def test_distances_of_the_specification(predicted, released, hd):
    prediction, truth = squares(*predicted), squares(SQUARE)
    assert vertex_distance(prediction, truth) == pytest.approx(released, abs=5e-4)
    assert vertex_distance(truth, prediction) == pytest.approx(released, abs=5e-4)
    measure = RULE.measure(prediction.astype(np.uint8), truth.astype(np.uint8))
    assert measure["vertex"] == pytest.approx(released, abs=5e-4)
    assert measure["hd"] == pytest.approx(hd, abs=5e-4)
    assert measure["hd95"] <= measure["hd"]
    assert measure["empty"] == (not predicted)


def blobs(seed: int, side: int = 18) -> np.ndarray:
    """Pieces with holes, single pixels and lines, up to the border."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((side // 3, side // 3)) < 0.5
    mask = np.kron(coarse, np.ones((3, 3), np.bool_)).astype(np.bool_)
    return mask ^ (rng.random(mask.shape) < 0.08)


@pytest.mark.parametrize("seed", range(40))
def test_vertices_and_their_order_are_those_of_border_following(seed):
    a, b = blobs(seed), blobs(seed + 1000)
    assert vertex_distance(a, b) == pytest.approx(slow.vertex_distance(a.tolist(), b.tolist()))


def test_a_step_is_smoothed_as_specified():
    step = torch.zeros(2, 40, 40)
    step[1, :, 20:] = 1
    step[0] = 1 - step[1]
    smooth = slow.smoothed(step[1].tolist())
    assert smooth[20][18:22] == pytest.approx([0.308, 0.434, 0.566, 0.692], abs=5e-4)
    assert torch.equal(RULE.prepare(step), step[1].to(torch.uint8))  # an edge stays where it is
    for level, kept in ((0.43, 19), (0.44, 20)):  # just above and below what the pixel beside the edge has
        # scaling the map by 0.5 / level moves the cut to that level
        prediction = RULE.prepare(step * 0.5 / level)
        assert prediction[20].argmax() == kept


def test_smoothing_erases_small_squares():
    maps = torch.zeros(2, 40, 40)
    maps[1, 10:15, 10:15] = 1
    assert RULE.prepare(maps).sum() == 0
    maps[1, 10:30, 10:30] = 1
    assert RULE.prepare(maps).sum() > 300


@pytest.mark.parametrize("seed", range(4))
def test_smoothing_agrees_with_loops(seed):
    maps = torch.rand(2, 20, 27, generator=torch.Generator().manual_seed(seed))
    smooth = np.array(slow.smoothed(maps[1].tolist()))
    clear = np.abs(smooth - 0.5) > 1e-5
    assert (RULE.prepare(maps).numpy() == (smooth >= 0.5))[clear].all()
    assert 0 < RULE.prepare(maps).sum() < 20 * 27


def test_prepare_takes_one_image_of_two_classes():
    maps = torch.rand(2, 8, 8)
    assert RULE.prepare(maps).dtype == torch.uint8
    assert torch.equal(RULE.prepare(maps), RULE.prepare(maps.numpy()))
    for wrong in (maps[None], torch.rand(3, 8, 8)):
        with pytest.raises(EosinError, match=r"must be \[2 classes, H, W\]"):
            RULE.prepare(wrong)
    maps[0, 0, 0] = math.nan
    with pytest.raises(EosinError, match="NaN"):
        RULE.prepare(maps)


def test_f1_and_iou_of_the_specification():
    prediction = np.array([[1, 0], [0, 0]])
    positive = RULE.measure(prediction, np.array([[1, 1], [0, 0]]))
    assert (positive["positive"], positive["f1"], positive["iou"]) == (1, pytest.approx(0.6667, abs=1e-4), 0.5)
    negative = RULE.measure(prediction, np.zeros((2, 2), int))
    assert negative == {"positive": 0, "f1": pytest.approx(0.8571, abs=1e-4), "iou": 0.75}
    assert RULE.measure(np.ones((2, 2), int), np.zeros((2, 2), int))["f1"] == 0
    assert RULE.measure(np.zeros((2, 2), int), np.zeros((2, 2), int))["f1"] == 1


@pytest.mark.parametrize("seed", range(6))
def test_a_patch_agrees_with_loops_and_with_sklearn(seed):
    prediction, truth = blobs(seed).astype(np.uint8), blobs(seed + 500).astype(np.uint8)
    truth *= seed % 3 > 0
    measure = RULE.measure(prediction, truth)
    of = int(truth.any())
    flat = prediction.ravel().tolist(), truth.ravel().tolist()
    assert (measure["f1"], measure["iou"]) == pytest.approx(slow.f1_and_iou(*flat, of))
    assert measure["f1"] == pytest.approx(f1_score(flat[1], flat[0], pos_label=of))
    assert measure["iou"] == pytest.approx(jaccard_score(flat[1], flat[0], pos_label=of))
    assert measure["positive"] == of == ("vertex" in measure)
    if of:
        hd, hd95 = slow.hausdorff_95(prediction.tolist(), truth.tolist())
        assert (measure["hd"], measure["hd95"]) == pytest.approx((hd, hd95), rel=1e-5)


def test_released_and_honest_side_by_side():
    """Three positive patches (shifted, empty, perfect) and one negative with false positives, by hand."""
    truth = squares(SQUARE).astype(np.uint8)
    pairs = [
        (squares((100, 150, 110, 160)), truth),
        (squares(), truth),
        (squares(SQUARE), truth),
        (squares((0, 64, 0, 256)), 0 * truth),
    ]
    pairs = [(prediction.astype(np.uint8), t) for prediction, t in pairs]
    counts = np.stack([RULE.count(*pair) for pair in pairs])
    measures = [RULE.measure(*pair) for pair in pairs]
    entry = json.loads(json.dumps(RULE.score_entry(SUBJECT, counts, list("abcd"), measures), allow_nan=False))
    f1, iou = 0.8, 40 / 60  # 50 x 40 px in common
    assert entry["mil_patch"] == {
        "released": {
            "f1": pytest.approx((f1 + 0 + 1 + 2 * 0.75 / 1.75) / 4),
            "iou": pytest.approx((iou + 0 + 1 + 0.75) / 4),
            "hd": pytest.approx(2 * (10 + 179.446 + 0) / 4, abs=1e-3),
        },
        "honest": {
            "f1": pytest.approx((f1 + 0 + 1) / 3),
            "iou": pytest.approx((iou + 0 + 1) / 3),
            "specificity": 0.75,
            "dataset_iou": pytest.approx((2000 + 2500) / (3 * 2500 + 500 + 64 * 256)),
            "hd": pytest.approx((10 + SIDE * 2**0.5 + 0) / 3),
            "hd95": pytest.approx((10 + SIDE * 2**0.5 + 0) / 3),
            "positives": 3,
            "negatives": 1,
            "empty": 1,
        },
    }
    assert entry["iou"]["tumour"] == entry["mil_patch"]["honest"]["dataset_iou"]
    assert entry["confusion"] == counts.sum(0).tolist()
    assert entry["uses_truth"] is False
    assert RULE.miou(counts.sum(0)) == entry["miou"]


def test_an_empty_prediction_shines_on_negatives_alone():
    """Why the released mean flatters: finding nothing at all scores one half."""
    truth = [squares(SQUARE).astype(np.uint8), squares().astype(np.uint8)]
    nothing = squares().astype(np.uint8)
    counts = np.stack([RULE.count(nothing, t) for t in truth])
    found = RULE.score_entry(SUBJECT, counts, ["a", "b"], [RULE.measure(nothing, t) for t in truth])["mil_patch"]
    assert (found["released"]["f1"], found["honest"]["f1"], found["honest"]["specificity"]) == (0.5, 0.0, 1.0)


def test_negatives_alone_have_no_distance_and_positives_alone_no_specificity():
    nothing, square = squares().astype(np.uint8), squares(SQUARE).astype(np.uint8)
    entry = RULE.score_entry(SUBJECT, RULE.count(nothing, nothing)[None], [""], [RULE.measure(nothing, nothing)])
    assert entry["mil_patch"]["released"] == {"f1": 1.0, "iou": 1.0, "hd": None}
    honest = entry["mil_patch"]["honest"]
    assert honest["f1"] is honest["hd"] is honest["hd95"] is honest["dataset_iou"] is None
    entry = RULE.score_entry(SUBJECT, RULE.count(square, square)[None], [""], [RULE.measure(square, square)])
    assert entry["mil_patch"]["honest"]["specificity"] is None
    assert entry["mil_patch"]["released"] == {"f1": 1.0, "iou": 1.0, "hd": 0.0}


def test_ignored_pixels_are_left_out():
    truth, prediction = squares(SQUARE).astype(np.uint8), squares(SQUARE, FAR).astype(np.uint8)
    truth[:30, :30] = 255
    measure = RULE.measure(prediction, truth)
    assert (measure["f1"], measure["vertex"], measure["hd"]) == (1.0, 0.0, 0.0)
    everything = np.full((SIDE, SIDE), 255, np.uint8)
    assert RULE.measure(prediction, everything) is None
    counts = np.stack([RULE.count(prediction, t) for t in (truth, everything)])
    entry = RULE.score_entry(SUBJECT, counts, ["a", "b"], [measure, None])
    assert (entry["mil_patch"]["honest"]["positives"], entry["mil_patch"]["honest"]["negatives"]) == (1, 0)


def test_every_patch_must_be_measured():
    counts = np.ones((2, 2, 2), np.int64)
    with pytest.raises(WrongUse, match="2 patches were counted, 0 measured"):
        RULE.score_entry(SUBJECT, counts, ["a", "b"])
