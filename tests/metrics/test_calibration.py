"""Confidence: computed by hand, recovered from drawn logits, and against the slow oracle."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from eosin.core.errors import EosinError
from eosin.metrics import calibration
from eosin.metrics.calibration import PixelSample, Reliability, fit_temperature, tempered
from oracles import calibration as slow


def drawn(pixels: int, classes: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities ``[N, K]`` of a model whose logits are ``temperature`` times too large, and truth ``[N]``."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 2, (pixels, classes)))
    honest = logits.softmax(1).numpy()
    truth = (honest.cumsum(1) < rng.random((pixels, 1))).sum(1).clip(max=classes - 1)
    return (logits * temperature).softmax(1).numpy(), truth


def as_image(probabilities: np.ndarray, truth: np.ndarray, width: int = 10) -> tuple[np.ndarray, np.ndarray]:
    maps = probabilities.T.reshape(probabilities.shape[1], -1, width)
    return maps.astype(np.float32), truth.reshape(-1, width).astype(np.uint8)


def scored(*images: tuple[np.ndarray, np.ndarray], temperature: float | None = None, ignore: int = 255):
    reliability = Reliability(temperature)
    for probabilities, truth in images:
        reliability.add(probabilities, truth, ignore)
    entry = reliability.entry()
    assert json.loads(json.dumps(entry, allow_nan=False)) == entry
    return entry


@pytest.mark.parametrize("temperature", [0.3, 0.8, 1.0, 2.5, 6.0])
@pytest.mark.parametrize("classes", [2, 4])
def test_a_known_temperature_is_recovered(temperature, classes):
    probabilities, truth = drawn(20_000, classes, temperature)
    assert fit_temperature(probabilities, truth) == pytest.approx(temperature, rel=0.05)
    assert fit_temperature(probabilities.astype(np.float32), truth) == pytest.approx(temperature, rel=0.05)


def test_the_fit_is_the_best_of_many():
    probabilities, truth = drawn(150, 3, 2.0)
    found = fit_temperature(probabilities, truth)
    best = slow.best_temperature(probabilities.tolist(), truth.tolist())
    assert found == pytest.approx(best, rel=0.016)  # one step of the oracle
    rows, true = probabilities.tolist(), truth.tolist()
    assert slow.loss(rows, true, found) <= slow.loss(rows, true, best) + 1e-9


def test_temperatures_stay_in_their_range():
    sure = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert fit_temperature(sure, np.array([0, 1])) == pytest.approx(0.05, rel=0.01)  # always right
    assert fit_temperature(sure, np.array([1, 0])) == pytest.approx(20, rel=0.01)  # always wrong


def test_zeros_are_survived():
    hard = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], np.float32)
    # One of three is wrong. A confidence of 1 / (1 + 1e-12**(1 / T)) = 2 / 3 asks for T = 12 ln 10 / ln 2 = 39.9
    assert fit_temperature(hard, np.array([0, 1, 1])) == pytest.approx(20, rel=0.01)
    assert np.isfinite(tempered(hard, 0.05, 1)).all()
    assert np.isfinite(tempered(hard, 20, 1)).all()


def test_tempering_divides_logits():
    logits = torch.from_numpy(np.random.default_rng(0).normal(0, 3, (4, 5, 6)))
    for temperature in (0.4, 1.0, 3.0):
        found = tempered(logits.softmax(0).numpy(), temperature, 0)
        np.testing.assert_allclose(found, (logits / temperature).softmax(0).numpy(), rtol=1e-6)
    assert tempered(np.array([0.8, 0.2]), 2.0, 0).tolist() == pytest.approx([2 / 3, 1 / 3])
    assert tempered(np.array([2 / 3, 1 / 3]), 0.5, 0).tolist() == pytest.approx([0.8, 0.2])
    single = tempered(logits.softmax(0).numpy().astype(np.float32), 3.0, 0)
    assert single.dtype == np.float32
    assert single.shape == (4, 5, 6)
    for pixel in logits.softmax(0).numpy().reshape(4, -1).T[:5]:
        assert tempered(pixel, 1.7, 0).tolist() == pytest.approx(slow.tempered(pixel.tolist(), 1.7))


def test_the_entry_is_exactly_the_promised_one():
    # Confidences 0.9, 0.9, 0.9 (two right), 0.6 (right) and an ignored pixel. Bins of a 15th: 0.9 in the 14th, 0.6 in
    # the 9th, whose upper end it is. ECE = 3/4 |2/3 - 0.9| + 1/4 |1 - 0.6|.
    probabilities = np.array([[0.9, 0.1, 0.9, 0.6, 0.5], [0.1, 0.9, 0.1, 0.4, 0.5]])[:, None]
    truth = np.array([[0, 1, 1, 0, 255]], np.uint8)
    entry = scored((probabilities, truth), temperature=2.0)
    empty = {"confidence": None, "accuracy": None, "pixels": 0}
    bins = [{"from": m / 15, "to": (m + 1) / 15, **empty} for m in range(15)]
    bins[13] |= {"confidence": pytest.approx(0.9), "accuracy": pytest.approx(2 / 3), "pixels": 3}
    bins[8] |= {"confidence": 0.6, "accuracy": 1.0, "pixels": 1}
    # At T = 2 the confidences are 3 / (3 + 1) and sqrt(.6) / (sqrt(.6) + sqrt(.4)) = 0.5505
    softer = 3 / 4 * (0.75 - 2 / 3) + 1 / 4 * (1 - 0.550510)
    assert entry == {
        "temperature": 2.0,
        "ece": pytest.approx(3 / 4 * (0.9 - 2 / 3) + 1 / 4 * 0.4),
        "ece_tempered": pytest.approx(softer, abs=1e-6),
        "bins": bins,
    }


def test_the_ends_of_the_scale_are_in_bins():
    sure = np.array([1.0 + 1e-6, 1.0, 0.0], np.float32).reshape(1, 1, 3)
    entry = scored((sure, np.zeros((1, 3), np.uint8)))
    assert (entry["bins"][0]["pixels"], entry["bins"][14]["pixels"]) == (1, 2)


def test_a_calibrated_model_has_no_error_and_a_sure_one_has():
    probabilities, truth = drawn(100_000, 3, 1.0)
    assert scored(as_image(probabilities, truth))["ece"] < 0.01
    probabilities, truth = drawn(100_000, 3, 3.0)
    entry = scored(as_image(probabilities, truth), temperature=3.0)
    assert entry["ece"] > 0.1
    assert entry["ece_tempered"] < 0.01


@pytest.mark.parametrize("seed", range(5))
def test_errors_are_those_of_the_loop(seed):
    rng = np.random.default_rng(seed)
    images = [as_image(*drawn(60, 3, 1.5, seed=10 * seed + i)) for i in range(3)]
    for _, truth in images:
        truth[rng.random(truth.shape) < 0.2] = 9
    rows, true = [], []
    for probabilities, truth in images:
        kept = truth != 9
        rows += probabilities[:, kept].T.tolist()
        true += truth[kept].tolist()
    entry = scored(*images, temperature=1.5, ignore=9)
    error, diagram = slow.reliability(rows, true)
    assert entry["ece"] == pytest.approx(error)
    assert [found["pixels"] for found in entry["bins"]] == [len(pixels) for pixels in diagram]
    softened = [slow.tempered(row, 1.5) for row in rows]
    assert entry["ece_tempered"] == pytest.approx(slow.reliability(softened, true)[0], abs=1e-6)


def test_nothing_counted_says_nothing():
    ignored = (np.full((2, 3, 3), 0.5), np.full((3, 3), 255, np.uint8))
    for entry in (scored(temperature=1.5), scored(ignored, temperature=1.5)):
        assert entry["ece"] is entry["ece_tempered"] is None
        assert len(entry["bins"]) == 15
    assert scored(as_image(*drawn(20, 2, 1.0)))["ece_tempered"] is None


@pytest.mark.parametrize("collector", [Reliability(None), PixelSample()])
def test_what_cannot_be_judged_is_refused(collector):
    maps, truth = np.full((2, 3, 4), 0.5), np.zeros((3, 4), np.uint8)
    with pytest.raises(EosinError, match=r"must be \[K, H, W\] and \[H, W\]"):
        collector.add(maps, truth.T, 255)
    with pytest.raises(EosinError, match="truth holds 2, which is no class"):
        collector.add(maps, truth + 2, 255)
    maps[0, 1, 1] = np.nan
    with pytest.raises(EosinError, match="NaN"):
        collector.add(maps, truth, 255)


def test_a_sample_finds_the_temperature_of_the_split():
    sample = PixelSample()
    for seed in range(3):
        probabilities, truth = as_image(*drawn(20_000, 3, 2.5, seed), width=100)
        truth[:, 0] = 7
        sample.add(probabilities, truth, 7)
    assert sample.temperature() == pytest.approx(2.5, rel=0.05)


def test_a_sample_is_bounded_even_and_always_the_same(monkeypatch):
    monkeypatch.setattr(calibration, "SAMPLE", 1000)
    images, width = 50, 32
    taken = []
    for _ in range(2):
        sample = PixelSample()
        for k in range(images):
            places = np.arange(width * width, dtype=np.float64).reshape(width, width)
            sample.add(np.stack([places, np.full_like(places, k)]), np.zeros((width, width), np.uint8), 255)
            assert len(sample._keys) <= 1000
        taken.append(sample._probabilities)
    assert np.array_equal(*taken)
    places, image = taken[0].T.astype(int)
    assert len(places) > 500
    per_image = np.bincount(image, minlength=images)
    assert per_image.max() - per_image.min() <= 2  # every image has its share
    for lines in (places // width, places % width):  # and so have all rows and columns
        counts = np.bincount(lines, minlength=width)
        assert counts.min() > 0.5 * len(places) / width
        assert counts.max() < 1.5 * len(places) / width


def test_a_small_split_is_taken_whole():
    probabilities, truth = as_image(*drawn(500, 3, 2.0))
    sample = PixelSample()
    sample.add(probabilities[:, :20], truth[:20], 255)
    sample.add(probabilities[:, 20:], truth[20:], 255)
    assert sample.temperature() == fit_temperature(probabilities.reshape(3, -1).T, truth.ravel())


def test_too_little_gives_no_temperature():
    assert PixelSample().temperature() is None
    sample = PixelSample()
    maps = np.full((2, 4, 4), 0.5)
    sample.add(maps, np.full((4, 4), 255, np.uint8), 255)
    assert sample.temperature() is None  # nothing is labelled
    sample.add(maps, np.zeros((4, 4), np.uint8), 255)
    assert sample.temperature() is None  # one class
    sample.add(maps, np.ones((4, 4), np.uint8), 255)
    assert sample.temperature() is not None
