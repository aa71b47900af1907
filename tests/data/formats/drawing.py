"""Small images and masks in the layouts of the releases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tifffile import TiffWriter

from eosin.core.classes import Colour
from eosin.data.check import check
from eosin.data.dataset import Dataset

_SEEN = [0]


def draw(path: Path, height: int = 16, width: int = 16) -> Path:
    """An image of noise that no other test image equals."""
    _SEEN[0] += 1
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(_SEEN[0]).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def stripes(values: Sequence[int], height: int = 16, width: int = 16) -> np.ndarray:
    """Columns of equal width, one per value."""
    return np.array(values, np.uint8)[np.arange(width) * len(values) // width][None].repeat(height, 0)


def draw_mask(path: Path, mask: np.ndarray, palette: Sequence[Colour] | None = None) -> Path:
    """Class indices as a grey PNG, or as a palette PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask)
    if palette is not None:
        image.putpalette([part for colour in palette for part in colour])
    image.save(path)
    return path


def draw_colours(path: Path, mask: np.ndarray, palette: Sequence[Colour]) -> Path:
    """A mask in RGB colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(palette, np.uint8)[mask]).save(path)
    return path


def draw_pyramid(path: Path, pixels: np.ndarray, mpp: float = 0.25, levels: int = 3) -> Path:
    """A tiled TIFF with levels of half the size each, losslessly: RGB for a slide, values for a map of classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TiffWriter(path) as tiff:
        for level in range(levels):
            step = 2**level
            tiff.write(
                np.ascontiguousarray(pixels[::step, ::step]),
                photometric="rgb" if pixels.ndim == 3 else "minisblack",
                tile=(64, 64),
                compression="zlib",
                subfiletype=1 if level else 0,
                metadata=None,
                resolution=(1e4 / mpp / step, 1e4 / mpp / step),
                resolutionunit="CENTIMETER",
            )
    return path


def errors(dataset: Dataset) -> list[str]:
    """What the check calls an error."""
    return [str(finding) for finding in check(dataset.folder) if finding.level == "error"]


def kinds(dataset: Dataset) -> list[str]:
    """The kinds of all findings."""
    return [finding.kind for finding in check(dataset.folder)]
