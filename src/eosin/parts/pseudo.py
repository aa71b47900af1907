"""Mask rules: from class maps and tags to pseudo masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from eosin.core.learner import Learner

IGNORE = 255
Predict = Callable[[Tensor], Tensor]
Maker = Callable[[Predict, Tensor], Tensor]


class TagGatedArgmax:
    """Every pixel gets the class with the highest map value among those that its tags allow.

    A class of unknown tag (NaN) is allowed. Absent classes count as minus infinity, so that no tie can draw one. A
    pixel at which no class is allowed, or whose best two are closer than ``band``, is left to 255 (not trained).

    Args:
        maker: makes the maker of maps, ``(predict, image)`` to ``[B, K, H, W]``.
        merge: average the maps of overlapping items of one parent image, and allow a class at a pixel only if every
            item over that pixel has its tag. OEEM joins overlapping patches too, each gated by its own tags only.
        band: smallest difference between the best and the second-best allowed class.
    """

    revision: ClassVar[int] = 1

    def __init__(self, maker: Callable[[], Maker], merge: bool = False, band: float = 0.0) -> None:
        self.maker = maker()
        self.merge = merge
        self.band = band

    def maps(self, learner: Learner, image: Tensor) -> Tensor:
        """Class maps ``[B, K, H, W]`` of images ``[B, 3, H, W]``."""
        return self.maker(learner.predict, image)

    def decide(self, maps: Tensor, allowed: Tensor) -> Tensor:
        """Masks uint8 ``[B, H, W]`` from maps ``[B, K, H, W]`` and a bool that broadcasts to their shape."""
        gated = maps.masked_fill(~allowed, -torch.inf)
        best, mask = gated.max(1)
        unsure = best == -torch.inf
        if self.band > 0 and maps.shape[1] > 1:
            unsure |= best - gated.topk(2, dim=1).values[:, 1] < self.band
        return mask.masked_fill(unsure, IGNORE).to(torch.uint8)
