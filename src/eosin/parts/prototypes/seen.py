"""What prototypes see of a batch, and how stages are fused: what the learner hands to its loss terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from eosin.parts.prototypes.maps import averaged, stretched, weighted


class Stage(NamedTuple):
    """What prototypes see at one stage, in float32."""

    number: int
    features: Tensor  # [B, D, h, w], of whatever type
    maps: Tensor  # [B, K, k, h, w], scaled cosines
    cosines: Tensor  # [B, K, k, h, w]
    here: Tensor  # [K, k, D], the prototypes in the space of the stage


class Fusion:
    """How the maps of prototypes become those of classes, and those of stages one.

    Args:
        weights: of each stage; 0 leaves it out.
        merge: how the prototypes of a class are joined in the answer: ``softmax``, each pixel's maps weighed by their
            softmax among them, or ``mean``.
        gate: ``none``: softmax over the signed maps of all classes; ``predicted``: maps without what is negative, each
            stretched to 0..1 in its image, of the classes that are found there alone.
    """

    def __init__(
        self,
        weights: Sequence[float],
        merge: Literal["softmax", "mean"] = "softmax",
        gate: Literal["none", "predicted"] = "none",
    ) -> None:
        self.weights = tuple(weights)
        self.merge = weighted if merge == "softmax" else averaged
        self.gate = gate

    def signed(self, stages: Sequence[Stage], size: Sequence[int]) -> Tensor:
        """Signed class maps ``[B, K, *size]``."""
        return self._sum(stages, self.merge, size)

    def positive(self, stages: Sequence[Stage], size: Sequence[int]) -> Tensor:
        """Class maps ``[B, K, *size]`` in 0..1 if weights add up to 1: each from 0 or more to its maximum."""
        return self._sum(stages, lambda maps: stretched(self.merge(maps).relu()), size)

    def each(self, stages: Sequence[Stage], which: int) -> Tensor:
        """The signed maps of one prototype of each class, ``[B, K, h, w]`` at the size of the last stage."""
        return self._sum(stages, lambda maps: maps[:, :, which], stages[-1].maps.shape[3:])

    def located(self, stages: Sequence[Stage]) -> Tensor:
        """What classes are told apart by in training, ``[B, K, h, w]`` in 0..1: of the mean over prototypes."""
        return self._sum(stages, lambda maps: stretched(averaged(maps).relu()), stages[-1].maps.shape[3:])

    def probabilities(self, stages: Sequence[Stage], scores: Tensor, size: Sequence[int]) -> Tensor:
        """The answer, ``[B, K, *size]``; ``scores [B, K]`` are the logits of tags, for ``gate = "predicted"``."""
        if self.gate == "none":
            return self.signed(stages, size).softmax(1)
        found = (scores > 0) | (scores == scores.amax(1, keepdim=True))
        return self.positive(stages, size).masked_fill(~found[:, :, None, None], -torch.inf).softmax(1)

    def _sum(self, stages: Sequence[Stage], make: Callable[[Tensor], Tensor], size: Sequence[int]) -> Tensor:
        """What ``make`` makes of maps ``[B, K, k, h, w]``, resized bilinearly, the weighted sum over stages."""
        parts = [
            weight * F.interpolate(make(stage.maps), size=tuple(size), mode="bilinear", align_corners=False)
            for stage in stages
            if (weight := self.weights[stage.number])
        ]
        return torch.stack(parts).sum(0)


class Seen(NamedTuple):
    """What a loss term is shown of a batch."""

    image: Tensor  # [B, 3, H, W] in 0..1
    tags: Tensor  # [B, K], 1 present, 0 absent, NaN unknown
    prototypes: Tensor  # [K, k, width]
    stages: Sequence[Stage]
    fusion: Fusion

    @property
    def last(self) -> Stage:
        """The last stage."""
        return self.stages[-1]
