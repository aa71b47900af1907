"""Blending written down pixel by pixel, in float64 and in one piece."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np


def blended(predict: Callable[[np.ndarray], np.ndarray], image: np.ndarray, tile: int, margin: int) -> np.ndarray:
    """Predict ``[3, H, W]`` tile by tile; divide the weighted sum by the sum of weights."""
    _, height, width = image.shape
    tops, lefts = starts(height, tile, tile - 2 * margin), starts(width, tile, tile - 2 * margin)
    total, weight = None, np.zeros((height, width))
    for top in tops:
        for left in lefts:
            part = predict(image[:, top : top + tile, left : left + tile])
            share = np.outer(
                [fade(i, tile, margin, top > 0, top + tile < height) for i in range(tile)],
                [fade(i, tile, margin, left > 0, left + tile < width) for i in range(tile)],
            )
            total = np.zeros((len(part), height, width)) if total is None else total
            total[:, top : top + tile, left : left + tile] += part * share
            weight[top : top + tile, left : left + tile] += share
    assert (weight > 0).all()
    return total / weight


def starts(length: int, tile: int, step: int) -> list[int]:
    """Walk until the end is covered, then pull the last tile back to the border."""
    found = [0]
    while found[-1] + tile < length:
        found.append(min(found[-1] + step, length - tile))
    return found


def fade(place: int, tile: int, margin: int, before: bool, after: bool) -> float:
    """Trust in pixel ``place`` of a tile that has neighbours before or after it."""
    trust = 1.0
    if before and margin:
        trust *= risen(min(1.0, (place + 0.5) / (2 * margin)))
    if after and margin:
        trust *= risen(min(1.0, (tile - place - 0.5) / (2 * margin)))
    return trust


@cache
def risen(place: float) -> float:
    """The area up to ``place`` below a trapezium over 0..1 whose sides take a sixth each, of area 1, by adding up."""
    steps = 3000
    middles = (np.arange(steps) + 0.5) / steps * place
    return float(np.mean([min(x / (1 / 6), 1.0, (1 - x) / (1 / 6)) for x in middles]) * place / (5 / 6))
