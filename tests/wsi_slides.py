"""Small slides as files, for tests of the road from a slide to its results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

MPP = 0.5
HEIGHT, WIDTH = 440, 560  # large enough that the glass is no hole in the tissue


def drawn(height: int, width: int, seed: int = 0) -> np.ndarray:
    """White glass with a stained piece of tissue, noisy so that no two places are alike."""
    rng = np.random.default_rng([seed, height, width])
    y, x = np.mgrid[:height, :width]
    inside = ((y / height - 0.5) ** 2 + (x / width - 0.45) ** 2) < 0.11
    pixels = np.full((height, width, 3), 245, np.int16)
    pixels[inside] = (150, 80, 150)
    pixels[inside & (x > width * 0.45)] = (215, 130, 180)
    pixels[inside] += rng.integers(-40, 41, (int(inside.sum()), 1), dtype=np.int16)
    return pixels.clip(0, 255).astype(np.uint8)


def slide_file(path: Path, height: int = HEIGHT, width: int = WIDTH, seed: int = 0, mpp: float | None = MPP) -> Path:
    """A tiled TIFF that OpenSlide reads, with its pixel size unless that is None."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(
        path,
        drawn(height, width, seed),
        photometric="rgb",
        tile=(128, 128),
        compression="deflate",
        metadata=None,
        **size,
    )
    return path
