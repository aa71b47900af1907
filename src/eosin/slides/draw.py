"""Class masks made visible: a tinted overlay with edges, and the legend that goes with it. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from eosin.core.classes import Classes

Pixels = NDArray[np.uint8]

_INK, _FAINT, _FRAME = (28, 27, 34), (96, 94, 106), (150, 148, 160)


def overlay(rgb: Pixels, mask: Pixels, classes: Classes, alpha: float = 0.4) -> Pixels:
    """Tint an image with the colours of its classes and draw the edges between them.

    Every class is bounded by a line of its own colour, so that a line of two colours runs along each border. Pixels
    that are ignored, or that name no class, keep the image's own colour.

    Args:
        rgb: uint8 ``[H, W, 3]``.
        mask: uint8 ``[H, W]``, class indices or ``classes.ignore``.
        classes: gives the colours.
        alpha: strength of the tint, 0 (edges only) to 1 (flat colour).

    Returns:
        uint8 ``[H, W, 3]``, a new image.

    Raises:
        ValueError: if image and mask differ in size.
    """
    if rgb.shape[:2] != mask.shape:
        raise ValueError(f"the image is {rgb.shape[:2]} and the mask {mask.shape}; they must have one size")
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(classes)] = classes.colours
    flat: Pixels = palette[mask]
    tinted = cv2.addWeighted(rgb, 1 - alpha, flat, alpha, 0)
    edge = edges(mask, width=1 + min(mask.shape) // 256)
    tinted[edge] = flat[edge]
    outside = mask >= len(classes)
    tinted[outside] = rgb[outside]
    return np.asarray(tinted, np.uint8)


def typeface(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans, which comes with matplotlib and knows most alphabets; Pillow's own font knows ASCII only."""
    matplotlib = find_spec("matplotlib")
    folders = matplotlib.submodule_search_locations if matplotlib else None
    for folder in folders or ():
        file = Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(str(file), size)
    return ImageFont.load_default(size)


def edges(mask: Pixels, width: int = 1) -> NDArray[np.bool_]:
    """Pixels of ``[H, W]`` closer than ``width`` pixels to another value; the image's own border is no edge."""
    kernel = np.ones((3, 3), np.uint8)
    high = cv2.dilate(mask, kernel, iterations=width)
    low = cv2.erode(mask, kernel, iterations=width)
    return np.asarray(high != low, np.bool_)


def legend(classes: Classes, width: int, texts: Sequence[str] = (), note: str = "research use only") -> Pixels:
    """Draw the classes in mask order as swatches with text, in as many rows as ``width`` asks for.

    Args:
        classes: the names and colours.
        width: of the drawing in pixels, at least 160; the letters grow with it.
        texts: what stands beside each swatch; the names by default.
        note: small print in the last row; empty leaves it out.

    Returns:
        uint8 ``[H, width, 3]`` on white; ``H`` follows from the text.
    """
    width = max(width, 160)
    size = int(np.clip(width // 48, 13, 40))
    font, row, gap = typeface(size), round(1.6 * size), size
    x, y, places = gap, gap // 2, []
    for text in texts or classes.names:
        wide = 2 * size + round(font.getlength(text))
        if x > gap and x + wide + gap > width:
            x, y = gap, y + row
        places.append((x, y, text))
        x += wide + gap
    image = Image.new("RGB", (width, y + row + (row if note else 0) + gap // 2), "white")
    pen = ImageDraw.Draw(image)
    for (x, y, text), colour in zip(places, classes.colours, strict=True):
        pen.rectangle((x, y, x + size, y + size), fill=colour, outline=_FRAME)
        pen.text((x + round(1.5 * size), y + size / 2), text, _INK, font, anchor="lm")
    if note:
        pen.text((gap, y + row + size / 2), note, _FAINT, font, anchor="lm")
    return np.asarray(image, np.uint8)
