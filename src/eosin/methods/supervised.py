"""Supervised: the upper bound, the same segmenter trained on true masks."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

from eosin.core.artifact import Trained
from eosin.core.lab import Lab
from eosin.methods.method import ALIKE, Ingredient, Method, SecondStage
from eosin.parts.losses.dice import SoftDice


class Supervised(SecondStage, Method):
    """A segmenter trained on true masks.

    Idea:
        What the deployed network could reach if somebody had drawn every border: the ceiling of the weak methods.

    Follows:
        Ronneberger et al. 2015 with an encoder of one's choice, and pixel cross-entropy or soft Dice.

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

    seg_loss: Literal["ce", "dice"] = "ce"

    def plan(self, lab: Lab) -> Trained:
        """One fit on the truth of the training split."""
        return self.segmenter(lab, lab.truth(), "truth", ALIKE if self.seg_loss == "ce" else partial(SoftDice))
