"""How far the outlines of a class lie apart: Hausdorff distance, HD95, and IoU of a narrow band along the outline.

Confusion matrices hardly notice an outline that is off by a few pixels; these scores look at nothing else.
"""

from __future__ import annotations

import math
from typing import Any, TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from eosin.core.classes import Classes
from eosin.core.errors import EosinError
from eosin.metrics.scores import Floats, mean_known

WIDTH = 2  # px of the band of boundary IoU
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
BAND = np.ones((2 * WIDTH + 1, 2 * WIDTH + 1), np.uint8)

Mask = NDArray[np.bool_]
ByClass = dict[str, float | None]  # None = the class does not occur


class BoundaryScores(TypedDict):
    """What ``scores.json`` says of outlines; distances are means over the images whose truth holds the class.

    ``iou`` and ``miou`` are in 0..1, ``hd`` and ``hd95`` in px, ``hd_um`` and ``hd95_um`` in µm (None where the data
    set has no mpp). ``images`` counts the images behind a distance, ``empty`` those of them without any prediction.
    """

    width_px: int
    iou: ByClass
    miou: float | None
    hd: ByClass
    hd95: ByClass
    hd_um: ByClass | None
    hd95_um: ByClass | None
    images: dict[str, int]
    empty: dict[str, int]


class BoundaryTally:
    """Collects outlines image by image.

    Pixels whose truth is ignored belong to no class in both maps. Boundary IoU (Cheng et al., CVPR 2021, equation 2)
    compares the pixels of a class that lie within 2 px of its contour; intersections and unions are pooled over the
    images, as the confusion matrix is, and a class that occurs in neither map has no score. Distances are averaged over
    images whose truth holds the class: elsewhere there is nothing to be far from.
    """

    def __init__(self, classes: Classes, mpp: float | None) -> None:
        """Start with no image; ``mpp`` is in µm per px, None where it is unknown."""
        self._classes = classes
        self._mpp = mpp
        self._shared, self._joined, self._images, self._empty = np.zeros((4, len(classes)), np.int64)
        self._distances = np.zeros((2, len(classes)), np.float64)  # sums of HD and of HD95

    def add(self, prediction: NDArray[Any], truth: NDArray[Any]) -> None:
        """Count one image.

        Args:
            prediction: class indices ``[H, W]``.
            truth: class indices or ``classes.ignore``, ``[H, W]``.

        Raises:
            EosinError: if the maps differ in shape or are not two-dimensional.
        """
        if prediction.shape != truth.shape or truth.ndim != 2:
            raise EosinError(f"prediction {prediction.shape} and truth {truth.shape} must both be [H, W]")
        kept = truth != self._classes.ignore
        for k in range(len(self._classes)):
            predicted, true = (prediction == k) & kept, truth == k
            occurs, found = bool(true.any()), bool(predicted.any())
            if occurs or found:
                band, true_band = _rim(predicted, BAND), _rim(true, BAND)
                self._shared[k] += np.count_nonzero(band & true_band)
                self._joined[k] += np.count_nonzero(band | true_band)
            if occurs:
                self._distances[:, k] += hausdorff(predicted, true)
                self._images[k] += 1
                self._empty[k] += not found

    def entry(self) -> BoundaryScores:
        """Say the scores of all images so far."""
        iou = self._shared / _known(self._joined)
        hd, hd95 = self._distances / _known(self._images)
        scale = self._mpp
        return {
            "width_px": WIDTH,
            "iou": self._by_class(iou),
            "miou": float(mean_known(iou)) if self._joined.any() else None,
            "hd": self._by_class(hd),
            "hd95": self._by_class(hd95),
            "hd_um": None if scale is None else self._by_class(hd * scale),
            "hd95_um": None if scale is None else self._by_class(hd95 * scale),
            "images": dict(zip(self._classes.names, self._images.tolist(), strict=True)),
            "empty": dict(zip(self._classes.names, self._empty.tolist(), strict=True)),
        }

    def _by_class(self, values: Floats) -> ByClass:
        known = [None if math.isnan(value) else float(value) for value in values]
        return dict(zip(self._classes.names, known, strict=True))


def hausdorff(a: Mask, b: Mask) -> tuple[float, float]:
    """Hausdorff distance and HD95 between the boundary pixels of two masks; both are symmetric.

    A boundary pixel is a pixel of the mask with a 4-neighbour that is not of it; what lies outside of the image is not.
    HD is the larger one of the two directed maxima, HD95 the larger one of the two directed 95th percentiles
    (interpolated linearly) of the distances to the nearest boundary pixel of the other mask.

    Args:
        a: ``[H, W]``.
        b: ``[H, W]``.

    Returns:
        HD and HD95 in px. Where one mask is empty, both are the diagonal of the image, sqrt(H^2 + W^2); 0 where both
        are.
    """
    if not a.any() or not b.any():
        far = 0.0 if a.any() == b.any() else math.hypot(*a.shape)
        return far, far
    outline_a, outline_b = _rim(a, CROSS), _rim(b, CROSS)
    there, back = distance_to(outline_b)[outline_a], distance_to(outline_a)[outline_b]
    return (
        float(max(there.max(), back.max())),
        float(max(np.percentile(there, 95), np.percentile(back, 95))),
    )


def distance_to(mask: Mask) -> Floats:
    """Euclidean distance in px of every pixel to the nearest pixel of a mask that is not empty: ``[H, W]``.

    Not by OpenCV, which is faster but rounds to float32, not always in the same way: scores of one model would differ.
    """
    distances: Floats = distance_transform_edt(~mask)
    return distances


def _rim(mask: Mask, reach: NDArray[np.uint8]) -> Mask:
    """The pixels of a mask from which ``reach`` leaves the mask or the image.

    With the square of 5 x 5 these are the pixels within 2 px of the contour, as Cheng et al. compute them: squares, and
    the image border counts as contour.
    """
    inner = cv2.erode(mask.view(np.uint8), reach, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(mask & (inner == 0), np.bool_)


def _known(counts: NDArray[np.int64]) -> Floats:
    """Counts to divide by, NaN instead of 0: what was never counted is unknown."""
    return np.where(counts > 0, counts, np.nan)
