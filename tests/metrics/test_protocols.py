"""Protocol strict and the objects of scores.json."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score

from eosin.core.classes import Classes, Tissue
from eosin.core.errors import EosinError, WrongUse
from eosin.metrics.protocols import PROTOCOLS, Strict, Subject, find_protocol, tags_entry
from eosin.metrics.statistics import miou_interval

CLASSES = Classes(
    tissues=tuple(Tissue(name=name, colour=(i, i, i)) for i, name in enumerate(["tumour", "stroma", "necrosis"]))
)
SUBJECT = Subject(dataset="drawn", split="test", step="segmenter", selection="tags")


def strict_json(value: object) -> dict:
    """Through real JSON, in which NaN does not exist."""
    return json.loads(json.dumps(value, allow_nan=False))


def test_the_entry_is_exactly_the_promised_one():
    # The matrix is [[3, 1, 0], [0, 4, 0], [0, 0, 0]], in two images.
    counts = np.array([[[1, 1, 0], [0, 2, 0], [0, 0, 0]], [[2, 0, 0], [0, 2, 0], [0, 0, 0]]])
    entry = Strict(CLASSES).score_entry(SUBJECT, counts, ["p1", "p2"])
    assert strict_json(entry) == {
        "schema": 1,
        "dataset": "drawn",
        "split": "test",
        "step": "segmenter",
        "protocol": "strict",
        "uses_truth": False,
        "selection": "tags",
        "classes": ["tumour", "stroma", "necrosis"],
        "confusion": [[3, 1, 0], [0, 4, 0], [0, 0, 0]],
        "iou": {"tumour": 0.75, "stroma": 0.8, "necrosis": None},
        "miou": pytest.approx(0.775),
        "dice": {"tumour": pytest.approx(6 / 7), "stroma": pytest.approx(8 / 9), "necrosis": None},
        "mdice": pytest.approx((6 / 7 + 8 / 9) / 2),
        "accuracy": 0.875,
        "fwiou": pytest.approx(0.5 * 0.75 + 0.5 * 0.8),
        "n_images": 2,
        "ci95": {
            "miou": [pytest.approx(7 / 12), 1.0],
            "iou": {"tumour": [0.5, 1.0], "stroma": [pytest.approx(2 / 3), 1.0], "necrosis": [None, None]},
        },
    }
    assert list(entry)[:8] == list(strict_json(tags_entry(SUBJECT, CLASSES, np.zeros((1, 3)), np.zeros((1, 3)))))[:8]


def test_one_patient_has_no_interval():
    entry = Strict(CLASSES).score_entry(SUBJECT, np.eye(3, dtype=np.int64)[None] * 7, ["p"])
    unknown = [None, None]
    assert strict_json(entry)["ci95"] == {"miou": unknown, "iou": dict.fromkeys(CLASSES.names, unknown)}
    assert entry["miou"] == 1.0


def test_nothing_scored_is_valid_json_too():
    entry = strict_json(Strict(CLASSES).score_entry(SUBJECT, np.zeros((2, 3, 3), np.int64), ["p", "q"]))
    assert entry["miou"] is entry["accuracy"] is entry["fwiou"] is entry["mdice"] is None
    assert entry["iou"] == {"tumour": None, "stroma": None, "necrosis": None}


def test_no_image_is_an_error():
    with pytest.raises(EosinError, match="split 'test' has no image with a mask"):
        Strict(CLASSES).score_entry(SUBJECT, np.zeros((0, 3, 3), np.int64), [])


def test_strict_agrees_with_sklearn_from_probabilities_to_scores():
    rng = np.random.default_rng(0)
    sizes = [(20, 30), (31, 17), (25, 25), (40, 8)]  # images of a split need not be alike
    strict = Strict(CLASSES)
    counts, kept_truth, kept_prediction = [], [], []
    for height, width in sizes:
        probabilities = rng.random((3, height, width), dtype=np.float32)
        truth = rng.integers(0, 3, (height, width), dtype=np.uint8)
        probabilities[truth, *np.indices((height, width))] += 0.3
        truth[rng.random((height, width)) < 0.2] = 255
        prediction = strict.prepare(torch.from_numpy(probabilities))
        assert np.array_equal(prediction.numpy(), probabilities.argmax(0))
        counts.append(strict.count(prediction, truth))
        kept_truth.append(truth[truth != 255])
        kept_prediction.append(prediction.numpy()[truth != 255])
    true, predicted = np.concatenate(kept_truth), np.concatenate(kept_prediction)
    patients = ["a", "a", "b", ""]
    entry = strict.score_entry(SUBJECT, np.stack(counts), patients)
    assert entry["confusion"] == confusion_matrix(true, predicted).tolist()
    assert list(entry["iou"].values()) == pytest.approx(jaccard_score(true, predicted, average=None))
    assert list(entry["dice"].values()) == pytest.approx(f1_score(true, predicted, average=None))
    assert entry["miou"] == pytest.approx(jaccard_score(true, predicted, average="macro"))
    assert entry["fwiou"] == pytest.approx(jaccard_score(true, predicted, average="weighted"))
    assert entry["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    assert entry["ci95"]["miou"] == list(miou_interval(np.stack(counts), patients))
    assert entry["n_images"] == 4


def test_prepare_keeps_batches_and_takes_the_first_of_equals():
    maps = torch.zeros(2, 3, 4, 5)
    maps[1, 2] = 1
    prediction = Strict(CLASSES).prepare(maps)
    assert prediction.dtype == torch.uint8
    assert prediction.shape == (2, 4, 5)
    assert (prediction[0] == 0).all()
    assert (prediction[1] == 2).all()
    assert torch.equal(prediction, Strict(CLASSES).prepare(maps.numpy()))


def test_prepare_refuses_what_cannot_be_judged():
    maps = torch.rand(1, 3, 2, 2)
    maps[0, 1, 0, 1] = float("nan")
    with pytest.raises(EosinError, match="NaN"):
        Strict(CLASSES).prepare(maps)
    with pytest.raises(EosinError, match="3 classes"):
        Strict(CLASSES).prepare(torch.rand(1, 4, 2, 2))


def test_truth_never_touches_a_strict_prediction():
    assert Strict.uses_truth is False
    with pytest.raises(EosinError, match="prediction holds 3"):
        Strict(CLASSES).count(np.array([[3]]), np.array([[255]]))


def test_the_ignore_index_is_that_of_the_classes():
    classes = CLASSES.model_copy(update={"ignore": 7})
    assert Strict(classes).count(np.array([0, 1]), np.array([0, 7])).sum() == 1


def test_tags_entry_is_exactly_the_promised_one():
    scores = np.array([[0.9, 0.2, 0.6], [0.1, 0.7, 0.6], [0.8, 0.6, 0.4]])
    tags = np.array([[1.0, 0.0, np.nan], [0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    assert strict_json(tags_entry(SUBJECT, CLASSES, scores, tags)) == {
        "schema": 1,
        "dataset": "drawn",
        "split": "test",
        "step": "segmenter",
        "protocol": "tags",
        "uses_truth": False,
        "selection": "tags",
        "classes": ["tumour", "stroma", "necrosis"],
        "tags": {
            "map": 1.0,
            "exact_match": pytest.approx(2 / 3),
            "average_precision": {"tumour": 1.0, "stroma": 1.0, "necrosis": None},
        },
        "n_images": 3,
    }


def test_the_page_on_protocols_tells_all_of_them_and_which_look_at_truth():
    page = (Path(__file__).resolve().parents[2] / "docs" / "protocols.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `([\w-]+)` \|[^|]*\|[^|]*\| ([^|]*) \|", page, re.MULTILINE))
    assert {name: told[name] == "**yes**" for name in PROTOCOLS} == {n: p.uses_truth for n, p in PROTOCOLS.items()}


def test_the_registry():
    assert find_protocol("strict") is Strict
    assert list(PROTOCOLS) == ["strict", "tissue-drop", "tissue-fp", "tissue-fp-tags", "binary", "mil-patch"]
    assert all(name == protocol.name and protocol.__doc__ for name, protocol in PROTOCOLS.items())
    with pytest.raises(WrongUse, match=r"strikt: unknown protocol \(did you mean 'strict'\?\)"):
        find_protocol("strikt")
