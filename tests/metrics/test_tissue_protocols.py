"""The protocols of papers on tissue and on glands: hand values, loops, scikit-learn, and what each refuses."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score

from eosin.core.classes import Classes, Tissue
from eosin.core.errors import EosinError, WrongUse
from eosin.metrics.protocols import PROTOCOLS, Binary, Strict, Subject, TissueDrop, TissueFp, TissueFpTags
from eosin.metrics.statistics import miou_interval
from oracles import protocols as slow
from oracles import segmentation_scores

SUBJECT = Subject(dataset="drawn", split="test", step="segmenter", selection="tags")
BACKGROUND = 4


def named(count: int, ignore: int = 255) -> Classes:
    return Classes(tissues=tuple(Tissue(name=f"t{k}", colour=(k, k, k)) for k in range(count)), ignore=ignore)


FOUR = named(4, BACKGROUND)


def maps(seed: int, shape: tuple[int, int] = (9, 11), classes: int = 4) -> tuple[torch.Tensor, np.ndarray]:
    """Random probabilities and a truth in which one class is missing and a third is background."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes - 1, shape, dtype=np.uint8)
    truth[rng.random(shape) < 0.33] = BACKGROUND
    return torch.from_numpy(rng.random((classes, *shape), dtype=np.float32)), truth


class Untouchable:
    """Fails whatever is done with it."""

    def __getattribute__(self, name):
        raise AssertionError("truth was looked at")


@pytest.mark.parametrize("protocol", [Strict, TissueDrop])
def test_dropped_background_by_hand(protocol):
    """Truth 0,0,1,4 against prediction 0,1,1,2, by ARML's sheet; and PDSeg's row of six pixels."""
    rule = protocol(FOUR)
    entry = rule.score_entry(SUBJECT, rule.count(np.array([0, 1, 1, 2]), np.array([0, 0, 1, 4]))[None], ["p"])
    assert list(entry["iou"].values()) == [0.5, 0.5, None, None]
    assert entry["miou"] == 0.5
    assert entry["accuracy"] == pytest.approx(2 / 3)
    assert entry["mdice"] == pytest.approx(2 / 3)
    two = protocol(named(2, BACKGROUND))
    counts = two.count(np.array([0, 1, 1, 1, 0, 0]), np.array([0, 0, 1, 1, 4, 4]))
    entry = two.score_entry(SUBJECT, counts[None], ["p"])
    assert list(entry["iou"].values()) == [0.5, pytest.approx(2 / 3)]


def test_kept_background_by_hand():
    """The same pixels: the predicted 2 is a false positive now, and the two pixels of class 0 over background too."""
    rule = TissueFp(FOUR)
    entry = rule.score_entry(SUBJECT, rule.count(np.array([0, 1, 1, 2]), np.array([0, 0, 1, 4]))[None], ["p"])
    assert entry["confusion"] == [[1, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0] * 5, [0] * 5, [0, 0, 1, 0, 0]]
    assert list(entry["iou"].values()) == [0.5, 0.5, 0.0, None]
    assert entry["miou"] == pytest.approx(1 / 3)
    assert entry["mdice"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert entry["accuracy"] == 0.5
    assert entry["fwiou"] == pytest.approx(2 / 4 * 0.5 + 1 / 4 * 0.5 + 1 / 4 * 0)
    assert entry["background"] is True
    two = TissueFp(named(2, BACKGROUND))
    counts = two.count(np.array([0, 1, 1, 1, 0, 0]), np.array([0, 0, 1, 1, 4, 4]))
    assert list(two.score_entry(SUBJECT, counts[None], ["p"])["iou"].values()) == [0.25, pytest.approx(2 / 3)]
    assert two.miou(counts) == pytest.approx((0.25 + 2 / 3) / 2)


def test_the_row_of_pbip_and_lpd_by_hand():
    """Ten pixels, two of each class and of the background, which LPD predicts as one more class."""
    true, predicted = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4]), np.array([0, 1, 1, 1, 2, 2, 3, 2, 0, 4])
    kept = TissueFpTags(FOUR)
    entry = kept.score_entry(SUBJECT, kept.count(predicted, true)[None], ["p"])
    assert list(entry["iou"].values()) == pytest.approx([1 / 3, 2 / 3, 2 / 3, 1 / 2])
    assert [entry[key] for key in ("miou", "mdice", "fwiou")] == pytest.approx([0.541667, 0.691667, 0.533333], abs=1e-6)
    dropped = TissueDrop(FOUR)
    assert dropped.miou(dropped.count(predicted[:9], true[:9])) == pytest.approx(0.583333, abs=1e-6)


def test_fwiou_needs_no_background():
    rule = TissueFp(FOUR)
    counts = rule.count(np.array([0, 0, 1, 0]), np.array([0, 0, 1, 1]))
    assert rule.score_entry(SUBJECT, counts[None], ["p"])["fwiou"] == pytest.approx(0.5 * 2 / 3 + 0.5 * 0.5)


@pytest.mark.parametrize("seed", range(5))
def test_kept_background_agrees_with_loops_and_with_sklearn(seed):
    rule = TissueFp(FOUR)
    probabilities, truth = maps(seed)
    prediction = rule.prepare(probabilities)
    counts = rule.count(prediction, truth)
    assert counts.tolist() == slow.with_background(prediction.flatten().tolist(), truth.ravel().tolist(), 4, BACKGROUND)
    entry = json.loads(json.dumps(rule.score_entry(SUBJECT, counts[None], ["p"]), allow_nan=False))
    true, predicted = truth.ravel(), prediction.numpy().ravel()
    assert entry["confusion"] == confusion_matrix(true, predicted, labels=range(5)).tolist()
    options = {"labels": range(4), "average": None, "zero_division": 0}
    assert list(entry["iou"].values()) == pytest.approx(jaccard_score(true, predicted, **options))
    assert entry["mdice"] == pytest.approx(f1_score(true, predicted, **{**options, "average": "macro"}))
    assert entry["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    assert entry["fwiou"] == pytest.approx(jaccard_score(true, predicted, average="weighted", zero_division=0))
    assert list(entry["iou"]) == entry["classes"] == ["t0", "t1", "t2", "t3"]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("protocol", [Strict, TissueDrop])
def test_dropped_background_agrees_with_sklearn_where_a_class_is_absent(protocol, seed):
    rule = protocol(FOUR)
    probabilities, truth = maps(seed)
    probabilities[3] = 0  # neither predicted nor true
    prediction = rule.prepare(probabilities)
    entry = rule.score_entry(SUBJECT, rule.count(prediction, truth)[None], ["p"])
    true, predicted = truth[truth != BACKGROUND], prediction.numpy()[truth != BACKGROUND]
    assert entry["confusion"] == confusion_matrix(true, predicted, labels=range(4)).tolist()
    assert list(entry["iou"].values())[:3] == pytest.approx(jaccard_score(true, predicted, average=None))
    assert entry["iou"]["t3"] is entry["dice"]["t3"] is None
    assert entry["miou"] == pytest.approx(jaccard_score(true, predicted, average="macro"))
    assert entry["mdice"] == pytest.approx(f1_score(true, predicted, average="macro"))
    assert entry["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    ious, dices = segmentation_scores.class_scores(prediction.flatten().tolist(), truth.ravel().tolist(), 4, BACKGROUND)
    np.testing.assert_allclose([math.nan if v is None else v for v in entry["iou"].values()], ious)
    np.testing.assert_allclose([math.nan if v is None else v for v in entry["dice"].values()], dices)


def test_dropping_is_the_arithmetic_of_strict_under_its_own_name():
    probabilities, truth = maps(0)
    entries = []
    for protocol in (Strict, TissueDrop):
        rule = protocol(FOUR)
        counts = rule.count(rule.prepare(probabilities), truth)
        entries.append({**rule.score_entry(SUBJECT, counts[None], ["p"]), "protocol": ""})
    assert entries[0] == entries[1]


def test_keeping_the_background_never_raises_a_score():
    for seed in range(20):
        probabilities, truth = maps(seed)
        drop, keep = TissueDrop(FOUR), TissueFp(FOUR)
        prediction = drop.prepare(probabilities)
        assert keep.miou(keep.count(prediction, truth)) <= drop.miou(drop.count(prediction, truth))


@pytest.mark.parametrize("seed", range(5))
def test_tags_of_the_truth_restrict_the_prediction(seed):
    rule = TissueFpTags(FOUR)
    probabilities, truth = maps(seed)
    prediction = rule.prepare(probabilities, truth)
    assert prediction.dtype == torch.uint8
    assert prediction.tolist() == slow.restricted(probabilities.tolist(), truth.tolist(), BACKGROUND)
    assert 3 not in prediction  # which is not in this truth
    assert torch.equal(prediction, rule.prepare(probabilities.numpy(), torch.from_numpy(truth)))
    free = TissueFp(FOUR)
    assert rule.miou(rule.count(prediction, truth)) > free.miou(free.count(free.prepare(probabilities), truth))


def test_an_image_of_background_alone_is_predicted_as_background():
    rule = TissueFpTags(FOUR)
    probabilities, truth = maps(0)
    truth[:] = BACKGROUND
    prediction = rule.prepare(probabilities, truth)
    assert (prediction == BACKGROUND).all()
    assert rule.count(prediction, truth)[4, 4] == truth.size


def test_tags_of_the_truth_need_truth_and_one_image():
    rule = TissueFpTags(FOUR)
    probabilities, truth = maps(0)
    with pytest.raises(EosinError, match="restricts each prediction by its truth"):
        rule.prepare(probabilities)
    with pytest.raises(EosinError, match=r"must be \[4 classes, H, W\]"):
        rule.prepare(probabilities[None], truth)
    probabilities[3, 0, 0] = math.nan  # of a class that is not looked at
    with pytest.raises(EosinError, match="NaN"):
        rule.prepare(probabilities, truth)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_only_what_says_so_looks_at_truth(name):
    classes = named(2, BACKGROUND)
    rule = PROTOCOLS[name](classes)
    probabilities = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0))
    assert rule.uses_truth is (name == "tissue-fp-tags")
    counts = rule.count(np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8))
    measure = rule.measure(np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8))
    assert rule.score_entry(SUBJECT, counts[None], [""], [measure])["uses_truth"] is rule.uses_truth
    if rule.uses_truth:
        with pytest.raises(AssertionError, match="looked at"):
            rule.prepare(probabilities, Untouchable())
    else:
        assert torch.equal(rule.prepare(probabilities, Untouchable()), rule.prepare(probabilities))


@pytest.mark.parametrize("protocol", [TissueDrop, TissueFp, TissueFpTags])
def test_data_without_a_background_is_refused(protocol):
    with pytest.raises(WrongUse, match=f"{protocol.name} is for data whose masks mark a background, such as ignore: 4"):
        protocol(named(4))


@pytest.mark.parametrize("protocol", [TissueFp, TissueFpTags])
def test_values_that_are_no_class_are_refused(protocol):
    with pytest.raises(EosinError, match="truth holds 255"):
        protocol(FOUR).count(np.array([0], np.uint8), np.array([255], np.uint8))
    with pytest.raises(EosinError, match="prediction holds 5"):
        protocol(FOUR).count(np.array([5], np.uint8), np.array([4], np.uint8))


def test_an_ignore_value_far_from_the_classes_is_the_background_too():
    rule = TissueFp(named(2, 9))
    assert rule.count(np.array([0, 1, 9], np.uint8), np.array([9, 1, 9], np.uint8)).tolist() == [
        [0, 0, 0],
        [0, 1, 0],
        [1, 0, 1],
    ]


def test_glands_by_hand_and_by_sklearn():
    """F1 is the mean Dice of both classes, and 2m / (1 + m) only where both IoU are alike."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (20, 30), dtype=np.uint8)
    prediction = np.where(rng.random((20, 30)) < 0.7, truth, 1 - truth).astype(np.uint8)
    rule = Binary(named(2))
    entry = rule.score_entry(SUBJECT, rule.count(prediction, truth)[None], [""])
    assert entry["mdice"] == pytest.approx(f1_score(truth.ravel(), prediction.ravel(), average="macro"))
    assert entry["miou"] == pytest.approx(jaccard_score(truth.ravel(), prediction.ravel(), average="macro"))
    assert entry["mdice"] == pytest.approx(2 * entry["miou"] / (1 + entry["miou"]), abs=1e-3)
    assert entry["mdice"] <= 2 * entry["miou"] / (1 + entry["miou"])
    entry = rule.score_entry(SUBJECT, np.array([[[6, 2], [1, 1]]]), [""])
    assert entry["iou"] == {"t0": pytest.approx(6 / 9), "t1": 0.25}
    assert entry["mdice"] == pytest.approx((12 / 15 + 2 / 5) / 2)


@pytest.mark.parametrize("name", ["binary", "mil-patch"])
@pytest.mark.parametrize("count", [1, 3])
def test_two_classes_or_none(name, count):
    with pytest.raises(WrongUse, match=f"{name} is for two classes, not {count}"):
        PROTOCOLS[name](named(count))


def test_intervals_are_over_the_tissues():
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 50, (8, 5, 5))
    entry = TissueFp(FOUR).score_entry(SUBJECT, counts, list("abcdefgh"))
    low, high = entry["ci95"]["miou"]
    assert (
        (low, high) == miou_interval(counts, list("abcdefgh"), over=range(4)) != miou_interval(counts, list("abcdefgh"))
    )
    assert low < entry["miou"] < high
