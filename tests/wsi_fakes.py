"""A slide and its tissue that are arrays, for tests of what predicts slides."""

from __future__ import annotations

import numpy as np


class ArraySource:
    """Pixels at the scale of the prediction; ``scale`` full-resolution pixels each."""

    def __init__(self, pixels: np.ndarray, scale: float = 1.0) -> None:
        self.pixels, self.scale = pixels, scale
        self.size = pixels.shape[:2]
        self.reads: list[tuple[int, int, int, int]] = []

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        assert top >= 0 and left >= 0 and top + height <= self.size[0] and left + width <= self.size[1]
        self.reads.append((top, left, height, width))
        return self.pixels[top : top + height, left : left + width].copy()


class ArrayArea:
    """Tissue on a coarse map; a pixel is tissue if the map has it where its middle lies."""

    def __init__(self, mask: np.ndarray, scale: float) -> None:
        self.mask, self.scale = mask, scale
        self.size = round(mask.shape[0] * scale), round(mask.shape[1] * scale)

    def at(self, top: int, left: int, height: int, width: int, scale: float) -> np.ndarray:
        rows = np.floor((np.arange(top, top + height) + 0.5) * scale / self.scale).astype(int)
        columns = np.floor((np.arange(left, left + width) + 0.5) * scale / self.scale).astype(int)
        return self.mask[np.ix_(rows.clip(0, len(self.mask) - 1), columns.clip(0, self.mask.shape[1] - 1))]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, height, width]).integers(0, 256, (height, width, 3), dtype=np.uint8)


def everywhere(height: int, width: int, scale: float = 1.0) -> ArrayArea:
    return ArrayArea(np.ones((-(-height // 8), -(-width // 8)), bool), 8 * scale)


def spots(height: int, width: int, share: float = 0.1, seed: int = 0) -> ArrayArea:
    """Blobs of tissue on a map of 8 x 8 pixels."""
    drawn = np.random.default_rng(seed).random((-(-height // 40), -(-width // 40))) < share
    return ArrayArea(drawn.repeat(5, 0).repeat(5, 1)[: -(-height // 8), : -(-width // 8)], 8.0)
