"""Patches on disk and the items that name them, for tests that need no whole data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from eosin.data.dataset import Items


def write_items(
    folder: Path,
    images: Sequence[np.ndarray],
    tags: Sequence[Sequence[float]] | None = None,
    parents: Sequence[str] | None = None,
    xy: Sequence[tuple[int, int]] | None = None,
    masks: Sequence[np.ndarray] = (),
) -> Items:
    """Write uint8 ``[H, W, 3]`` images as ``images/p<i>.png`` and masks as ``masks/p<i>.png``."""
    names = [f"p{i}" for i in range(len(images))]
    for sub, pictures in (("images", images), ("masks", masks)):
        (folder / sub).mkdir(parents=True, exist_ok=True)
        for name, picture in zip(names, pictures, strict=False):
            Image.fromarray(picture).save(folder / sub / f"{name}.png")
    blank = np.array([""] * len(names))
    return Items(
        folder=folder,
        ids=np.array(names),
        images=np.array([f"images/{name}.png".encode() for name in names]),
        tags=np.array(tags if tags is not None else [[0.0, 1.0]] * len(names), np.float32),
        patients=blank,
        slides=blank,
        parents=np.array(parents) if parents is not None else blank,
        xy=np.array(xy if xy is not None else [(-1, -1)] * len(names), np.int32),
    )


def noise(height: int = 16, width: int = 16, seed: int = 0) -> np.ndarray:
    """A random RGB patch."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
