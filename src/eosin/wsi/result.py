"""What a person and a program get of a predicted image: class map, overlay with legend, numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from eosin.core.artifact import atomic_file
from eosin.core.classes import Classes
from eosin.slides.draw import legend, overlay
from eosin.slides.image import png_bytes

Array = np.ndarray

LONGEST = 2048
"""Longest side in pixels of an overlay; larger images are shown smaller, while the class map keeps every pixel."""

_NARROWEST = 320
_FOOTER = "For research use only. Not for diagnosis."


@dataclass(frozen=True, slots=True)
class Share:
    """How much of an image is one tissue: pixels, share in 0..1, and mm2 where the pixel size is known."""

    name: str
    pixels: int
    fraction: float
    mm2: float | None


def shares(mask: Array, classes: Classes, mpp: float | None) -> tuple[Share, ...]:
    """Count the classes of a map.

    Args:
        mask: uint8 ``[H, W]`` of class indices.
        classes: the tissues.
        mpp: micrometres per pixel, or None.

    Returns:
        One share for each class, in their order.
    """
    counts = np.bincount(mask.reshape(-1), minlength=len(classes))[: len(classes)].tolist()
    area = None if mpp is None else mpp * mpp / 1e6
    return tuple(
        Share(name, count, count / mask.size, None if area is None else count * area)
        for name, count in zip(classes.names, counts, strict=True)
    )


def write_overlay(path: Path, image: Array, mask: Array, classes: Classes, found: tuple[Share, ...]) -> None:
    """Write a picture of the classes over the image, with a legend below.

    Args:
        path: the PNG to write.
        image: uint8 ``[H, W, 3]``, RGB.
        mask: uint8 ``[H, W]`` of class indices.
        classes: the tissues.
        found: their shares, as :func:`shares` gives them.
    """
    image, mask = _shown(image, mask)
    picture = overlay(image, mask, classes)
    texts = [f"{share.name} {share.fraction:.1%}{_area(share.mm2)}" for share in found]
    below = legend(classes, max(picture.shape[1], _NARROWEST), texts, _FOOTER)
    canvas = np.full((picture.shape[0] + below.shape[0], below.shape[1], 3), 255, np.uint8)
    canvas[: picture.shape[0], : picture.shape[1]] = picture
    canvas[picture.shape[0] :] = below
    with atomic_file(path) as temporary:
        temporary.write_bytes(png_bytes(canvas))


def _shown(image: Array, mask: Array) -> tuple[Array, Array]:
    height, width = mask.shape
    factor = LONGEST / max(height, width)
    if factor >= 1:
        return image, mask
    size = max(1, round(width * factor)), max(1, round(height * factor))
    smaller = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return smaller, cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)


def _area(mm2: float | None) -> str:
    # "mm2", because Pillow's own font has no raised two.
    if mm2 is None:
        return ""
    return " (< 0.001 mm2)" if 0 < mm2 < 0.001 else f" ({mm2:.3f} mm2)"
