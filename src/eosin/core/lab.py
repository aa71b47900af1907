"""What a method's plan is handed. A protocol, so that methods need not know the engine even by type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor

from eosin.core.artifact import Artifact, MaskSet, Trained, Vectors
from eosin.core.classes import Classes
from eosin.core.learner import Learner

L = TypeVar("L", bound=Learner)


class MaskRule(Protocol):
    """Draws masks with a learner's class maps."""

    @property
    def merge(self) -> bool:
        """Whether the maps of overlapping items of one parent image are averaged before deciding."""
        ...

    def maps(self, learner: Learner, image: Tensor) -> Tensor:
        """Class maps float ``[B, K, H, W]`` of images ``[B, 3, H, W]`` in 0..1."""
        ...

    def decide(self, maps: Tensor, allowed: Tensor) -> Tensor:
        """Masks uint8 ``[B, H, W]`` (255 = leave out) from maps and where each class may be, bool, broadcastable."""
        ...


class Lab(Protocol):
    """The workshop: every call is one step, named, digested, made once and reused."""

    @property
    def classes(self) -> Classes:
        """The tissues of the data set."""
        ...

    @property
    def tag_counts(self) -> tuple[tuple[int, int], ...]:
        """How many training items are known to hold each class, and to be without it: (present, absent) by class."""
        ...

    def fit(
        self,
        name: str,
        build: partial[L],
        masks: Mapping[str, MaskSet] | None = None,
        start: Trained | None = None,
        teacher: Trained | None = None,
    ) -> Trained:
        """Train what ``build`` makes on the training split, from tags and the given masks.

        Args:
            name: of the step; ``student-2`` is trained by the settings of ``student``.
            build: makes the learner.
            masks: what it learns, by name.
            start: a trained step whose weights it begins with; the optimizer begins anew.
            teacher: a trained step that it asks and that never learns; see ``Learner.taught_by``.
        """
        ...

    def label(self, name: str, source: Trained, rule: Callable[[], MaskRule]) -> MaskSet:
        """Draw a mask for every training item from the source's class maps and the item's tags."""
        ...

    def describe(self, name: str, reader: partial[Any], source: Trained | None = None) -> Vectors:
        """Write down what a module that ``reader`` makes says of every training image: one vector.

        With a source, ``reader`` is given its learner.
        """
        ...

    def truth(self) -> MaskSet:
        """The true masks of the training split; refused unless the method declares ``supervision = "truth"``."""
        ...

    def keep(self, name: str, build: partial[L]) -> Trained:
        """Keep a learner without training it (composition)."""
        ...

    def make(self, kind: str, name: str, work: Callable[[Path], None], *inputs: Artifact) -> Artifact:
        """Any other result: ``work`` fills an empty folder."""
        ...

    @property
    def has_val(self) -> bool:
        """Whether the data set has a split ``val``, on which trained steps can be compared."""
        ...

    def val_score(self, source: Trained) -> float:
        """How good a trained step is on the split ``val``: its mean IoU, or without masks its mAP.

        Raises:
            EosinError: if that cannot be said.
        """
        ...

    def score(self, source: Trained, split: str) -> object:
        """Score class maps on a labelled split and write them down; without truth, tag scores."""
        ...

    def export(self, name: str, source: Trained) -> None:
        """Write the model folder of the run."""
        ...
