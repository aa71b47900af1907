"""Paired transforms of an image and its masks: first every number is drawn, then pure functions apply them.

Randomness comes from one generator per (seed, epoch, item), so an item looks the same however many workers, processes
or restarts there were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from eosin.core.values import Augment

Image = NDArray[np.float32]
Mask = NDArray[np.uint8]

# Optical-density vectors of haematoxylin, eosin and their cross product (Ruifrok and Johnston 2001, table 1).
_STAINS = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.0, 0.0, 0.0]], np.float64)
_STAINS[2] = np.cross(_STAINS[0], _STAINS[1])
_STAINS /= np.linalg.norm(_STAINS, axis=1, keepdims=True)
_UNMIX = np.linalg.inv(_STAINS)
_DARKEST = 1.0 / 255.0


@dataclass(frozen=True, slots=True)
class Drawn:
    """The numbers of one augmentation; pixel positions are ``(y, x)``."""

    flip: tuple[bool, bool] = (False, False)
    turn: int = 0
    zoom: float = 1.0
    shift: tuple[float, float] = (0.5, 0.5)
    crop: tuple[int, int, int] | None = None
    stain: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    brightness: float = 1.0
    contrast: float = 1.0
    blur: float = 0.0


def draw(augment: Augment, rng: np.random.Generator, height: int, width: int) -> Drawn:
    """Draw the numbers for one item of ``height x width`` pixels; no setting changes what is drawn for another."""
    u = rng.random(18)
    crop = None
    if augment.crop:
        if augment.crop > min(height, width):
            raise ValueError(f"augment.crop {augment.crop} is larger than the item of {height} x {width} px")
        side = augment.crop
        crop = (int(u[2] * (height - side + 1)), int(u[3] * (width - side + 1)), side)
    stain = None
    if augment.stain:
        scale = tuple(1 + augment.stain * (2 * u[4:7] - 1))
        offset = tuple(augment.stain / 10 * (2 * u[7:10] - 1))
        stain = (scale, offset)
    square = crop is not None or height == width
    return Drawn(
        flip=(augment.flip and bool(u[0] < 0.5), augment.flip and bool(u[1] < 0.5)),
        turn=(int(u[10] * 4) if square else 2 * int(u[10] * 2)) if augment.turn else 0,
        zoom=float((1 + augment.scale) ** (2 * u[11] - 1)),
        shift=(float(u[12]), float(u[13])),
        crop=crop,
        stain=stain,
        brightness=float(1 + augment.brightness * (2 * u[14] - 1)),
        contrast=float(1 + augment.contrast * (2 * u[15] - 1)),
        blur=float(u[17] * augment.blur) if u[16] < 0.5 else 0.0,
    )


def apply(
    image: NDArray[np.uint8], masks: Mapping[str, Mask], drawn: Drawn, ignore: int = 255
) -> tuple[Image, dict[str, Mask]]:
    """Apply drawn numbers.

    Args:
        image: uint8 ``[H, W, 3]``.
        masks: uint8 ``[H, W]`` each.
        drawn: the numbers.
        ignore: mask value of pixels that come from outside the item when zooming out.

    Returns:
        The image as float32 in 0..1 and the masks, both contiguous and of equal height and width.
    """
    masks = dict(masks)
    if drawn.zoom != 1.0:
        image = _zoom(image, drawn, cv2.INTER_LINEAR, None)
        masks = {name: _zoom(mask, drawn, cv2.INTER_NEAREST, ignore) for name, mask in masks.items()}
    image = _move(image, drawn)
    pixels = image.astype(np.float32) / np.float32(255)
    if drawn.stain is not None:
        pixels = stain_jitter(pixels, *drawn.stain)
    if drawn.brightness != 1.0 or drawn.contrast != 1.0:
        mean = pixels.mean(dtype=np.float32)
        pixels = np.clip(((pixels - mean) * drawn.contrast + mean) * drawn.brightness, 0, 1).astype(np.float32)
    if drawn.blur > 0.05:
        blurred = cv2.GaussianBlur(pixels, (0, 0), drawn.blur, borderType=cv2.BORDER_REFLECT_101)
        pixels = np.minimum(blurred, 1).astype(np.float32)  # rounding lifts white a little above 1
    return np.ascontiguousarray(pixels), {
        name: np.ascontiguousarray(_move(mask, drawn)) for name, mask in masks.items()
    }


def stain_jitter(pixels: Image, scale: tuple[float, ...], offset: tuple[float, ...]) -> Image:
    """Scale and shift the amounts of haematoxylin, eosin and the rest in optical density.

    Args:
        pixels: float32 ``[H, W, 3]`` in 0..1.
        scale: factor per stain; 1 changes nothing.
        offset: added amount per stain, in optical density; 0 changes nothing.

    Returns:
        float32 ``[H, W, 3]`` in 0..1.
    """
    # Only the change of density is computed, so that no change is none to the last bit and black stays black.
    change = (_UNMIX @ np.diag(np.subtract(scale, 1)) @ _STAINS).astype(np.float32)
    shift = (np.asarray(offset) @ _STAINS).astype(np.float32)
    density = -np.log(np.maximum(pixels, np.float32(_DARKEST)))
    jittered: Image = np.clip(pixels * np.exp(-(density @ change + shift)), 0, 1).astype(np.float32)
    return jittered


def _zoom(plane: Mask, drawn: Drawn, interpolation: int, outside: int | None) -> Mask:
    height, width = plane.shape[:2]
    z = drawn.zoom
    # Zooming in looks at a drawn window; zooming out puts the item at a drawn place of its own frame.
    dx, dy = drawn.shift[1] * (width - width * z), drawn.shift[0] * (height - height * z)
    matrix = np.array([[z, 0, dx + 0.5 * z - 0.5], [0, z, dy + 0.5 * z - 0.5]], np.float64)
    border = cv2.BORDER_REFLECT_101 if outside is None else cv2.BORDER_CONSTANT
    value = 0 if outside is None else outside
    moved = cv2.warpAffine(plane, matrix, (width, height), flags=interpolation, borderMode=border, borderValue=value)
    return np.asarray(moved, np.uint8)


def _move(plane: Mask, drawn: Drawn) -> Mask:
    if drawn.crop:
        top, left, side = drawn.crop
        plane = plane[top : top + side, left : left + side]
    if drawn.flip[0]:
        plane = plane[::-1]
    if drawn.flip[1]:
        plane = plane[:, ::-1]
    return np.rot90(plane, drawn.turn) if drawn.turn else plane
