"""SA-MIL: side decoders on the first blocks of a VGG, each of which attends to rows and columns."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import PositiveFloat

from eosin.core.artifact import Trained
from eosin.core.lab import Lab
from eosin.methods.method import Attention, Bags, Ingredient, Method
from eosin.parts.mil import Mil


class SaMil(Bags, Method):
    """Side decoders behind three blocks of a VGG-16 with criss-cross attention; bags are scored by a generalised mean.

    Idea:
        In multiple-instance learning every pixel is judged by itself. Attention in two passes tells each of all the
        others, so that a pixel is positive not only for what it is but for what lies around it.

    Follows:
        Li et al. 2023: criss-cross attention in two passes with the same weights before each pool, whose gate begins
        at 0; side weights ``.2, .35, .45``; a generalised mean with ``r = 4`` of each map is the score of the bag, and
        the loss is the sum of the binary cross-entropies of all four.

    Differs:
        The softmax is over the pixels of the cross, each counted once; the released code takes it over the rows of the
        image, so that the weights of a pixel add up to about 3, and counts the pixel itself twice.

    Shapes:
        image ``[B, 3, H, W]``, features at ``H/2, H/4, H/8``, side and fused maps ``[B, 4, 1, H, W]`` (for more than
        two classes ``[B, 4, K, H, W]``), output ``[B, K, H, W]``.
    """

    paper: ClassVar[str] = (
        "Li, Qian, Han, Chang, Wei, Lai, Liao, Fan, Xu: Weakly supervised histopathology image segmentation with "
        "self-attention, Medical Image Analysis 2023"
    )
    steps: ClassVar[tuple[str, ...]] = ("network",)
    ingredients: ClassVar[tuple[Ingredient, ...]] = (
        Ingredient("criss-cross attention", "network", {"attention": "none"}, ("net.encoder.net.attention",)),
        Ingredient("generalised mean", "network", {"bag_loss": "dice"}),
        Ingredient("finest side", "network", {"taps": (1, 2), "fusion": (0.4, 0.6)}, ("net.heads.0.",)),
        Ingredient("middle side", "network", {"taps": (0, 2), "fusion": (0.4, 0.6)}, ("net.heads.1.",)),
        Ingredient(
            "coarsest side",
            "network",
            {"taps": (0, 1), "attention_at": (0, 1), "fusion": (0.5, 0.5)},
            ("net.heads.2.",),
        ),
    )

    attention: Attention = "criss-cross-twice"
    fusion: tuple[PositiveFloat, ...] = (0.2, 0.35, 0.45)
    bag_loss: Literal["dice", "gm"] = "gm"

    def plan(self, lab: Lab) -> Trained:
        """One fit on tags."""
        return lab.fit("network", self.network(lab, Mil))
