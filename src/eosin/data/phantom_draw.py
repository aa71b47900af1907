"""Draw one field of H&E tissue: regions first (they are the mask), then fibres, cells and debris, then the stains.

Everything is drawn at 0.5 um per pixel as two amounts, haematoxylin and eosin (and a third for red blood cells), and
becomes colour only at the end, by Beer-Lambert: ``I = I0 * exp(-amounts @ stain vectors)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from eosin.data.phantom_cells import populate
from eosin.data.phantom_look import (
    GLASS,
    LYMPHOCYTES,
    NECROSIS,
    STROMA,
    TUMOUR,
    Bytes,
    Canvas,
    Floats,
    Look,
    noise,
    shift,
)


def regions(
    rng: np.random.Generator, shape: tuple[int, int], cell: float, shares: NDArray[np.float64], edge: bool = True
) -> tuple[Bytes, Bytes]:
    """Draw the class map: Voronoi cells of about ``cell`` pixels, their walls bent by noise; at times glass at an edge.

    Without ``edge`` the tissue fills the field.

    Returns:
        The class of every pixel, 0..3, and the mask, which is the same with 255 where there is no tissue.
    """
    height, width = shape
    margin = int(cell)
    rows, columns = int((height + 2 * margin) / cell) + 1, int((width + 2 * margin) / cell) + 1
    grid = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1).reshape(-1, 2)
    seeds = np.minimum((grid + rng.uniform(0, 1, grid.shape)) * cell, [height + 2 * margin - 1, width + 2 * margin - 1])
    seeds = seeds.astype(np.int64)
    kinds = rng.choice(4, len(seeds), p=shares).astype(np.uint8)
    field = np.ones((height + 2 * margin, width + 2 * margin), np.uint8)
    field[seeds[:, 0], seeds[:, 1]] = 0
    _, nearest = cv2.distanceTransformWithLabels(field, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    kind_of = np.zeros(len(seeds) + 1, np.uint8)
    kind_of[nearest[seeds[:, 0], seeds[:, 1]]] = kinds
    voronoi = kind_of[nearest]
    bend = [
        0.22 * cell * noise(rng, shape, 0.55 * cell)
        + 0.05 * cell * noise(rng, shape, 0.16 * cell)
        + 1.0 * noise(rng, shape, 7)
        + margin
        for _ in range(2)
    ]
    kind = shift(voronoi, bend[0], bend[1], cv2.INTER_NEAREST)
    mask = kind.copy()
    if edge and rng.uniform() < 0.5:  # the edge of the tissue: a line across one side, roughened
        angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0.03, 0.3)
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        along = np.cos(angle) * x + np.sin(angle) * y
        low, high = float(along.min()), float(along.max())
        rough = 14 * noise(rng, shape, 60) + 3 * noise(rng, shape, 18) + 0.8 * noise(rng, shape, 7)
        mask[along + rough < low + depth * min(high - low, 1.3 * min(shape))] = GLASS
    return kind, mask


def streaks(grain: Floats, dx: Floats, dy: Floats, steps: Sequence[float]) -> Floats:
    """Smear ``grain`` along the unit field ``(dx, dy)``, a step after the other, so that streaks follow its curves."""
    for step in steps:
        grain = (shift(grain, step * dx, step * dy) + shift(grain, -step * dx, -step * dy)) / 2
    return np.asarray((grain - grain.mean()) / (grain.std() + 1e-6), np.float32)


def fibres(rng: np.random.Generator, stroma: Floats) -> Floats:
    """Direction of the collagen in radians: a smooth wave that turns to run along the borders of the stroma.

    Directions are averaged as doubled angles, where a line and its reverse are the same.
    """
    shape = (stroma.shape[0], stroma.shape[1])
    small = cv2.GaussianBlur(cv2.resize(stroma, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA), (0, 0), 4)
    gx, gy = cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1)
    free = 2 * (rng.uniform(0, np.pi) + 0.6 * noise(rng, (small.shape[0], small.shape[1]), 32))
    doubled = np.arctan2(np.sin(free) - 24 * gx * gy, np.cos(free) + 12 * (gy * gy - gx * gx))
    waves = cv2.resize(np.stack([np.cos(doubled), np.sin(doubled)], -1), (shape[1], shape[0]))
    return np.asarray(np.arctan2(waves[..., 1], waves[..., 0]) / 2 + 0.2 * noise(rng, shape, 22), np.float32)


def ground(rng: np.random.Generator, kind: Bytes, look: Look) -> Canvas:
    """Lay what is between the nuclei: collagen, cytoplasm, smudged necrosis."""
    shape = (kind.shape[0], kind.shape[1])
    weights = [cv2.GaussianBlur((kind == k).astype(np.float32), (0, 0), 1.2) for k in range(4)]
    angle = fibres(rng, weights[STROMA])
    dx, dy = np.cos(angle), np.sin(angle)
    fine = streaks(noise(rng, shape, 1.5), dx, dy, (1, 2, 3, 4, 4))
    bundle = streaks(noise(rng, shape, 6), dx, dy, (3, 5, 7, 9, 9))
    coarse, middle, grain = noise(rng, shape, 40), noise(rng, shape, 9), noise(rng, shape, 2.2)
    dust = noise(rng, shape, 1.3)
    cleft = np.clip(1.7 * (bundle - 1.0 + 0.25 * coarse), 0, 1)
    collagen = np.clip(0.60 + 0.17 * np.tanh(1.5 * bundle) + 0.10 * fine + 0.07 * coarse, 0.12, 1.4)
    collagen *= 1 - 0.8 * cleft
    eosin = weights[STROMA] * collagen
    haematoxylin = weights[STROMA] * np.clip(0.07 + 0.04 * middle + 0.03 * fine, 0, 1) * (1 - cleft)
    eosin += weights[TUMOUR] * np.clip(0.42 + 0.08 * coarse + 0.06 * middle + 0.05 * grain, 0.1, 1.2)
    haematoxylin += weights[TUMOUR] * np.clip(0.30 + 0.08 * coarse + 0.05 * middle + 0.05 * dust, 0, 1)
    eosin += weights[LYMPHOCYTES] * np.clip(0.34 + 0.12 * middle + 0.08 * fine, 0.05, 1.2)
    haematoxylin += weights[LYMPHOCYTES] * np.clip(0.17 + 0.10 * middle + 0.04 * grain, 0, 1)
    eosin += weights[NECROSIS] * np.clip(0.74 + 0.12 * coarse + 0.13 * middle + 0.08 * grain + 0.04 * dust, 0.1, 1.4)
    smudge = np.clip(0.12 + 0.08 * coarse + 0.09 * middle + 0.06 * grain, 0, 1)
    haematoxylin += weights[NECROSIS] * look.dusty * smudge
    return Canvas(haematoxylin, eosin, np.zeros(shape, np.float32), dx, dy)


def draw_field(
    rng: np.random.Generator, height: int, width: int, look: Look, cell: float, edge: bool = True
) -> tuple[Floats, Bytes]:
    """Draw a field at 0.5 um per pixel; with ``edge`` the empty slide may show at one side.

    Returns:
        float32 ``[H, W, 3]`` RGB in 0..255 without sensor noise, the mask uint8 ``[H, W]`` (0..3, 255 = glass).
    """
    kind, mask = regions(rng, (height, width), cell, look.shares, edge)
    canvas = ground(rng, kind, look)
    populate(rng, kind, canvas, look)
    thickness = 1 + 0.07 * noise(rng, (height, width), 150) + 0.03 * noise(rng, (height, width), 25)
    tissue = cv2.GaussianBlur((mask != GLASS).astype(np.float32), (0, 0), 0.8) * thickness
    amounts = np.stack([canvas.haematoxylin, canvas.eosin, canvas.blood], -1) * tissue[..., None]
    density = amounts @ (look.amounts[:, None] * look.vectors).astype(np.float32)
    rgb = np.exp(-density) * look.white.astype(np.float32)
    return cv2.GaussianBlur(rgb, (0, 0), look.blur), mask
