"""MLPS: a classifier that is kept from seeing what it sees best, and a segmenter taught by masks of several layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from eosin.core.artifact import MaskSet, Trained
from eosin.core.lab import Lab
from eosin.methods.method import ALIKE, FirstStage, Glass, Ingredient, Method, SecondStage
from eosin.parts.attention.dropout_attention import DropoutAttention
from eosin.parts.cams import GradCam, Scaled
from eosin.parts.classifiers import CamClassifier, ErasedClassifier
from eosin.parts.pseudo import RefinedArgmax
from eosin.parts.segmenters import ManyMasksSegmenter, Net


class Mlps(FirstStage, Glass, SecondStage, Method):
    """Progressive dropout attention in the classifier, pseudo masks of several layers, a segmenter taught by all.

    Idea:
        A classifier needs only the most telling part of a tissue. Taking that part from it, more of it as training
        goes on, lets it find the rest. And each layer sees something else: masks of several teach more than one.

    Follows:
        Han et al. 2022: features times the mean of the class maps without what is above a falling bound (PDA), from
        the fourth epoch on; Grad-CAM at three layers, all classes scaled together; empty glass left out; cross-entropy
        against the three masks, weighted 0.2, 0.2 and 0.6; a DeepLabV3+.

    Differs:
        The loss is a mean over pixels, not divided by the batch again. No tag scores gate what the segmenter predicts.
        Overlapping patches are joined.

    Shapes:
        image ``[B, 3, H, W]``, features ``[B, D, h, w]`` of each layer, maps ``[B, K, H, W]``, tag logits ``[B, K]``,
        masks and output ``H x W``.
    """

    paper: ClassVar[str] = (
        "Han, Lin, Mai, Wang, Zhang, Zhao, Chen, Pan, Shi, Xu, Yao, Yan, Lin, Huang, Liang, Han, Liu: Multi-layer "
        "pseudo-supervision for histopathology tissue semantic segmentation using patch-level classification labels, "
        "Medical Image Analysis 2022"
    )
    steps: ClassVar[tuple[str, ...]] = ("classifier", "segmenter")
    ingredients: ClassVar[tuple[Ingredient, ...]] = (
        Ingredient("progressive dropout attention (PDA)", "classifier", {"pda": False}),
        Ingredient("masks of several layers", "segmenter", {"map_taps": (3,), "mask_weights": (1.0,)}),
        Ingredient("merged overlaps", "pseudo-3", {"merge": False}),
    )

    output_stride: Literal[8, 16, 32] = 8
    head_rate: PositiveFloat = 1.0
    pda: bool = True
    pda_begin: int = Field(default=3, ge=0)
    pda_decay: float = Field(default=0.98, gt=0, le=1)
    pda_least: float = Field(default=0.65, ge=0, le=1)
    map_taps: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(2, 3, 4), min_length=1)
    mask_weights: tuple[NonNegativeFloat, ...] = (0.2, 0.2, 0.6)
    seg_net: Net = "deeplabv3plus"
    seg_width: int = Field(default=256, ge=4)

    @model_validator(mode="after")
    def _a_weight_each(self) -> Self:
        if len(self.map_taps) != len(self.mask_weights):
            raise ValueError(f"map_taps {self.map_taps} and mask_weights {self.mask_weights}: give each level a weight")
        if not any(self.mask_weights):
            raise ValueError(f"mask_weights {self.mask_weights}: one must be above 0, or the segmenter learns nothing")
        if any(low >= high for low, high in pairwise(self.map_taps)) or self.map_taps[-1] > self.tap:
            raise ValueError(f"map_taps {self.map_taps}: name levels in rising order, none above tap {self.tap}")
        return self

    def plan(self, lab: Lab) -> Trained:
        """Classifier, masks of each layer, segmenter."""
        finer = [tap for tap in self.map_taps if tap < self.tap]
        erase = partial(DropoutAttention, self.pda_begin, self.pda_decay, self.pda_least)
        kind: Callable[..., CamClassifier] = partial(ErasedClassifier, erase=erase) if self.pda else CamClassifier
        classifier = lab.fit("classifier", self.classifier(lab, kind, *finer, head_rate=self.head_rate))
        masks = {f"pseudo-{tap}": self._masks(lab, classifier, tap, (*finer, self.tap)) for tap in self.map_taps}
        weights = dict(zip(masks, self.mask_weights, strict=True))
        build = partial(ManyMasksSegmenter, net=self.network(lab), loss=ALIKE, weights=weights, scale=self.seg_scale)
        return lab.fit("segmenter", build, masks=masks)

    def _masks(self, lab: Lab, classifier: Trained, tap: int, taps: tuple[int, ...]) -> MaskSet:
        rule = partial(
            RefinedArgmax,
            source=partial(GradCam, "mean", tap, taps, signed=True),
            maker=partial(Scaled, self.averaged(), "joint"),
            merge=self.merge,
            band=self.band,
            steps=self.glass(),
        )
        return lab.label(f"pseudo-{tap}", classifier, rule)
