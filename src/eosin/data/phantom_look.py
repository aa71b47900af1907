"""What the files that draw tissue share: the patient's look, the canvas of dye amounts, smooth noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

TUMOUR, STROMA, LYMPHOCYTES, NECROSIS = range(4)
GLASS = 255
# Optical density of haematoxylin, eosin and haemoglobin in R, G, B; the first two lie between the values of
# Ruifrok and Johnston 2001 and of Macenko et al. 2009.
VECTORS = np.array([[0.60, 0.72, 0.34], [0.17, 0.86, 0.47], [0.10, 0.74, 0.66]])
# How much patients of a laboratory vary: densities, and the logarithm of what is taken up; laboratories vary thrice so.
_DENSITIES_VARY, _AMOUNTS_VARY, _APART = 0.03, np.array([0.11, 0.13, 0.08]), 3.0


@dataclass(frozen=True, slots=True)
class Look:
    """How the tissue and the laboratory of one patient look; drawn once a patient.

    Attributes:
        vectors: float64 ``[3, 3]``, unit optical density of haematoxylin, eosin and haemoglobin in R, G, B.
        amounts: float64 ``[3]``, how strongly each is taken up, about 1.
        white: float64 ``[3]``, colour of the empty slide, 0..255.
        blur: standard deviation of the optical blur in pixels.
        grade: 0 (regular nuclei) to 1 (pleomorphic).
        glands: share of roomy tumour places that hold a gland.
        inflamed: stray lymphocytes outside their aggregates, about 1.
        dusty: how basophilic necrosis is, about 1.
        cellular: how cellular the stroma is, about 1.
        shares: float64 ``[4]``, share of each class in the tissue.
    """

    vectors: NDArray[np.float64]
    amounts: NDArray[np.float64]
    white: NDArray[np.float64]
    blur: float
    grade: float
    glands: float
    inflamed: float
    dusty: float
    cellular: float
    shares: NDArray[np.float64]


def dyes(laboratory: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A laboratory's dyes: optical densities ``[3, 3]``, and how strongly each is taken up ``[3]``; 0 has the usual."""
    if laboratory == 0:
        return VECTORS, np.ones(3)
    rng = np.random.default_rng(laboratory)
    vectors = VECTORS + _APART * _DENSITIES_VARY * rng.standard_normal((3, 3))
    return vectors, np.exp(_APART * _AMOUNTS_VARY * rng.standard_normal(3))


def draw_look(rng: np.random.Generator, stain: float, shares: NDArray[np.float64], laboratory: int = 0) -> Look:
    """Draw a patient of a laboratory.

    Args:
        rng: of the patient.
        stain: strength of the variation of the staining between patients.
        shares: float64 ``[4]``, the usual share of each class.
        laboratory: whose dyes are used.
    """
    densities, strength = dyes(laboratory)
    vectors = densities + stain * _DENSITIES_VARY * rng.standard_normal((3, 3))
    vectors = np.clip(vectors, 0.02, None)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    tilt = np.exp(0.25 * rng.standard_normal(4)) * shares
    return Look(
        vectors=vectors,
        amounts=strength * np.exp(stain * _AMOUNTS_VARY * rng.standard_normal(3)),
        white=np.array([243.0, 240.0, 244.0]) + stain * rng.normal(0, [2.0, 2.5, 2.0]),
        blur=float(rng.uniform(0.45, 0.8)),
        grade=float(rng.uniform(0, 1)),
        glands=float(rng.choice([0.1, 0.5, 0.9])),
        inflamed=float(np.exp(0.5 * rng.standard_normal())),
        dusty=float(np.exp(0.4 * rng.standard_normal())),
        cellular=float(np.exp(0.3 * rng.standard_normal())),
        shares=tilt / tilt.sum(),
    )


def noise(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> Floats:
    """Smooth Gaussian noise, mean 0 and standard deviation 1, with features of about ``scale`` pixels."""
    rows, columns = (int(np.ceil(s / scale)) + 4 for s in shape)
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    if scale <= 1:
        return coarse[: shape[0], : shape[1]]
    size = (round(columns * scale), round(rows * scale))
    y, x = rng.integers(0, max(1, int(scale)), 2)
    smooth = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)[y : y + shape[0], x : x + shape[1]]
    return np.asarray(smooth / 0.73, np.float32)  # bicubic interpolation of white noise keeps 0.73 of its deviation


def shift(image: Any, dx: Floats, dy: Floats, mode: int = cv2.INTER_LINEAR) -> Any:
    """Read ``image`` at each pixel's place plus ``(dx, dy)``; beyond the border it is mirrored."""
    height, width = dx.shape
    x = np.arange(width, dtype=np.float32)[None, :] + dx
    y = np.arange(height, dtype=np.float32)[:, None] + dy
    return cv2.remap(image, x, y, mode, borderMode=cv2.BORDER_REFLECT_101)


@dataclass(slots=True)
class Canvas:
    """Amounts of haematoxylin, eosin and haemoglobin, each float32 ``[H, W]``, and the direction of the fibres."""

    haematoxylin: Floats
    eosin: Floats
    blood: Floats
    dx: Floats
    dy: Floats
