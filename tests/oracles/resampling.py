"""Resampling pixel by pixel in float64: a window around the centre of each output pixel, as wide as the factor."""

from __future__ import annotations

import math

import numpy as np


def window(distance: float) -> float:
    """The Hamming-windowed sinc on -1..1."""
    if abs(distance) >= 1:
        return 0.0
    sinc = 1.0 if distance == 0 else math.sin(math.pi * distance) / (math.pi * distance)
    return sinc * (0.54 + 0.46 * math.cos(math.pi * distance))


def line(values: np.ndarray, factor: float, size: int) -> np.ndarray:
    """Resample the first axis to ``size`` entries, ``factor`` old ones apart; weights always add up to 1."""
    wide = max(1.0, factor)
    out = []
    for i in range(size):
        centre = (i + 0.5) * factor
        weights = [window((j + 0.5 - centre) / wide) for j in range(len(values))]
        out.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
    return np.array(out)


def resample(pixels: np.ndarray, factor: float, size: tuple[int, int]) -> np.ndarray:
    """Resample ``[H, W, 3]`` to ``size``, not rounded."""
    down = line(pixels.astype(np.float64), factor, size[0])
    return line(down.swapaxes(0, 1), factor, size[1]).swapaxes(0, 1)
