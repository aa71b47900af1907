"""Slides written for tests: tiled pyramids in every form that is read directly, and some that are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from eosin.slides.slide import Pixels

JPEG: dict[str, Any] = {"compression": "jpeg"}
APERIO = "Aperio Image Library v11.2.1 \r\n600x450 (128x128) JPEG/RGB Q=70|AppMag = 20|MPP = 0.4990"


def tissue(height: int, width: int, seed: int = 0) -> Pixels:
    """Smooth colours with fine grain, so that a shift by a part of a pixel shows; uint8 ``[height, width, 3]``."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / a + columns / b) for a, b in ((7.0, 11.0), (13.0, -5.0), (-4.0, 9.0))]
    pixels = 150 + 60 * np.stack(waves, 2) + draw.normal(0, 12, (height, width, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def halved(pixels: Pixels) -> Pixels:
    """The mean of each 2 x 2 pixels; what is left over at the rim is dropped, as scanners do."""
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    blocks = pixels[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
    return (blocks.mean((1, 3)) + 0.5).astype(np.uint8)


def write_slide(path: Path, pixels: Pixels, levels: int = 3, mpp: float | None = 0.5, **form: Any) -> Path:
    """Write a tiled pyramid with all levels as top-level pages; ``form`` goes to tifffile."""
    settings: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb", "metadata": None, **form}
    if mpp is not None:
        settings |= {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level in range(levels):
            file.write(pixels, subfiletype=int(level > 0), **settings)
            pixels = halved(pixels) if level + 1 < levels else pixels
    return path


def write_aperio(path: Path, pixels: Pixels, **form: Any) -> Path:
    """Write an SVS: full size, thumbnail, a level of a quarter, label and macro; the last two as bright as can be."""
    settings: dict[str, Any] = {"photometric": "rgb", "metadata": None}
    tiled = {"tile": (128, 128), "description": APERIO, "compression": "jpeg", **settings, **form}
    quarter = halved(halved(pixels))
    red = np.full((90, 120, 3), (255, 0, 0), np.uint8)
    with tifffile.TiffWriter(path) as file:
        file.write(pixels, **tiled)
        file.write(quarter, rowsperstrip=16, description=f"{APERIO} thumbnail", **settings)
        file.write(quarter, **tiled)
        for name, kind in (("label", 1), ("macro", 9)):
            about = f"Aperio Image Library v11.2.1 \r\n{name} 120x90"
            file.write(red, rowsperstrip=90, description=about, subfiletype=kind, **settings)
    return path
