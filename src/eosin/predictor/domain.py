"""What the tiles a model was trained on look like: how strongly they are stained, and how sharp they are."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Pixels = NDArray[np.uint8]
Values = NDArray[np.float64]

STAINED = 0.15
"""Optical density in any channel from which on a pixel counts as tissue (beta of Macenko et al., ISBI 2009)."""

_LEAST = 0.05  # share of tissue below which a tile is not judged
_DENSITY = -np.log10((np.arange(256) + 1) / 256)


class Spread(BaseModel):
    """Mean and standard deviation of a quantity over tiles."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    sd: float = Field(ge=0)


class Domain(BaseModel):
    """The look of training tiles, each quantity measured over the tissue of a tile as :func:`measure` does.

    Attributes:
        red: mean optical density of the red channel.
        green: of the green channel.
        blue: of the blue channel.
        blur: logarithm of the variance of the Laplacian; low is blurred.
        mpp: micrometres per pixel, one for all tiles; None where it was not known.
        tiles: how many were measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    red: Spread
    green: Spread
    blue: Spread
    blur: Spread
    mpp: float | None = Field(default=None, gt=0)
    tiles: int = Field(ge=2)


QUANTITIES = ("red", "green", "blue", "blur")
"""The columns of what :func:`measure` gives."""


def measure(tiles: Pixels) -> Values:
    """Measure the stain and the sharpness of tiles.

    The optical density of a value ``v`` is ``-log10((v + 1) / 256)``; blur is ``ln(1 + variance)`` of the Laplacian
    (kernel 0 1 0, 1 -4 1, 0 1 0) of the grey image. Both are taken over the pixels of tissue alone: those with a
    density of at least 0.15 in any channel.

    Args:
        tiles: uint8 ``[N, H, W, 3]``, RGB.

    Returns:
        float64 ``[N, 4]``: mean densities of red, green and blue, and blur; NaN for a tile with less than 5 % tissue.
    """
    found = np.full((len(tiles), len(QUANTITIES)), np.nan)
    for row, tile in zip(found, tiles, strict=True):
        density = _DENSITY[tile]
        tissue = density.max(2) >= STAINED
        if tissue.mean() >= _LEAST:
            laplacian = cv2.Laplacian(cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY), cv2.CV_64F)
            row[:3], row[3] = density[tissue].mean(0), np.log1p(laplacian[tissue].var())
    return found


def domain_of(measured: Values, mpp: float | None) -> Domain | None:
    """Sum up the training tiles.

    Args:
        measured: ``[N, 4]``, as :func:`measure` gives it.
        mpp: micrometres per pixel of the tiles, or None.

    Returns:
        Means and standard deviations, rounded to six digits after the point; None if fewer than two tiles have tissue.
    """
    rows = measured[~np.isnan(measured).any(1)]
    if len(rows) < 2:
        return None
    mean, sd = rows.mean(0).round(6).tolist(), rows.std(0).round(6).tolist()
    red, green, blue, blur = (Spread(mean=m, sd=s) for m, s in zip(mean, sd, strict=True))
    return Domain(red=red, green=green, blue=blue, blur=blur, mpp=mpp, tiles=len(rows))
