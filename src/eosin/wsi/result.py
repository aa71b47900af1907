"""What a person and a program get of a predicted image: class map, overlay with legend, numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from eosin.core.artifact import atomic_file
from eosin.core.classes import Classes
from eosin.slides.image import png_bytes

Array = np.ndarray

LONGEST = 4096
"""Longest side in pixels of an overlay; larger images are shown smaller, while the class map keeps every pixel."""

_OPACITY = 0.35
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
    picture = _tinted(image, mask, classes)
    below = _legend(max(picture.shape[1], _NARROWEST), classes, found)
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


def _tinted(image: Array, mask: Array, classes: Classes) -> Array:
    """Lay the class colours over the image, thinly inside and fully along the borders between classes."""
    colours = np.array(classes.colours, np.uint8)[mask]
    tinted = cv2.addWeighted(image, 1 - _OPACITY, colours, _OPACITY, 0)
    # A pixel is on a border if its neighbourhood holds another class; with every class in its own colour, the border
    # is a line of two colours that shows which side is which.
    thick = 3 if max(mask.shape) < 1500 else 5
    kernel = np.ones((thick, thick), np.uint8)
    border = cv2.dilate(mask, kernel) != cv2.erode(mask, kernel)
    tinted[border] = colours[border]
    return np.asarray(tinted)


def _legend(width: int, classes: Classes, found: tuple[Share, ...]) -> Array:
    """Draw squares, names, shares and areas into a white strip of ``width`` pixels, wrapped to fit."""
    size = int(np.clip(width // 48, 13, 40))
    font = ImageFont.load_default(size)
    row, gap = round(1.6 * size), size
    texts = [f"{s.name} {s.fraction:.1%}" + ("" if s.mm2 is None else f" ({s.mm2:.3g} mm²)") for s in found]
    places, x, y = [], gap, gap // 2
    for text in texts:
        length = 2 * size + round(font.getlength(text))
        if x > gap and x + length + gap > width:
            x, y = gap, y + row
        places.append((x, y))
        x += length + gap
    strip = Image.new("RGB", (width, y + 2 * row + gap // 2), "white")
    pen = ImageDraw.Draw(strip)
    for (x, y), text, colour in zip(places, texts, classes.colours, strict=True):
        pen.rectangle((x, y, x + size, y + size), fill=colour, outline=(90, 90, 90))
        pen.text((x + round(1.5 * size), y + size / 2), text, fill=(20, 20, 20), font=font, anchor="lm")
    pen.text((gap, y + row + size / 2), _FOOTER, fill=(120, 120, 120), font=font, anchor="lm")
    return np.asarray(strip)
