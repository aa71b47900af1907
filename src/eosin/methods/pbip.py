"""PBIP: prototypes that are clusters of what an encoder says of the training images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar, Literal

from pydantic import Field, NonNegativeFloat

from eosin.core.artifact import Artifact, Trained
from eosin.core.lab import Lab
from eosin.methods.method import Ingredient, Method, Prototypical
from eosin.parts.classifiers import CamClassifier
from eosin.parts.losses.prototype_contrast import PrototypeContrast
from eosin.parts.losses.soft_margin import SoftMargin
from eosin.parts.pooling.gap import GAP
from eosin.parts.prototypes.bank import Described, Pooled, centres_of, cluster, drawn


class Pbip(Prototypical, Method):
    """Class maps by likeness to fixed prototypes, the centres of clusters of images.

    Idea:
        Images of one tissue alone, described by an encoder and clustered, give prototypes of that tissue as it looks
        in several ways. A pixel belongs to the class whose prototypes it is like, and what the map of a prototype
        shows of an image should be like that prototype, what it hides like those of other classes.

    Follows:
        Tang et al. 2025: k-means centres, by cosine, of vectors of single-label images; a MiT with a late stride of 1,
        prototypes projected to each stage, tag losses of three stages; contrast of foreground and background.

    Differs:
        Where no pretrained encoder is at hand, a tag classifier describes the images, and the network's own features
        take the guide's part in the contrast. Maps are scaled to 0..1 before they mask an image, each by its own
        maximum. No tags of the truth at test time. One stage: the segmenter that the paper trains on its maps is not
        in its released code either.

    Shapes:
        image ``[B, 3, H, W]``, vectors of images ``[N, width]``, prototypes ``[K, k, width]``, maps of a stage ``[B,
        K, k, h, w]``, tag logits ``[B, K]``, output ``H x W``.
    """

    paper: ClassVar[str] = (
        "Tang, Fan, Pagnucco, Song: Prototype-based image prompting for weakly supervised histopathological image "
        "segmentation, CVPR 2025"
    )
    steps: ClassVar[tuple[str, ...]] = ("classifier", "segmenter")
    ingredients: ClassVar[tuple[Ingredient, ...]] = (
        Ingredient("prototypes of images", "segmenter", {"prototypes": "learnt"}),
        Ingredient(
            "projections", "segmenter", {"projection": "linear"}, tuple(f"heads.{s}.project" for s in range(1, 4))
        ),
        Ingredient("mask refiner", "segmenter", {"contrast_weight": 0.0}),
    )

    per_class: int = Field(default=3, ge=1)
    stage_weights: tuple[NonNegativeFloat, ...] = (0.0, 0.1, 1.0, 1.5)
    prototypes: Literal["k-means", "learnt"] = "k-means"
    contrast: Literal["joined", "each"] = "joined"

    def rounds_of(self) -> Mapping[str, int]:
        """How often each step is trained with these options; the classifier only where it describes the images."""
        described = self.prototypes == "k-means" and self.guide == "own"
        return {"classifier": 1, "segmenter": 1} if described else {"segmenter": 1}

    def plan(self, lab: Lab) -> Trained:
        """Vectors of images, their clusters, and one network."""
        drawing = partial(drawn, len(lab.classes), self.per_class, self.width)
        prototypes = drawing if self.prototypes == "learnt" else partial(centres_of, self.clustered(lab))
        contrast = partial(PrototypeContrast, self.temperature, self.contrast == "joined")
        return lab.fit("segmenter", self.network(prototypes, contrast))

    def clustered(self, lab: Lab) -> Artifact:
        """The prototypes: of vectors of the guide, or of a classifier that is trained for it."""
        if self.guide == "encoder":
            vectors = lab.describe("vectors", partial(Described, self.guiding()))
        else:
            build = partial(
                CamClassifier,
                classes=len(lab.classes),
                encoder=self.backbone(),
                pool=partial(GAP),
                loss=partial(SoftMargin),
                scale=self.scale,
            )
            vectors = lab.describe("vectors", partial(Pooled), lab.fit("classifier", build))
        work = partial(cluster, vectors=vectors, names=lab.classes.names, count=self.per_class)
        return lab.make("prototypes", "prototypes", work, vectors)
