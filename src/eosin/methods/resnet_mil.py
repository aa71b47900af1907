"""ResNet-MIL: side decoders on the first stages of a ResNet."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, PositiveFloat

from eosin.core.artifact import Trained
from eosin.core.lab import Lab
from eosin.methods.method import Bags, Ingredient, Method
from eosin.parts.mil import Mil


class ResnetMil(Bags, Method):
    """Side decoders behind three stages of a ResNet, their maps fused, each held against a constant mask.

    Idea:
        That of VGG-MIL with a deeper network, whose pixels see more of their surroundings.

    Follows:
        A row of He et al. 2024 that names neither the depth nor the stages, and whose code is not published.

    Differs:
        Depth, stages and weights of the fusion are ours: ResNet-18, the first three stages, ``.3, .4, .3`` as in
        Swin-MIL, whose strides these are.

    Shapes:
        image ``[B, 3, H, W]``, features at ``H/4, H/8, H/16``, side and fused maps ``[B, 4, 1, H, W]`` (for more than
        two classes ``[B, 4, K, H, W]``), output ``[B, K, H, W]``.
    """

    paper: ClassVar[str] = (
        "He, Li, Zemp: Enhancing weakly-supervised histopathology image segmentation with knowledge distillation on "
        "MIL-based pseudo-labels, arXiv 2024"
    )
    steps: ClassVar[tuple[str, ...]] = ("network",)
    ingredients: ClassVar[tuple[Ingredient, ...]] = (
        Ingredient("finest side", "network", {"taps": (2, 3), "fusion": (0.5, 0.5)}, ("net.heads.1.",)),
        Ingredient("middle side", "network", {"taps": (1, 3), "fusion": (0.5, 0.5)}, ("net.heads.2.",)),
        Ingredient("coarsest side", "network", {"taps": (1, 2), "fusion": (0.5, 0.5)}, ("net.heads.3.",)),
        Ingredient("Dice of bags", "network", {"bag_loss": "gm"}),
    )

    encoder: str = "resnet18"
    taps: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(1, 2, 3), min_length=1)
    attention_at: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(1, 2, 3), min_length=1)
    fusion: tuple[PositiveFloat, ...] = (0.3, 0.4, 0.3)

    def plan(self, lab: Lab) -> Trained:
        """One fit on tags."""
        return lab.fit("network", self.network(lab, Mil))
