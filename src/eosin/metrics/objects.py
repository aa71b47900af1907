"""Scores of single objects, as the GlaS contest ranked them: were the glands found, and how well is each outlined?

Definitions: K. Sirinukunwattana et al., Medical Image Analysis 35 (2017), "Evaluation", and the evaluation page of the
contest. Nothing is done to a prediction before it is judged: no hole is filled and no small object removed. Published
entries often did both; what is below which size is then a choice that was made by a look at truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from eosin.core.errors import EosinError
from eosin.metrics.boundary import Mask, distance_to
from eosin.metrics.scores import Floats

Labels = NDArray[np.int32]
Counts = NDArray[np.int64]


class ObjectScores(TypedDict):
    """What ``scores.json`` says of objects.

    ``f1`` and ``dice`` are in 0..1, ``hausdorff`` is in px and ``hausdorff_um`` in µm; None where there is no object
    at all or no mpp. ``truth`` and ``predicted`` count objects.
    """

    f1: float | None
    dice: float | None
    hausdorff: float | None
    hausdorff_um: float | None
    truth: int
    predicted: int
    images: int


class ObjectTally:
    """Collects objects image by image; everything is pooled over the images, as the contest's formulas are.

    The contest's sums run over the objects of all images of a test part and weigh each by its share of the area of all,
    so an image with more tissue counts more, and one without an object counts nothing. A mean of scores of single
    images, as often reported, is another number.

    - **F1** of TP, FP and FN. The partner of a predicted object is the true object it overlaps most. It is a TP if it
      covers at least half of its partner, else an FP; a true object which no TP has as its partner is an FN. (The
      contest's script wants *more* than half, its text at least half; we follow the text.)
    - **Dice** = 1/2 [sum of w_i Dice(S_i, its partner) over predicted objects + the same over true ones], w = share of
      the area of that side; an object that overlaps none adds 0.
    - **Hausdorff**, the same sum of distances between *all* pixels of the pair (the outline alone is judged in
      ``boundary``). The partner of an object that overlaps none is the nearest in this distance.

    Of equal overlaps the first object wins. The contest gives no distance where one side of an image has no object: it
    is then the diagonal of the image, as in ``boundary``. A side without an object in all of the images has no area to
    weigh by, and the other side alone is the score: Dice 0 as in the contest's script, a distance of diagonals.
    """

    def __init__(self, mpp: float | None) -> None:
        """Start with no image; ``mpp`` is in µm per px, None where it is unknown."""
        self._mpp = mpp
        self._hits = self._wrong = self._missed = 0
        self._truth = self._predicted = self._images = 0
        # Sums over the objects of a side (row 0 predicted, row 1 true): area, area * Dice, area * distance
        self._sums = np.zeros((2, 3), np.float64)

    def add(self, prediction: Mask, objects: NDArray[np.uint8]) -> None:
        """Count one image.

        Args:
            prediction: ``[H, W]``, true where the class is predicted; its objects are the 8-connected pieces.
            objects: ``[H, W]``, 0 outside, 1..255 one number per object, which need not be in one piece.

        Raises:
            EosinError: if the maps differ in shape.
        """
        if prediction.shape != objects.shape or objects.ndim != 2:
            raise EosinError(f"prediction {prediction.shape} and objects {objects.shape} must both be [H, W]")
        _, pieces = cv2.connectedComponents(prediction.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
        pair = _Pair(np.asarray(pieces, np.int32), _renumbered(objects))
        self._images += 1
        self._predicted += pair.shape[0]
        self._truth += pair.shape[1]
        hits, found = pair.found()
        self._hits += hits
        self._wrong += pair.shape[0] - hits
        self._missed += pair.shape[1] - found
        self._sums += [_side(pair), _side(pair.swapped())]

    def entry(self) -> ObjectScores:
        """Say the scores of all images so far."""
        sides = self._sums[self._sums[:, 0] > 0]
        known = len(sides) > 0
        dice, distance = (sides[:, 1:] / sides[:, :1]).mean(0).tolist() if known else (None, None)
        return {
            "f1": 2 * self._hits / (2 * self._hits + self._wrong + self._missed) if known else None,
            "dice": dice,
            "hausdorff": distance,
            "hausdorff_um": None if distance is None or self._mpp is None else distance * self._mpp,
            "truth": self._truth,
            "predicted": self._predicted,
            "images": self._images,
        }


class _Pair:
    """Two maps of numbered objects of one image.

    Attributes:
        shape: how many objects each map holds, P and G.
        areas: px of each object of the first map, int64 ``[P]``.
        partners: for each of them the object of the second map it overlaps most, ``[P]``; 0 if G is 0.
        shared: how many px that overlap has, ``[P]``.
        partner_areas: px of the partners, ``[P]``.
    """

    def __init__(self, first: Labels, second: Labels) -> None:
        self._maps = first, second
        self._boxes = _boxes(first), _boxes(second)
        self.shape = len(self._boxes[0]), len(self._boxes[1])
        rows, columns = self.shape[0] + 1, self.shape[1] + 1
        cells = np.bincount((first.astype(np.int64) * columns + second).ravel(), minlength=rows * columns)
        table = cells.reshape(rows, columns)  # row and column 0 are outside
        self.areas: Counts = table[1:].sum(1)
        if self.shape[1]:
            overlaps = table[1:, 1:]
            self.partners = overlaps.argmax(1)
            self.shared: Counts = overlaps.max(1)
            self.partner_areas: Counts = table[:, 1:].sum(0)[self.partners]
        else:
            self.partners = self.shared = self.partner_areas = np.zeros_like(self.areas)

    def swapped(self) -> _Pair:
        """The same with the maps in the other order."""
        return _Pair(self._maps[1], self._maps[0])

    def found(self) -> tuple[int, int]:
        """How many of the first objects cover half of their partner, and how many partners these have."""
        hits = (self.shared > 0) & (2 * self.shared >= self.partner_areas)
        return int(hits.sum()), len(np.unique(self.partners[hits]))

    def distances(self) -> Floats:
        """Hausdorff distance in px of each first object to its partner, else to the nearest object: ``[P]``."""
        if not self.shape[1]:
            return np.full(self.shape[0], math.hypot(*self._maps[0].shape))
        return np.array([self._distance_of(one) for one in range(self.shape[0])], np.float64)

    def _distance_of(self, one: int) -> float:
        if self.shared[one]:
            return self._distance(one, int(self.partners[one]))
        # Two objects are at least as far apart as a side of the box of one is from the same side of the other's
        bounds = np.abs(self._boxes[1] - self._boxes[0][one]).max(1)
        return _smallest(lambda other: self._distance(one, other), bounds)

    def _distance(self, one: int, other: int) -> float:
        """Hausdorff distance between all pixels of two objects, within the box around both."""
        boxes = np.stack([self._boxes[0][one], self._boxes[1][other]])
        (top, left), (bottom, right) = boxes[:, :2].min(0), boxes[:, 2:].max(0)
        a = self._maps[0][top:bottom, left:right] == one + 1
        b = self._maps[1][top:bottom, left:right] == other + 1
        return float(max(distance_to(b)[a].max(), distance_to(a)[b].max()))


def _side(pair: _Pair) -> Floats:
    """Area, area * Dice and area * distance, summed over the first objects: float64 ``[3]``."""
    dice = 2 * pair.shared / (pair.areas + pair.partner_areas)
    return np.array([pair.areas.sum(), pair.areas @ dice, pair.areas @ pair.distances()], np.float64)


def _smallest(distance: Callable[[int], float], bounds: NDArray[Any]) -> float:
    """The smallest distance. Each is at least its bound, so that only few need to be computed."""
    best = math.inf
    for other in np.argsort(bounds, kind="stable"):
        if bounds[other] >= best:
            break
        best = min(best, distance(int(other)))
    return best


def _renumbered(objects: NDArray[np.uint8]) -> Labels:
    """The same objects with numbers 1, 2, … without gaps."""
    numbers = np.zeros(256, np.int32)
    used = np.flatnonzero(np.bincount(objects.ravel(), minlength=256)[1:]) + 1
    numbers[used] = np.arange(1, len(used) + 1)
    return numbers[objects]


def _boxes(labels: Labels) -> NDArray[np.int64]:
    """Top, left, bottom and right of each object (the ends are not of it): int64 ``[n, 4]``."""
    found = [(rows.start, columns.start, rows.stop, columns.stop) for rows, columns in ndimage.find_objects(labels)]
    return np.array(found, np.int64).reshape(-1, 4)
