"""What the outcome needs to know of a slide beside its prediction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eosin.slides.slide import PixelSize


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A slide as it was predicted. Coordinates begin at the top left of what QuPath shows.

    Attributes:
        name: as results call it.
        size: rows and columns at full resolution.
        scale: full-resolution pixels per pixel of the prediction.
        mpp: micrometres per pixel of the prediction.
        pixel_size: at full resolution, and where that is known from.
        thumbnail: the whole slide, uint8 ``[H, W, 3]`` RGB.
        thumbnail_scale: full-resolution pixels per pixel of the thumbnail.
        measured: of tiles with tissue, ``[N, 4]``, as ``eosin.wsi.domain.measure`` gives it.
    """

    name: str
    size: tuple[int, int]
    scale: float
    mpp: float
    pixel_size: PixelSize
    thumbnail: NDArray[np.uint8]
    thumbnail_scale: float
    measured: NDArray[np.float64]
