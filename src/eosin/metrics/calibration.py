"""Whether a probability of 0.8 is right in 80 % of the pixels, and one temperature that mends it.

Both after C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017. A temperature never changes which class
is the most probable one, so no other score depends on it.
"""

from __future__ import annotations

import math
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from eosin.core.errors import EosinError
from eosin.metrics.scores import Floats

BINS = 15  # as in the tables of the paper
SMALLEST = 1e-12  # probabilities below count as this, so that one sure mistake does not decide the temperature
RANGE = (0.05, 20.0)  # of temperatures
SAMPLE = 200_000  # pixels a temperature is fitted to
GOLDEN = 2654435769  # 2**32 over the golden ratio

# confidence is the mean over the pixels of the bin, accuracy the share that is right; None in a bin without a pixel
Bin = TypedDict(
    "Bin", {"from": float, "to": float, "confidence": float | None, "accuracy": float | None, "pixels": int}
)


class CalibrationScores(TypedDict):
    """What ``scores.json`` says of confidence; ``bins`` are the reliability diagram of the model as it is.

    ``ece`` is that of the model as it is, ``ece_tempered`` that with ``temperature``, both in 0..1; None where no pixel
    was counted or there is no temperature.
    """

    temperature: float | None
    ece: float | None
    ece_tempered: float | None
    bins: list[Bin]


def fit_temperature(probabilities: NDArray[Any], truth: NDArray[Any]) -> float:
    """Find the temperature T with the smallest mean of -log p_T[truth], p_T = softmax(log p / T) (equation 9).

    Args:
        probabilities: ``[N, K]`` in 0..1, N at least 1.
        truth: ``[N]``, class indices.

    Returns:
        T in 0.05..20; above 1 the model is too sure of itself, below 1 not sure enough. At an end of the range where
        the smallest mean lies beyond it, as 0.05 is where every pixel is right.
    """
    # The loss is convex in 1 / T, so the bounded search finds the one minimum
    logs = np.log(np.maximum(np.asarray(probabilities, np.float64), SMALLEST))
    margins = logs - logs[np.arange(len(logs)), truth][:, None]  # log p_k - log p_true

    def loss(log_temperature: float) -> float:
        scaled = margins / math.exp(log_temperature)
        most = scaled.max(1)
        return float(np.mean(most + np.log(np.exp(scaled - most[:, None]).sum(1))))

    low, high = math.log(RANGE[0]), math.log(RANGE[1])
    return math.exp(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4}).x)


def tempered(probabilities: NDArray[Any], temperature: float, axis: int) -> NDArray[Any]:
    """Change how sure probabilities are: p**(1/T), made to sum to 1 again, which equals softmax(logits / T).

    Args:
        probabilities: floats of any shape, in 0..1, summing to 1 along ``axis``.
        temperature: T > 0; 1 changes nothing (but the clipping at 1e-12).
        axis: that of the classes.

    Returns:
        The same shape and dtype; the order of the classes stays.
    """
    logs = np.log(np.maximum(probabilities, SMALLEST))
    powers = np.exp((logs - logs.max(axis, keepdims=True)) / temperature)  # of the largest 1, so none overflows
    return np.asarray(powers / powers.sum(axis, keepdims=True), probabilities.dtype)


class Reliability:
    """Collects how often a confidence is right; pixels of all images are pooled, ignored ones left out.

    The expected calibration error is the sum over 15 bins of equal width of (pixels in the bin / pixels) times
    |accuracy - mean confidence| of the bin; confidence = probability of the most probable class (equation 3). A bin
    holds its upper end, not its lower one.
    """

    def __init__(self, temperature: float | None) -> None:
        """Start with no pixel; ``temperature`` is the one to judge beside the model as it is, None if there is none."""
        self._temperature = temperature
        self._plain, self._tempered = np.zeros((2, 3, BINS), np.float64)  # pixels, sum of confidence, right ones

    def add(self, probabilities: NDArray[Any], truth: NDArray[Any], ignore: int) -> None:
        """Count the pixels of one image.

        Args:
            probabilities: ``[K, H, W]`` in 0..1, summing to 1 over K.
            truth: class indices or ``ignore``, ``[H, W]``.
            ignore: the truth value that is not counted.

        Raises:
            EosinError: if shapes do not agree, a probability is NaN or a truth value is no class.
        """
        maps, labels = _labelled(probabilities, truth, ignore)
        best = maps.argmax(0)
        right = best == labels
        self._plain += _histogram(np.take_along_axis(maps, best[None], 0)[0], right)
        if self._temperature is not None:
            sure = tempered(maps, self._temperature, 0)
            self._tempered += _histogram(np.take_along_axis(sure, best[None], 0)[0], right)

    def entry(self) -> CalibrationScores:
        """Say the scores of all images so far."""
        pixels, confidence, right = self._plain.tolist()
        return {
            "temperature": self._temperature,
            "ece": _ece(self._plain),
            "ece_tempered": _ece(self._tempered),
            "bins": [
                {
                    "from": m / BINS,
                    "to": (m + 1) / BINS,
                    "confidence": confidence[m] / pixels[m] if pixels[m] else None,
                    "accuracy": right[m] / pixels[m] if pixels[m] else None,
                    "pixels": int(pixels[m]),
                }
                for m in range(BINS)
            ],
        }


class PixelSample:
    """Collects at most 200,000 labelled pixels, evenly spaced over all labelled pixels of a split, for a temperature.

    Pixel n of the split is kept if the fraction of n / golden ratio lies below a threshold, which is halved whenever
    too many are kept. So memory is bounded though nobody knows how many pixels will come, every pixel has the same
    weight, nothing is left to chance, and, unlike every 2**k-th pixel, the kept ones do not line up in image columns.
    """

    def __init__(self) -> None:
        """Start with no pixel."""
        self._seen = 0
        self._below = 2**32
        self._keys: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._probabilities: NDArray[Any] | None = None  # [n, K]
        self._truth: NDArray[Any] = np.empty(0, np.uint8)

    def add(self, probabilities: NDArray[Any], truth: NDArray[Any], ignore: int) -> None:
        """Take pixels of one image; takes and raises what ``Reliability.add`` does."""
        maps, labels = _labelled(probabilities, truth, ignore)
        keys = np.arange(self._seen, self._seen + len(labels), dtype=np.uint64) * np.uint64(GOLDEN) % np.uint64(2**32)
        self._seen += len(labels)
        kept = keys < self._below
        self._keys = np.concatenate([self._keys, keys[kept]])
        self._truth = np.concatenate([self._truth, labels[kept]])
        rows = maps[:, kept].T
        self._probabilities = rows if self._probabilities is None else np.concatenate([self._probabilities, rows])
        while len(self._keys) > SAMPLE:
            self._below //= 2
            kept = self._keys < self._below
            self._keys, self._truth, self._probabilities = (
                self._keys[kept],
                self._truth[kept],
                self._probabilities[kept],
            )

    def temperature(self) -> float | None:
        """Fit a temperature to the pixels; None where they hold fewer than two classes, which say nothing of it."""
        if self._probabilities is None or len(np.unique(self._truth)) < 2:
            return None
        return fit_temperature(self._probabilities, self._truth)


def _labelled(probabilities: NDArray[Any], truth: NDArray[Any], ignore: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The pixels with a true class: probabilities ``[K, n]`` and class indices ``[n]``."""
    maps, labels = np.asarray(probabilities), np.asarray(truth)
    if maps.ndim != 3 or maps.shape[1:] != labels.shape:
        raise EosinError(f"probabilities {maps.shape} and truth {labels.shape} must be [K, H, W] and [H, W]")
    kept = labels != ignore
    maps, labels = maps[:, kept], labels[kept]
    if np.isnan(maps).any():
        raise EosinError("a predicted probability is NaN: the training has probably diverged; lower fit.lr")
    if (labels >= len(maps)).any():
        raise EosinError(f"truth holds {labels.max()}, which is no class: remap it to one of the classes or to ignore")
    return maps, labels


def _histogram(confidence: NDArray[Any], right: NDArray[np.bool_]) -> Floats:
    """Pixels, sum of confidence and right pixels of each bin: float64 ``[3, 15]``."""
    exact = confidence.astype(np.float64)
    # Bin m holds confidences in (m / 15, (m + 1) / 15]; a sum of float32 may be a little above 1
    bins = np.clip(np.ceil(exact * BINS).astype(np.int64) - 1, 0, BINS - 1)
    counts = [np.bincount(bins, weights, BINS) for weights in (None, exact, right)]
    return np.array(counts, np.float64)


def _ece(histogram: Floats) -> float | None:
    pixels, confidence, right = histogram
    return float(np.abs(right - confidence).sum() / pixels.sum()) if pixels.any() else None
