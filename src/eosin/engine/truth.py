"""The true masks of the training split as a mask set, for upper bounds alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from eosin.core.artifact import MaskSet
from eosin.core.errors import EosinError
from eosin.data.dataset import Dataset, Items


@dataclass(frozen=True, slots=True)
class TrueMasks(MaskSet):
    """The truth as a mask set, where the data set has it."""

    paths: Mapping[str, Path] = field(default_factory=dict)

    def path(self, item: str) -> Path:
        """The mask file of an item."""
        return self.paths[item]


def true_masks(dataset: Dataset, items: Items, method: str) -> TrueMasks:
    """The true masks of all training items.

    Raises:
        EosinError: if an item has none.
    """
    truth = dataset.truth("train")
    if truth is None or len(truth) != len(items):
        have = 0 if truth is None else len(truth)
        raise EosinError(
            f"{dataset.folder}: {have} of {len(items)} training items have a mask; method {method} needs all of them"
        )
    paths = {str(item): truth.path(i) for i, item in enumerate(items.ids)}
    return TrueMasks("truth", dataset.folder, dataset.digest, paths)
