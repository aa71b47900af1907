"""ReCAM: class maps that a second classifier, with softmax, activates anew."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat

from eosin.core.artifact import Trained
from eosin.core.lab import Lab
from eosin.methods.method import FirstStage, Glass, Ingredient, Method, SecondStage
from eosin.parts.cams import LinearCam, Scaled
from eosin.parts.classifiers import ReactivatedClassifier
from eosin.parts.losses.reactivation import Reactivation
from eosin.parts.pseudo import RefinedArgmax
from eosin.parts.refine import Constant


class ReCam(FirstStage, Glass, SecondStage, Method):
    """Classifier, a second one on what its maps show, re-activated maps, pseudo masks, segmenter.

    Idea:
        Under a loss that asks for each class apart, nothing keeps a map off the pixels of another class. What a map
        shows of an image is therefore classified once more, now as one class against all others; the features that
        both classifiers go by draw the map.

    Follows:
        Chen et al. 2022: a plain classifier; then softmax cross-entropy of features averaged under the map of each
        present class, beside the tag loss; maps by the product of both classifiers' weights, ReLU, averaged over
        scales and divided by their maximum.

    Differs:
        ``product = "printed"`` is the printed product, which is positive, too, where both weights are negative; by
        default a feature that the second classifier counts against a class has no say in its map. No IRN (affinity
        network and random walk) between the maps and the segmenter. Every pixel goes to the highest present class,
        since on tissue there is no background, unless ``background`` asks for one.

    Shapes:
        image ``[B, 3, H, W]``, maps ``[B, K, h, w]``, features under each map ``[B, K, D]``, the second classifier's
        logits ``[B, K, K]``, masks and output ``H x W``.
    """

    paper: ClassVar[str] = (
        "Chen, Wang, Wu, Hua, Zhang, Sun: Class re-activation maps for weakly-supervised semantic segmentation, CVPR "
        "2022"
    )
    steps: ClassVar[tuple[str, ...]] = ("classifier", "recam", "segmenter")
    ingredients: ClassVar[tuple[Ingredient, ...]] = (
        Ingredient("class re-activation", "recam", {"reactivation": 0.0}, ("second.",)),
        Ingredient("maps of several scales", "pseudo", {"map_scales": (1.0,)}),
        Ingredient("merged overlaps", "pseudo", {"merge": False}),
    )

    map_scales: tuple[PositiveFloat, ...] = Field(default=(1.0, 0.5, 1.5, 2.0), min_length=1)
    map_views: Literal[1, 2, 4, 8] = 2
    reactivation: float = Field(default=1.0, ge=0)
    slow: float = Field(default=0.1, gt=0, le=1)
    product: Literal["agreed", "printed"] = "agreed"
    background: float = Field(default=0.0, ge=0, lt=1)

    def plan(self, lab: Lab) -> Trained:
        """Classifier, the same with a second one, masks, segmenter."""
        build = self.classifier(lab, ReactivatedClassifier, second_loss=partial(Reactivation))
        plain = lab.fit("classifier", build)
        build = partial(build, reactivation=self.reactivation, slow=self.slow, product=self.product)
        recam = lab.fit("recam", build, start=plain)
        constant = (partial(Constant, self.background),) if self.background else ()
        rule = partial(
            RefinedArgmax,
            source=partial(LinearCam),
            maker=partial(Scaled, self.averaged(), "class"),
            merge=self.merge,
            band=self.band,
            steps=(*constant, *self.glass()),
        )
        return self.segmenter(lab, lab.label("pseudo", recam, rule))
