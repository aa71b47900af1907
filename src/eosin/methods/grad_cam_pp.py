"""Grad-CAM++: class maps by the gradients of a classifier, as pseudo masks of a segmenter."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from eosin.core.artifact import Trained
from eosin.core.lab import Lab
from eosin.methods.method import FirstStage, Glass, Ingredient, Method, SecondStage
from eosin.parts.cams import GradCam, Scaled
from eosin.parts.classifiers import CamClassifier
from eosin.parts.pseudo import RefinedArgmax


class GradCamPlusPlus(FirstStage, Glass, SecondStage, Method):
    """Classifier, class maps by its gradients (Grad-CAM++, Grad-CAM), pseudo masks, segmenter.

    Idea:
        How much a class's logit rises with a feature says how much that feature speaks for the class. Grad-CAM
        averages these gradients over the image; Grad-CAM++ weighs each pixel's, so that a small region counts as much
        as a large one. Any layer of any classifier can be asked in this way.

    Follows:
        Chattopadhay et al. 2018 for the weights, Selvaraju et al. 2017 for those of ``weights = "grad-cam"``; the
        tag gate, the argmax over present classes and the second stage as in ``cam``.

    Differs:
        The paper explains classifiers of whole images and draws no masks. Maps are scaled before they are compared,
        and those of overlapping patches are averaged.

    Shapes:
        image ``[B, 3, H, W]``, features ``[B, D, h, w]``, gradients ``[B, D, h, w]`` for each class, maps
        ``[B, K, H, W]``, masks and output ``H x W``.
    """

    paper: ClassVar[str] = (
        "Chattopadhay, Sarkar, Howlader, Balasubramanian: Grad-CAM++: generalized gradient-based visual explanations "
        "for deep convolutional networks, WACV 2018"
    )
    steps: ClassVar[tuple[str, ...]] = ("classifier", "segmenter")
    ingredients: ClassVar[tuple[Ingredient, ...]] = (
        Ingredient("weights of Grad-CAM++", "pseudo", {"weights": "grad-cam"}),
        Ingredient("scaled maps", "pseudo", {"scaling": "none"}),
        Ingredient("merged overlaps", "pseudo", {"merge": False}),
    )

    compete: Literal["softmax", "none"] = "none"
    weights: Literal["grad-cam++", "grad-cam"] = "grad-cam++"
    map_tap: int | None = Field(default=None, ge=0)
    scaling: Literal["none", "class", "joint"] = "joint"

    @model_validator(mode="after")
    def _on_the_way(self) -> Self:
        if self.map_tap is not None and self.map_tap > self.tap:
            raise ValueError(f"map_tap = {self.map_tap} is beyond the classifier, which ends at tap = {self.tap}")
        return self

    def plan(self, lab: Lab) -> Trained:
        """Classifier, masks, segmenter."""
        level = self.tap if self.map_tap is None else self.map_tap
        finer = (level,) if level < self.tap else ()
        classifier = lab.fit("classifier", self.classifier(lab, CamClassifier, *finer, compete=self.compete))
        maker = self.averaged()
        rule = partial(
            RefinedArgmax,
            source=partial(GradCam, "plus-plus" if self.weights == "grad-cam++" else "mean", level, (*finer, self.tap)),
            maker=maker if self.scaling == "none" else partial(Scaled, maker, self.scaling),
            merge=self.merge,
            band=self.band,
            steps=self.glass(),
        )
        return self.segmenter(lab, lab.label("pseudo", classifier, rule))
