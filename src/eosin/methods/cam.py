"""CAM: the plain two-stage baseline that every method of the field is measured against."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

from eosin.core.artifact import Trained
from eosin.core.lab import Lab
from eosin.methods.method import FirstStage, Ingredient, Method, SecondStage
from eosin.parts.classifiers import CamClassifier
from eosin.parts.pseudo import TagGatedArgmax


class Cam(FirstStage, SecondStage, Method):
    """Classifier, class activation maps, pseudo masks, segmenter.

    Idea:
        A classifier learns which tissues a patch holds. The maps that it pools into its answer show where. Gated by
        the known tags they become pseudo masks, and a segmenter trained on them draws sharper than its teacher.

    Follows:
        Zhou et al. 2016 for the maps (a 1x1 convolution on the last features, pooled); the tag gate, the argmax over
        present classes and the second stage as every two-stage method of the field has them.

    Differs:
        ``pool = "gap"`` with ``compete = "none"`` is the printed form. The default lets classes compete for each
        pixel and pools the highest share only, since on tissue every pixel has a class. Masks come from maps
        averaged over scales, mirror images and quarter turns.

    Shapes:
        image ``[B, 3, H, W]``, maps ``[B, K, H/s, W/s]``, tag logits ``[B, K]``, masks and output ``H x W``.
    """

    paper: ClassVar[str] = (
        "Zhou, Khosla, Lapedriza, Oliva, Torralba: Learning deep features for discriminative localization, CVPR 2016"
    )
    steps: ClassVar[tuple[str, ...]] = ("classifier", "segmenter")
    ingredients: ClassVar[tuple[Ingredient, ...]] = (
        Ingredient("competition of classes", "classifier", {"compete": "none"}),
        Ingredient("pooling of the highest share", "classifier", {"pool": "gap"}),
        Ingredient("averaged views", "pseudo", {"map_views": 1}),
        Ingredient("merged overlaps", "pseudo", {"merge": False}),
    )

    pool: Literal["gap", "highest"] = "highest"
    compete: Literal["softmax", "none"] = "softmax"
    map_views: Literal[1, 2, 4, 8] = 8

    def plan(self, lab: Lab) -> Trained:
        """Classifier, masks, segmenter."""
        classifier = lab.fit("classifier", self.classifier(lab, CamClassifier, compete=self.compete))
        rule = partial(TagGatedArgmax, maker=self.averaged(), merge=self.merge, band=self.band)
        return self.segmenter(lab, lab.label("pseudo", classifier, rule))
