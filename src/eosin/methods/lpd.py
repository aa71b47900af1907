"""LPD: prototypes that learn, several a class, kept apart by what they look at; one stage, no pseudo masks."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from pydantic import Field, NonNegativeFloat, PositiveFloat

from eosin.core.artifact import Trained
from eosin.core.lab import Lab
from eosin.methods.method import Ingredient, Method, Prototypical
from eosin.parts.losses.diversity import Diversity
from eosin.parts.losses.prototype_contrast import PrototypeContrast
from eosin.parts.prototypes.bank import drawn
from eosin.parts.prototypes.terms import Apart


class Lpd(Prototypical, Method):
    """Class maps by likeness to learnt prototypes that are kept apart; one stage.

    Idea:
        A tissue looks in more than one way. Each class has several prototypes, and a pixel belongs to the class whose
        prototypes it is like. They are learnt with the network, by tags: no clusters are made before, no masks drawn
        in between. So that they do not all come to mean the same, those of a class are kept from looking at the same
        pixels; and what the map of one shows of an image must be told from what it hides.

    Follows:
        Le et al. 2025 and its released code: a MiT with a late stride of 1, prototypes projected to each stage, cosines
        with a scale that learns, tag losses of three stages, contrast of foreground and background by a guide, and
        Jeffreys' divergence of what two prototypes look at.

    Differs:
        Cosines are divided by a temperature before the divergence, without which it has no gradient; it is taken of the
        class's own pixels; maps are scaled to 0..1 before they mask an image, each by its own maximum. No tags of the
        truth at test time. The table on the method's page has every row.

    Shapes:
        image ``[B, 3, H, W]``, prototypes ``[K, k, width]``, maps of a stage ``[B, K, k, h, w]``, tag logits ``[B,
        K]``, pairs ``[N]`` of image and prototype, output ``H x W``.
    """

    paper: ClassVar[str] = (
        "Le, Vu, Vo, Thach, Quang, Nguyen, Le, Han, Mohan, Nguyen: LPD: Learnable prototypes with diversity "
        "regularization for weakly supervised histopathology segmentation, arXiv 2512.05922"
    )
    steps: ClassVar[tuple[str, ...]] = ("segmenter",)
    ingredients: ClassVar[tuple[Ingredient, ...]] = (
        Ingredient("learnt prototypes", "segmenter", {"per_class": 1}, ("prototypes",)),
        Ingredient(
            "projections", "segmenter", {"projection": "linear"}, tuple(f"heads.{s}.project" for s in range(1, 4))
        ),
        Ingredient("mask refiner", "segmenter", {"contrast_weight": 0.0}),
        Ingredient("diversity", "segmenter", {"diversity_weight": 0.0}),
    )

    warmup: float = Field(default=0.16, ge=0, lt=1)
    diversity_weight: NonNegativeFloat = 0.5
    diversity_temperature: PositiveFloat = 0.07
    floor: float = Field(default=0.2, ge=0, lt=1)

    def plan(self, lab: Lab) -> Trained:
        """One network, trained once."""
        prototypes = partial(drawn, len(lab.classes), self.per_class, self.width)
        contrast = partial(PrototypeContrast, self.temperature)
        apart = partial(Apart, partial(Diversity, self.diversity_temperature), self.floor)
        build = self.network(prototypes, contrast, {"diversity": (self.diversity_weight, apart)})
        return lab.fit("segmenter", build)
