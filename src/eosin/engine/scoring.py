"""Everything that is scored of one split: counts, boundaries, objects, confidence, tags."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosin.core.errors import EosinError
from eosin.data.dataset import Dataset, Items
from eosin.data.module import LabelledView
from eosin.engine.evaluate import Predict, Seen, Tiling, predicted
from eosin.metrics.boundary import BoundaryTally
from eosin.metrics.calibration import PixelSample, Reliability
from eosin.metrics.objects import ObjectTally
from eosin.metrics.protocols import Protocol, Subject, tag_scores, tags_entry
from eosin.metrics.scores import fwiou
from eosin.slides.image import png_bytes, read_mask

SCORING = 2  # raised when what is scored changes
CALIBRATED_ON = "val"  # the split that a temperature may be fitted on
COUNTS = "counts.npz"
SHOWN = 12  # items of a split in a report,
PICTURES = 96  # or fewer, so that there are not more pictures


class Scoring:
    """The scoring of one split.

    Args:
        dataset: the data.
        subject: which split, and what is scored.
        protocol: how.
        tiling: tile and margin.
        temperature: fitted before on the validation split, or None.
    """

    def __init__(
        self, dataset: Dataset, subject: Subject, protocol: Protocol, tiling: Tiling, temperature: float | None
    ) -> None:
        self.dataset, self.subject, self.protocol, self.tiling = dataset, subject, protocol, tiling
        self.items: Items = dataset.items(subject.split)
        self.truth = dataset.truth(subject.split)
        self.view = LabelledView(self.items, self.truth, dataset.classes.ignore)
        self._temperature = temperature

    def __len__(self) -> int:
        return len(self.view)

    def write(self, predict: Predict, folder: Path, done: Callable[[], None]) -> dict[str, Any] | None:
        """Write a mask per item and the counts into a folder; see ``entry``.

        On the validation split a temperature is fitted: it belongs to the model whose predictions are kept.

        Returns:
            The object of ``scores.json``, None if the split has no masks.
        """

        def keep(name: str, prediction: NDArray[np.uint8]) -> None:
            (folder / f"{name}.png").write_bytes(png_bytes(prediction, self.dataset.classes))
            done()

        index, counts, entry = self._run(predict, keep, fit=self.subject.split == CALIBRATED_ON)
        if counts is not None:
            ids, patients = self.items.ids[index], self.items.patients[index]
            np.savez_compressed(folder / COUNTS, ids=ids, patients=patients, counts=counts)
        return entry

    def entry(self, predict: Predict, done: Callable[[], None]) -> dict[str, Any]:
        """The object of ``scores.json``.

        Raises:
            EosinError: if the split has no masks, or a file of it is damaged.
        """
        *_, entry = self._run(predict, lambda name, prediction: done(), fit=False) if self.truth else (None,)
        if entry is None:
            raise EosinError(f"{self.dataset.folder}: split {self.subject.split!r} has no masks to score against")
        return entry

    def with_tags(self, entry: dict[str, Any] | None, scores: NDArray[np.float32]) -> dict[str, Any]:
        """Add tag scores ``[N, K]`` to an entry, or make one of them alone where there is no truth."""
        if entry is None:
            return dict(tags_entry(self.subject, self.dataset.classes, scores, self.items.tags))
        return {**entry, "tags": tag_scores(self.dataset.classes, scores, self.items.tags)}

    def _run(
        self, predict: Predict, keep: Callable[[str, NDArray[np.uint8]], None], fit: bool
    ) -> tuple[list[int], NDArray[np.int64] | None, dict[str, Any] | None]:
        index, counts, measures = [], [], []
        tally = _Tally(self.dataset, self._temperature, fit)
        for one in predicted(predict, self.view, self.tiling, self.protocol):
            name = str(self.items.ids[one.index])
            keep(name, one.prediction)
            if one.truth is not None:
                index.append(one.index)
                counts.append(self.protocol.count(one.prediction, one.truth))
                measures.append(self.protocol.measure(one.prediction, one.truth))
                tally.add(name, one, one.truth)
        if self.truth is None:
            return index, None, None
        stacked = np.stack(counts)
        entry = self.protocol.score_entry(self.subject, stacked, self.items.patients[index], measures)
        return index, stacked, {**entry, **tally.entry()}


def deciding(entry: Mapping[str, Any], folder: Path) -> float:
    """The number of an entry of the validation split by which trained steps are compared.

    Args:
        entry: of ``scores.json``; with masks its mean IoU counts, else its mean average precision of the tags.
        folder: of the data set, for the message.

    Raises:
        EosinError: if it has none, since no class of the split is known to be in one item and absent from another.
    """
    found = entry["miou"] if "miou" in entry else entry["tags"]["map"]
    if found is None:
        raise EosinError(f"{folder}: split {entry['split']!r} says nothing of any class; its masks or tags are empty")
    return float(found)


class _Tally:
    """What is scored beside the confusion matrix."""

    def __init__(self, dataset: Dataset, temperature: float | None, fit: bool) -> None:
        self.dataset = dataset
        self.boundary = BoundaryTally(dataset.classes, dataset.mpp)
        self.reliability = Reliability(temperature)
        self.sample = PixelSample() if fit else None
        self.objects = None if dataset.objects is None else ObjectTally(dataset.mpp)

    @cached_property
    def numbered(self) -> int | None:
        """The class whose objects are numbered."""
        return None if self.dataset.objects is None else self.dataset.classes.names.index(self.dataset.objects.tissue)

    def add(self, name: str, one: Seen, truth: NDArray[np.uint8]) -> None:
        ignore = self.dataset.classes.ignore
        self.boundary.add(one.prediction, truth)
        self.reliability.add(one.probabilities, truth, ignore)
        if self.sample is not None:
            self.sample.add(one.probabilities, truth, ignore)
        path = self.dataset.object_path(name)
        if self.objects is not None and path is not None:
            self.objects.add(one.prediction == self.numbered, _numbered(path, truth))

    def entry(self) -> dict[str, Any]:
        calibration = self.reliability.entry()
        if self.sample is not None:
            calibration["temperature"] = self.sample.temperature()
        said: dict[str, Any] = {"boundary": self.boundary.entry(), "calibration": calibration}
        if self.objects is not None:
            said["objects"] = self.objects.entry()
        return said


def _numbered(path: Path, truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    objects = read_mask(path)
    if objects.shape != truth.shape:
        raise EosinError(f"{path}: {objects.shape} px where the mask has {truth.shape}; import the data again")
    return objects


def worth_a_look(folder: Path, items: Items, columns: int) -> Items:
    """The items of a scored split that a report shows: evenly spaced from worst to best by their own FwIoU.

    Args:
        folder: of the predictions and counts that ``Scoring.write`` made; without counts the order is that of the data.
        items: of the split.
        columns: how many masks stand beside each image and its truth; more leave less room for items.
    """
    order = np.arange(len(items))
    if (folder / COUNTS).exists():
        with np.load(folder / COUNTS) as kept:
            ids, counts = kept["ids"], kept["counts"]
        counts[:, items.tags.shape[1] :] = 0  # some protocols count the truth's background, which nobody looks at
        own = {str(item): fwiou(matrix) for item, matrix in zip(ids, counts, strict=True)}
        scores = np.array([own.get(str(item), np.nan) for item in items.ids])
        order = np.lexsort((items.ids, scores))[: np.count_nonzero(~np.isnan(scores))]
    most = min(SHOWN, max(2, PICTURES // (columns + 2)))
    if len(order) > most:
        order = order[[round(i * (len(order) - 1) / (most - 1)) for i in range(most)]]
    return items.subset(np.sort(order))
