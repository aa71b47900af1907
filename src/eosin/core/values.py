"""The plain values that travel between rooms: a batch, a clock, the settings of a fit and of augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from torch import Tensor

Selection = Literal["masks", "tags", "last"]
Sampling = Literal["uniform", "balanced", "even"]


@dataclass(frozen=True, slots=True)
class Batch:
    """What a learner sees of some images.

    Attributes:
        image: float32 ``[B, 3, H, W]``, RGB in 0..1, not normalised.
        tags: float32 ``[B, K]``, 1 present, 0 absent, NaN unknown.
        masks: named pseudo masks (or truth for ``supervision = "truth"``), int64 ``[B, H, W]``.
        ids: item names, for messages.
    """

    image: Tensor
    tags: Tensor
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    ids: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.image)

    def parts(self, count: int) -> list[Batch]:
        """The batch cut into ``count`` parts of nearly equal size, of two images at least; fewer if it is too small."""
        count = max(1, min(count, len(self) // 2))
        ends = [len(self) * i // count for i in range(count + 1)]
        return [self] if count == 1 else [self._cut(slice(*at)) for at in pairwise(ends)]

    def _cut(self, at: slice) -> Batch:
        return Batch(self.image[at], self.tags[at], {k: m[at] for k, m in self.masks.items()}, self.ids[at])


@dataclass(frozen=True, slots=True)
class Clock:
    """Where a fit stands: ``step`` of ``steps`` and ``epoch`` of ``epochs``, both counted from 0."""

    step: int
    epoch: int
    steps: int
    epochs: int

    @property
    def progress(self) -> float:
        """The share of the fit that is done, in 0..1."""
        return self.step / max(1, self.steps)


class Augment(BaseModel):
    """Paired transforms of an image and its masks; every value 0 or False switches that one off.

    Attributes:
        flip: mirror left-right and up-down, each with probability 1/2.
        turn: turn by 0, 90, 180 or 270 degrees; by 0 or 180 where the item is not square.
        scale: zoom by a factor drawn log-uniformly from ``1/(1+scale)`` to ``1+scale``; the item keeps its size.
        crop: side in pixels of a random crop; 0 keeps the item whole. Tags stay those of the item.
        stain: H&E jitter in optical density: each stain is scaled by ``1 +- stain`` and shifted by ``+- stain/10``.
        brightness: multiply by ``1 +- brightness``.
        contrast: stretch about the mean by ``1 +- contrast``.
        blur: largest standard deviation in pixels of a Gaussian blur, applied to half of the items.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip: bool = True
    turn: bool = True
    scale: float = Field(default=0.0, ge=0, le=3)
    crop: int = Field(default=0, ge=0)
    stain: float = Field(default=0.0, ge=0, le=1)
    brightness: float = Field(default=0.0, ge=0, lt=1)
    contrast: float = Field(default=0.0, ge=0, lt=1)
    blur: float = Field(default=0.0, ge=0)


class FitSpec(BaseModel):
    """How one step is trained.

    Attributes:
        epochs: passes over the training items.
        batch: images per step.
        accumulate: in how many parts a batch goes through the network; their gradients are added up, so that less
            memory is needed for the same step. Batch norms, and losses that relate images, see one part at a time, and
            parts weigh by their images, not by known tags or labelled pixels.
        items: train on a seeded subset of this many items per epoch; 0 takes all.
        optimizer: ``adamw`` or ``sgd``.
        lr: base learning rate; a learner's groups multiply it.
        weight_decay: decay of weights (biases and norms have none).
        momentum: of SGD.
        nesterov: whether it is Nesterov's.
        schedule: ``constant``, ``poly``, ``cosine`` or ``onecycle``.
        power: of ``poly``.
        floor: share of the base rate that the schedule falls to.
        warmup: share of the steps with linearly rising learning rate.
        clip: largest gradient norm; 0 does not clip.
        ema: decay of the averaged weights that are evaluated and kept; 0 keeps the raw ones. At step
            ``t`` it is at most ``(1 + t) / (10 + t)``, so a fit of under 890 steps cannot tell 0.99 from larger values.
        sampler: ``uniform`` (every item once an epoch), ``balanced`` (drawn with replacement; a tag combination
            comes in proportion to the square root of its share, so that rare ones come more often) or ``even`` (drawn
            with replacement; items with the last class and items without it come equally often).
        select: which epoch is kept: by validation ``masks``, by validation ``tags``, the ``last``, or ``auto``
            (masks where the validation split has them, else tags, else last; what was used is recorded).
        every: evaluate each that many epochs (the last one always).
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16`` (with a scaled loss); losses are float32 always.
        compile: compile the networks by ``torch.compile``; the first step then takes long.
        augment: the paired transforms.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=10, ge=1)
    batch: int = Field(default=32, ge=1)
    accumulate: int = Field(default=1, ge=1)
    items: int = Field(default=0, ge=0)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    schedule: Literal["constant", "poly", "cosine", "onecycle"] = "poly"
    power: float = Field(default=0.9, gt=0)
    floor: float = Field(default=0.0, ge=0, lt=1)
    warmup: float = Field(default=0.0, ge=0, lt=1)
    clip: float = Field(default=0.0, ge=0)
    ema: float = Field(default=0.0, ge=0, lt=1)
    sampler: Sampling = "uniform"
    select: Literal["auto", "masks", "tags", "last"] = "auto"
    every: int = Field(default=1, ge=1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = False
    augment: Augment = Augment()

    @model_validator(mode="after")
    def _nesterov_is_a_momentum(self) -> Self:
        if self.nesterov and not (self.optimizer == "sgd" and self.momentum):
            raise ValueError("nesterov = true: only with optimizer sgd and a momentum above 0")
        return self
