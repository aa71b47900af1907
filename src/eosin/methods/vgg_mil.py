"""VGG-MIL: side decoders on the first blocks of a VGG, taught that a positive image is positive everywhere."""

from __future__ import annotations

from typing import ClassVar

from eosin.core.artifact import Trained
from eosin.core.lab import Lab
from eosin.methods.method import Bags, Ingredient, Method
from eosin.parts.mil import Mil


class VggMil(Bags, Method):
    """Side decoders behind three blocks of a VGG-16, their maps fused, each held against a constant mask.

    Idea:
        Every pixel of an image without tumour is negative, and of an image with tumour some are positive. A network
        that is told that all of them are can only be right about both kinds of images where tissue differs: a small
        one, which sees no more than a few cells around a pixel, finds out which pixels never occur in negative images.

    Follows:
        The baseline of He et al. 2024, a descendant of Xu et al. 2014: seven convolutions with batch norms, a 1x1
        convolution behind each pool, ``f_w = .3 f_1 + .3 f_2 + .4 f_3``, and the sum of four Dice losses against ones;
        of a negative image both the maps and the target are inverted.

    Differs:
        One head a class where there are more than two. The loss is a mean over the batch; no Gaussian smooths a map
        unless the protocol ``mil-patch`` does.

    Shapes:
        image ``[B, 3, H, W]``, features at ``H/2, H/4, H/8``, side and fused maps ``[B, 4, 1, H, W]`` (for more than
        two classes ``[B, 4, K, H, W]``), output ``[B, K, H, W]``.
    """

    paper: ClassVar[str] = (
        "Xu, Mo, Feng, Zhong, Lai, Chang: Deep learning of feature representation with multiple instance learning for "
        "medical image analysis, ICASSP 2014"
    )
    steps: ClassVar[tuple[str, ...]] = ("network",)
    ingredients: ClassVar[tuple[Ingredient, ...]] = (
        Ingredient("finest side", "network", {"taps": (1, 2), "fusion": (0.4, 0.6)}, ("net.heads.0.",)),
        Ingredient("middle side", "network", {"taps": (0, 2), "fusion": (0.4, 0.6)}, ("net.heads.1.",)),
        Ingredient("coarsest side", "network", {"taps": (0, 1), "fusion": (0.5, 0.5)}, ("net.heads.2.",)),
        Ingredient("Dice of bags", "network", {"bag_loss": "gm"}),
    )

    def plan(self, lab: Lab) -> Trained:
        """One fit on tags."""
        return lab.fit("network", self.network(lab, Mil))
