"""Supervised: the upper bound, the same segmenter trained on true masks."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

from pydantic import Field

from eosin.core.artifact import Trained
from eosin.core.lab import Lab
from eosin.methods.method import Ingredient, Method
from eosin.parts.losses.cross_entropy import PixelCrossEntropy
from eosin.parts.segmenters import Segmenter, UNet


class Supervised(Method):
    """A segmenter trained on true masks.

    Idea:
        What the deployed network could reach if somebody had drawn every border: the ceiling of the weak methods.

    Follows:
        Ronneberger et al. 2015 with an encoder of one's choice and pixel cross-entropy.

    Differs:
        The network and its training are those of the weak methods' second stage, so that only the masks differ.

    Shapes:
        image ``[B, 3, H, W]`` to probabilities ``[B, K, H, W]``.
    """

    paper: ClassVar[str] = (
        "Ronneberger, Fischer, Brox: U-Net: convolutional networks for biomedical image segmentation, MICCAI 2015"
    )
    supervision: ClassVar[Literal["tags", "truth"]] = "truth"
    steps: ClassVar[tuple[str, ...]] = ("segmenter",)
    ingredients: ClassVar[tuple[Ingredient, ...]] = ()

    seg_encoder: str = "resnet18"
    seg_depth: int = Field(default=5, ge=3, le=5)
    seg_width: int = Field(default=16, ge=4)
    seg_scale: float = Field(default=1.0, gt=0, le=4)
    seg_pretrained: Literal["none", "imagenet"] = "none"

    def plan(self, lab: Lab) -> Trained:
        """One fit on the truth of the training split."""
        net = partial(UNet, len(lab.classes), self.seg_encoder, self.seg_depth, self.seg_width, self.seg_pretrained)
        return lab.fit(
            "segmenter",
            partial(Segmenter, net=net, loss=partial(PixelCrossEntropy), mask="truth", scale=self.seg_scale),
            masks={"truth": lab.truth()},
        )
