"""How papers on tissue classes and on glands score; they differ in what they do with pixels that are no tissue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosin.core.classes import Classes
from eosin.core.errors import EosinError, WrongUse
from eosin.metrics.confusion import Matrix, count_pixels
from eosin.metrics.protocols.base import Indices, Measure, Probabilities, Strict, checked_maps
from eosin.metrics.protocols.entries import BackgroundEntry, Subject

UNKNOWN = 255  # where nobody said what a pixel shows; a smaller ignore value is that of the background
NOTHING = -1  # no truth value: all pixels count


class TissueDrop(Strict):
    """As MLPS, ARML and PDSeg: tissue classes only, the truth's background is dropped (the arithmetic of strict).

    Raises:
        WrongUse: if the data set marks no background, so that there is nothing to drop and nothing to compare with.
    """

    name = "tissue-drop"

    def __init__(self, classes: Classes) -> None:
        super().__init__(classes)
        _need_background(classes, self.name)


class TissueFp(Strict):
    """As TPRO: the truth's background stays, so that tissue predicted there is a false positive.

    The matrix has a row and a column for the background behind the K classes. IoU, Dice and their means are over the
    classes; accuracy and FwIoU are over all pixels, the background's among them.

    Raises:
        WrongUse: if the data set marks no background.
    """

    name = "tissue-fp"

    def __init__(self, classes: Classes) -> None:
        super().__init__(classes)
        _need_background(classes, self.name)

    def count(self, prediction: Indices, truth: Indices) -> Matrix:
        """Count the pixels of one image, int64 ``[K + 1, K + 1]``; raises what ``count_pixels`` raises."""
        background = len(self.classes)
        predicted, true = (
            np.where(values == self.classes.ignore, background, values)
            for values in (np.asarray(prediction), np.asarray(truth))
        )
        return count_pixels(predicted, true, background + 1, NOTHING)

    def score_entry(
        self,
        subject: Subject,
        counts: NDArray[Any],
        patients: Sequence[str] | NDArray[Any],
        measures: Sequence[Measure | None] = (),
    ) -> BackgroundEntry:
        """Build the object of ``scores.json``; raises what that of every protocol raises."""
        return {**super().score_entry(subject, counts, patients, measures), "background": True}


class TissueFpTags(TissueFp):
    """As PBIP and LPD: as tissue-fp, but only classes that the image's TRUTH holds may be predicted in it.

    Raises:
        WrongUse: if the data set marks no background.
    """

    name = "tissue-fp-tags"
    uses_truth = True

    def prepare(self, probabilities: Probabilities, truth: Indices | None = None) -> Tensor:
        """Take the most probable class among those that the truth of the image holds; without any, the background.

        Args:
            probabilities: ``[K, H, W]`` of one image.
            truth: its true class indices ``[H, W]``.

        Returns:
            uint8 ``[H, W]``; the background has the data set's ignore value.

        Raises:
            EosinError: for what ``strict`` refuses, and if the truth is missing.
        """
        maps = checked_maps(probabilities, len(self.classes), batches=False)
        if truth is None:
            raise EosinError(
                f"{self.name} restricts each prediction by its truth, and an image has none; use tissue-fp"
            )
        absent = torch.as_tensor(~np.isin(np.arange(len(self.classes)), np.asarray(truth)), device=maps.device)
        if absent.all():
            return torch.full(maps.shape[1:], self.classes.ignore, dtype=torch.uint8, device=maps.device)
        return maps.masked_fill(absent[:, None, None], -torch.inf).argmax(dim=0).to(torch.uint8)


class Binary(Strict):
    """As OEEM and the gland papers: one 2x2 matrix, the rest is a class; F1 is the mean Dice of both.

    Raises:
        WrongUse: if there are not exactly two classes.
    """

    name = "binary"

    def __init__(self, classes: Classes) -> None:
        super().__init__(classes)
        need_two(classes, self.name)


def need_two(classes: Classes, protocol: str) -> None:
    """Refuse data that does not have exactly two classes.

    Raises:
        WrongUse: if so.
    """
    if len(classes) != 2:
        raise WrongUse(f"{protocol} is for two classes, not {len(classes)} ({', '.join(classes.names)}); use strict")


def _need_background(classes: Classes, protocol: str) -> None:
    if classes.ignore == UNKNOWN:
        raise WrongUse(
            f"{protocol} is for data whose masks mark a background, such as ignore: {len(classes)} in dataset.yaml; "
            "255 only says that a pixel is not known, so use strict"
        )
