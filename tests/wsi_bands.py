"""Bands of a small map on disk, and the slide it belongs to, for tests of the outcome."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from eosin.slides.slide import PixelSize
from eosin.wsi.bands import OUTSIDE, Bands, Piece, write_band
from eosin.wsi.view import View


def bands_of(folder: Path, classes: np.ndarray, confidence: np.ndarray | None = None, rows: int = 7) -> Bands:
    """Write a map in bands of ``rows`` rows; certain everywhere unless ``confidence`` is given."""
    folder.mkdir(parents=True, exist_ok=True)
    if confidence is None:
        confidence = np.where(classes == OUTSIDE, 0, 255).astype(np.uint8)
    for top in range(0, len(classes), rows):
        part = np.ascontiguousarray(classes[top : top + rows]), np.ascontiguousarray(confidence[top : top + rows])
        write_band(folder, top, len(part[0]), classes.shape, [Piece(0, *part)])
    return Bands.open(folder)


def view_of(classes: np.ndarray, scale: float = 2.0, **changes: Any) -> View:
    """A slide of 0.25 um a pixel, predicted at ``scale`` times that, with a grey thumbnail of the prediction's size."""
    height, width = classes.shape
    values: dict[str, Any] = {
        "name": "slide one",
        "size": (round(height * scale), round(width * scale)),
        "scale": scale,
        "mpp": 0.25 * scale,
        "pixel_size": PixelSize(0.25, "openslide.mpp-x"),
        "thumbnail": np.full((height, width, 3), 220, np.uint8),
        "thumbnail_scale": scale,
        "measured": np.empty((0, 4)),
    }
    return View(**(values | changes))
