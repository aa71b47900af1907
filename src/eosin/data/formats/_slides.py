"""Slides on their way into a data set: seen at one mpp, cut into patches on a grid.

Importers of slides are handed what opens one, so that nothing in this room knows a slide library.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from eosin.core.classes import Classes
from eosin.core.errors import EosinError
from eosin.data.dataset import Row
from eosin.data.formats._common import SUFFIXES
from eosin.slides.image import png_bytes
from eosin.slides.scaled import Scaled
from eosin.slides.slide import ENDINGS, Level, Slide

Array = np.ndarray


OpenSlide = Callable[[Path], Slide]
"""Opens a slide: ``open_slide`` of the slides' room."""


class Map(Protocol):
    """What is used of an open map of classes (``SlideMap`` of the slides' room)."""

    path: Path
    levels: tuple[Level, ...]

    def at(self, top: int, left: int, height: int, width: int, scale: float) -> Array:
        """The values of a rectangle, uint8 ``[height, width]``, in pixels of ``scale``."""
        ...


OpenMap = Callable[[Path], AbstractContextManager[Map]]
"""Opens a map of classes."""

WHITE = 200


def slides_below(source: Path) -> list[Path]:
    """The files that may be slides: the source itself, or those of a folder and its subfolders by their endings.

    Raises:
        EosinError: if there is none.
    """
    if source.is_file():
        return [source]
    found = sorted(
        path
        for path in source.rglob("*")
        if path.suffix.lower() in (*ENDINGS, *SUFFIXES)
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
    )
    if not found:
        raise EosinError(f"{source}: no slides in it; give the folder that holds them")
    return found


def places(view: Scaled, tile: int, stride: int) -> list[tuple[int, int]]:
    """Where the whole patches of a slide begin, as (y, x) in row-major order from its top left."""
    height, width = view.size
    return [(y, x) for y in range(0, height - tile + 1, stride) for x in range(0, width - tile + 1, stride)]


def white_shares(view: Scaled, coarse: Scaled, tile: int, stride: int) -> dict[tuple[int, int], float]:
    """The share of each whole patch whose grey value is above 200, the limit of the tissue papers.

    Args:
        view: the slide as patches are cut.
        coarse: the slide at a larger mpp, on which white is measured.
        tile: side of a patch in ``view``.
        stride: step between patches.

    Returns:
        The share in 0..1 by place, as :func:`places` has them.
    """
    step = view.scale / coarse.scale
    side = max(1, round(tile * step))
    shares, row, white = {}, -1, np.zeros((side, 0), np.bool_)
    for y, x in places(view, tile, stride):
        if y != row:
            strip = coarse.read(round(y * step), 0, side, max(side, coarse.size[1]))
            row, white = y, cv2.cvtColor(strip, cv2.COLOR_RGB2GRAY) > WHITE
        left = round(x * step)
        shares[y, x] = float(white[:, left : left + side].mean())
    return shares


def write_patch(folder: Path, row: Row, pixels: Array, mask: Array | None, classes: Classes) -> None:
    """Write the files that a row names."""
    files = [(row.image, png_bytes(pixels))]
    if mask is not None:
        files.append((row.mask, png_bytes(mask, classes)))
    for name, content in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
