"""The picture of a slide's outcome: tissues over the slide, scale bar, areas, and what made it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from eosin.core.artifact import write_bytes
from eosin.core.classes import Classes, Tissue
from eosin.slides.draw import legend, overlay, typeface
from eosin.slides.image import png_bytes
from eosin.wsi.areas import Area
from eosin.wsi.bands import OUTSIDE
from eosin.wsi.tissues import Shown

Pixels = NDArray[np.uint8]

LONGEST = 2048
"""Longest side in pixels of the slide in the picture."""

_NARROWEST = 640
_FOOTER = "For research use only. Not for diagnosis."
_INK = (28, 27, 34)


class Sample:
    """The class map of a picture, taken while the map of the slide passes by: each pixel shows the one at its middle.

    Args:
        shape: rows and columns of the picture.
        step: pixels of the map per pixel of the picture.
        size: rows and columns of the map.

    Attributes:
        classes: uint8 ``shape``; 255 where nothing passed yet.
    """

    def __init__(self, shape: tuple[int, int], step: float, size: tuple[int, int]) -> None:
        self.classes = np.full(shape, OUTSIDE, np.uint8)
        self._rows, self._columns = (
            np.minimum(((np.arange(count) + 0.5) * step).astype(np.int64), whole - 1)
            for count, whole in zip(shape, size, strict=True)
        )

    def take(self, top: int, classes: Pixels) -> None:
        """Take what is seen of the rows from ``top`` on, uint8 ``[rows, width]``."""
        first, last = np.searchsorted(self._rows, [top, top + len(classes)])
        self.classes[first:last] = classes[self._rows[first:last] - top][:, self._columns]


def fitting(thumbnail: Pixels, scale: float) -> tuple[Pixels, float]:
    """Make a thumbnail fit the picture; returns it and the full-resolution pixels that one of its pixels spans."""
    height, width = thumbnail.shape[:2]
    factor = max(height, width) / LONGEST
    if factor <= 1:
        return thumbnail, scale
    size = max(1, round(width / factor)), max(1, round(height / factor))
    return np.asarray(cv2.resize(thumbnail, size, interpolation=cv2.INTER_AREA), np.uint8), scale * factor


def write_overview(
    path: Path,
    picture: Pixels,
    classes: Pixels,
    um: float,
    shown: Sequence[Shown],
    found: Sequence[Area],
    title: str,
    notes: Sequence[str],
) -> None:
    """Write the picture.

    Args:
        path: the PNG file.
        picture: of the slide, uint8 ``[H, W, 3]``.
        classes: uint8 ``[H, W]``, indices of ``shown``, 255 outside tissue.
        um: micrometres per pixel of the picture.
        shown: the classes.
        found: their areas.
        title: stands above.
        notes: lines that stand below, before "for research use only"; too long ones are broken.
    """
    tissues = Classes(tissues=tuple(Tissue(name=s.name, colour=s.colour) for s in shown))
    number = np.full(256, tissues.ignore, np.uint8)
    number[[s.index for s in shown]] = np.arange(len(shown))
    width = max(picture.shape[1], _NARROWEST)
    texts = [f"{area.name} {_mm2(area.mm2)} ({area.fraction:.1%})" for area in found]
    parts = [
        _lines([title], width),
        overlay(picture, number[classes], tissues),
        _scale_bar(width, picture.shape[1], um),
        legend(tissues, width, texts, note=""),
        _lines([*notes, _FOOTER], width),
    ]
    canvas = np.full((sum(len(part) for part in parts), width, 3), 255, np.uint8)
    top = 0
    for part in parts:
        canvas[top : top + len(part), : part.shape[1]] = part
        top += len(part)
    write_bytes(path, png_bytes(canvas))


def bar_length(um: float) -> float:
    """The largest of 1, 2, 5, 10, 20, ... micrometres that is no longer than ``um``."""
    power = 10.0 ** math.floor(math.log10(um))
    return max(step * power for step in (1, 2, 5) if step * power <= um)


def _scale_bar(width: int, shown: int, um: float) -> Pixels:
    length = bar_length(shown * um / 4)
    size = _letters(width)
    image = Image.new("RGB", (width, 2 * size), "white")
    pen, pixels = ImageDraw.Draw(image), max(1, round(length / um))
    pen.rectangle((size, size - size // 4, size + pixels - 1, size + size // 4), fill=_INK)
    text = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} um"
    pen.text((2 * size + pixels, size), text, _INK, typeface(size), anchor="lm")
    return np.asarray(image, np.uint8)


def _lines(lines: Sequence[str], width: int) -> Pixels:
    """Small print, as many rows as it takes."""
    size = _letters(width)
    font, row = typeface(size), round(1.6 * size)
    rows: list[str] = []
    for line in lines:
        rows.append("")
        for word in line.split():
            longer = f"{rows[-1]} {word}".strip()
            if rows[-1] and font.getlength(longer) > width - 2 * size:
                rows.append(word)
            else:
                rows[-1] = longer
    image = Image.new("RGB", (width, row * len(rows) + size // 2), "white")
    pen = ImageDraw.Draw(image)
    for number, text in enumerate(rows):
        pen.text((size, number * row + size), text, _INK, font, anchor="lm")
    return np.asarray(image, np.uint8)


def _letters(width: int) -> int:
    """Height of letters in pixels, as in the legend."""
    return int(np.clip(width // 48, 13, 40))


def _mm2(area: float) -> str:
    return "< 0.001 mm2" if 0 < area < 0.001 else f"{area:.3f} mm2"
