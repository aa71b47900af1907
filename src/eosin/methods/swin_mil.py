"""Swin-MIL: side decoders on the first stages of a Swin Transformer."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import PositiveFloat

from eosin.core.artifact import Trained
from eosin.core.lab import Lab
from eosin.methods.method import Bags, Ingredient, Method
from eosin.parts.mil import Mil


class SwinMil(Bags, Method):
    """Side decoders behind three stages of a Swin Transformer; bags are scored by a generalised mean.

    Idea:
        Attention within shifted windows relates the pixels of a bag to each other, at the cost of a convolution.

    Follows:
        Qian et al. 2022: Swin-T, the first three stages with a LayerNorm behind each, side weights ``.3, .4, .3``; a
        generalised mean with ``r = 4`` of each map is the score of the bag, and the loss is the sum of the binary
        cross-entropies of all four.

    Differs:
        The fourth stage, which no side decoder sees, is not built. Paths are dropped at timm's rate of 0.1, there 0.2.

    Shapes:
        image ``[B, 3, H, W]``, features at ``H/4, H/8, H/16``, side and fused maps ``[B, 4, 1, H, W]`` (for more than
        two classes ``[B, 4, K, H, W]``), output ``[B, K, H, W]``.
    """

    paper: ClassVar[str] = (
        "Qian, Li, Lai, Chang, Wei, Fan, Xu: Transformer based multiple instance learning for weakly supervised "
        "histopathology image segmentation, MICCAI 2022"
    )
    steps: ClassVar[tuple[str, ...]] = ("network",)
    ingredients: ClassVar[tuple[Ingredient, ...]] = (
        Ingredient("norms of the sides", "network", {"side_norm": False}, ("net.norms.",)),
        Ingredient("generalised mean", "network", {"bag_loss": "dice"}),
        Ingredient("finest side", "network", {"taps": (1, 2), "fusion": (0.5, 0.5)}, ("net.heads.0.",)),
        Ingredient("middle side", "network", {"taps": (0, 2), "fusion": (0.5, 0.5)}, ("net.heads.1.",)),
        Ingredient("coarsest side", "network", {"taps": (0, 1), "fusion": (0.5, 0.5)}, ("net.heads.2.",)),
    )

    encoder: str = "swin_tiny_patch4_window7_224"
    side_norm: bool = True
    fusion: tuple[PositiveFloat, ...] = (0.3, 0.4, 0.3)
    bag_loss: Literal["dice", "gm"] = "gm"

    def plan(self, lab: Lab) -> Trained:
        """One fit on tags."""
        return lab.fit("network", self.network(lab, Mil))
