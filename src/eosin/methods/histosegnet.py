"""HistoSegNet: Grad-CAM, adjustments between classes, and a dense CRF."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal

from pydantic import Field

from eosin.core.artifact import Trained
from eosin.core.lab import Lab
from eosin.methods.method import Crf, FirstStage, Ingredient, Method, SecondStage
from eosin.parts.cams import GradCam, Scaled
from eosin.parts.classifiers import CamClassifier
from eosin.parts.pseudo import RefinedArgmax
from eosin.parts.refine import EmptyGlass, Remainder, Subtracted


class HistoSegNet(FirstStage, Crf, SecondStage, Method):
    """Grad-CAM, adjustments between classes, dense CRF; a segmenter is trained on what they draw.

    Idea:
        The maps of a classifier that is trained once are enough for a segmentation if they are put right afterwards:
        a class that is hardly there draws little, a pixel goes to a class by how far it leads the others, and a CRF
        moves borders to edges of the image.

    Follows:
        Chan et al. 2019: Grad-CAM from gradients over their root mean square, ReLU, division by the maximum, times the
        class's score; averaged where patches overlap; maps of background and of other tissue; each map less the
        highest other one; a dense CRF of two kernels.

    Differs:
        The paper deploys classifier and CRF themselves. A CRF takes seconds a patch and cannot be stored as a program,
        so here a segmenter is trained on what they draw for the training images, and deployed. Known tags gate where
        there thresholds of scores do; background and other tissue are no classes, their pixels are left out; every map
        is adjusted at once, not one after the other.

    Shapes:
        image ``[B, 3, H, W]``, maps ``[B, K, H, W]``, with background and other ``[B, K + 2, H, W]``, masks and output
        ``H x W``.
    """

    paper: ClassVar[str] = (
        "Chan, Hosseini, Rowsell, Plataniotis, Damaskinos: HistoSegNet: semantic segmentation of histological tissue "
        "type in whole slide images, ICCV 2019"
    )
    steps: ClassVar[tuple[str, ...]] = ("classifier", "segmenter")
    ingredients: ClassVar[tuple[Ingredient, ...]] = (
        Ingredient("times the class score", "pseudo", {"scored": False}),
        Ingredient("other tissue", "pseudo", {"other": 0.0}),
        Ingredient("inter-class subtraction", "pseudo", {"subtract": False}),
        Ingredient("dense CRF", "pseudo", {"refine": "none"}),
        Ingredient("averaged overlaps", "pseudo", {"merge": False}),
    )

    compete: Literal["softmax", "none"] = "none"
    scored: bool = True
    background: float = Field(default=0.75, ge=0, le=1)
    other: float = Field(default=0.05, ge=0, le=1)
    subtract: bool = True

    def plan(self, lab: Lab) -> Trained:
        """Classifier, masks, segmenter."""
        classifier = lab.fit("classifier", self.classifier(lab, CamClassifier, compete=self.compete))
        rule = partial(
            RefinedArgmax,
            source=partial(GradCam, "rms"),
            maker=partial(Scaled, self.averaged(), "class"),
            merge=self.merge,
            band=self.band,
            scored=self.scored,
            steps=tuple(self._adjustments()),
        )
        return self.segmenter(lab, lab.label("pseudo", classifier, rule))

    def _adjustments(self) -> list[partial[Any]]:
        steps: list[partial[Any]] = []
        if self.background:
            steps.append(partial(EmptyGlass, self.background))
        if self.other:
            steps.append(partial(Remainder, factor=self.other))
        if self.subtract:
            steps.append(partial(Subtracted, spare_last=self.other > 0))
        return [*steps, *self.refinement()]
