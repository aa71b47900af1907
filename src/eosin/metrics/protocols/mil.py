"""How IKD-MIL, SA-MIL and Swin-MIL score patches, and what a reader should be told beside it."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from eosin.core.classes import Classes
from eosin.core.errors import WrongUse
from eosin.metrics import scores
from eosin.metrics.boundary import hausdorff
from eosin.metrics.protocols.base import Indices, Measure, Probabilities, Strict, checked_maps
from eosin.metrics.protocols.entries import MilEntry, MilScores, Subject, known
from eosin.metrics.protocols.tissue import need_two

SIGMA = 3  # px; in the released code, not in the paper
THRESHOLD = 0.5
RANK = (3, 5)  # 0.6 of the last position: OpenCV's default, as a fraction so that no rounding decides


class MilPatch(Strict):
    """As the tables of IKD-MIL: means over patches of two classes, as released and as it should be, side by side.

    The map of class 1, the positive one, is smoothed and cut at 0.5. Released F1 and IoU are those of class 1 on
    patches whose truth has any of it, and those of class 0 on the others, averaged together; the released "HD" is
    ``vertex_distance``. The paper's patches have 256 x 256 px, and distances depend on that.

    Raises:
        WrongUse: if there are not exactly two classes.
    """

    name = "mil-patch"

    def __init__(self, classes: Classes) -> None:
        super().__init__(classes)
        need_two(classes, self.name)

    def prepare(self, probabilities: Probabilities, truth: Indices | None = None) -> Tensor:
        """Smooth the positive map by a Gaussian of 3 px and cut it at 0.5: ``[2, H, W]`` to uint8 ``[H, W]``.

        Raises:
            EosinError: if a probability is NaN, or there are not two maps of one image.
        """
        maps = checked_maps(probabilities, len(self.classes), batches=False)
        smooth = gaussian_filter(maps[1].float().cpu().numpy(), sigma=SIGMA)
        return torch.from_numpy((smooth >= THRESHOLD).astype(np.uint8)).to(maps.device)

    def measure(self, prediction: Indices, truth: Indices) -> Measure | None:
        """Judge one patch.

        Args:
            prediction: class indices ``[H, W]``.
            truth: likewise; ignored pixels are left out, in distances as if both were negative there.

        Returns:
            ``positive`` (1 or 0); ``f1`` and ``iou`` of class 1 on a positive patch and of class 0 on a negative one;
            on a positive one also ``vertex`` (the released "HD"), ``hd`` and ``hd95`` in px, and ``empty`` (1 or 0):
            without a predicted pixel, hd and hd95 are the diagonal of the patch. None if all pixels are ignored.
        """
        predicted, true = np.asarray(prediction) == 1, np.asarray(truth)
        if (true == self.classes.ignore).all():
            return None
        predicted, true = predicted & (true != self.classes.ignore), true == 1
        matrix, positive = self.count(prediction, truth), int(true.any())
        found: Measure = {
            "positive": positive,
            "f1": float(scores.dice(matrix)[positive]),
            "iou": float(scores.iou(matrix)[positive]),
        }
        if not positive:
            return found
        hd, hd95 = hausdorff(predicted, true)
        vertex, empty = vertex_distance(predicted, true), int(not predicted.any())
        return {**found, "vertex": vertex, "hd": hd, "hd95": hd95, "empty": empty}

    def score_entry(
        self,
        subject: Subject,
        counts: NDArray[Any],
        patients: Sequence[str] | NDArray[Any],
        measures: Sequence[Measure | None] = (),
    ) -> MilEntry:
        """Build the object of ``scores.json``, with ``mil_patch``.

        Raises:
            EosinError: if no image was counted.
            WrongUse: if there are not as many measures as counted images.
        """
        entry = super().score_entry(subject, counts, patients)
        if len(measures) != len(counts):
            raise WrongUse(f"{self.name}: {len(counts)} patches were counted, {len(measures)} measured; measure each")
        judged = [measure for measure in measures if measure is not None]
        return {**entry, "mil_patch": _summary(judged, entry["iou"][self.classes.names[1]])}


def vertex_distance(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """What the released code calls the Hausdorff distance; it is none.

    OpenCV's extractor looks, in each direction, at one contour vertex only: the one at position ``int(0.6 (N - 1))`` in
    the order of extraction. Its distance to the nearest vertex of the other mask is taken, and the larger of both
    directions. Vertices are those of all contours, outer and inner, without the points on straight lines.

    Args:
        prediction: ``[H, W]``; if it is empty its only vertex is the corner (0, 0).
        truth: likewise.

    Returns:
        The distance in px.
    """
    ours, theirs = _vertices(prediction), _vertices(truth)
    return max(_from_one(ours, theirs), _from_one(theirs, ours))


def _vertices(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """All contour vertices ``[N, 2]``, in OpenCV's order: contours from the bottom up."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return np.zeros((1, 2), np.int32)
    return np.concatenate(contours).reshape(-1, 2).astype(np.int32)


def _from_one(here: NDArray[np.int32], there: NDArray[np.int32]) -> float:
    times, of = RANK
    vertex = here[times * (len(here) - 1) // of]
    return float(np.hypot(*(there - vertex).T).min())


def _summary(measures: Sequence[Measure], dataset_iou: float | None) -> MilScores:
    positives = [m for m in measures if m["positive"]]
    negatives = [m for m in measures if not m["positive"]]
    # As released: divided by half of all patches, which is the mean only if half of them are positive.
    released_hd = 2 * sum(m["vertex"] for m in positives) / len(measures) if positives else None
    return {
        "released": {"f1": _mean(measures, "f1"), "iou": _mean(measures, "iou"), "hd": released_hd},
        "honest": {
            "f1": _mean(positives, "f1"),
            "iou": _mean(positives, "iou"),
            # All of a negative patch is true class 0, so its IoU is the share that is not called positive.
            "specificity": _mean(negatives, "iou"),
            "dataset_iou": dataset_iou,
            "hd": _mean(positives, "hd"),
            "hd95": _mean(positives, "hd95"),
            "positives": len(positives),
            "negatives": len(negatives),
            "empty": sum(int(m["empty"]) for m in positives),
        },
    }


def _mean(measures: Sequence[Measure], key: str) -> float | None:
    return known(np.mean([m[key] for m in measures]) if measures else nan)
