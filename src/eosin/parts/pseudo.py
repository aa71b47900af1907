"""Mask rules: from class maps and tags to pseudo masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from eosin.core.learner import Learner

IGNORE = 255
Predict = Callable[[Tensor], Tensor]
Maker = Callable[[Predict, Tensor], Tensor]
Source = Callable[[Any, Tensor], Tensor]
Step = Callable[[Tensor, Tensor, Tensor], Tensor]


class TagGatedArgmax:
    """Every pixel gets the class with the highest map value among those that its tags allow.

    A class of unknown tag (NaN) is allowed. Absent classes count as minus infinity, so that no tie can draw one. A
    pixel at which no class is allowed, or whose best two are equal or closer than ``band``, is left to 255 (not
    trained): maps without what is negative are all 0 where nothing speaks for any class.

    Args:
        maker: makes the maker of maps, ``(predict, image)`` to ``[B, K, H, W]``.
        merge: average the maps of overlapping items of one parent image, and allow a class at a pixel only if every
            item over that pixel has its tag. OEEM joins overlapping patches too, each gated by its own tags only.
        band: smallest difference between the best and the second-best allowed class.
    """

    revision: ClassVar[int] = 2

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
        unsure = (best == -torch.inf) | ((gated == best[:, None]).sum(1) > 1)
        if self.band > 0 and maps.shape[1] > 1:
            unsure |= best - gated.topk(2, dim=1).values[:, 1] < self.band
        return mask.masked_fill(unsure, IGNORE).to(torch.uint8)


class RefinedArgmax(TagGatedArgmax):
    """As :class:`TagGatedArgmax`, of maps from another source, which are refined before a class is chosen.

    A step may add maps behind those of the K classes, of what is none of them, such as empty glass. Tags do not gate
    them, and a pixel that one of them wins is left to 255.

    Args:
        source: makes the source of maps, ``(learner, image)`` to ``[B, K, h, w]``, whatever the learner predicts.
        maker: as there; what it is given to call is the source.
        merge: as there.
        band: as there, of the refined maps.
        scored: multiply each map by the learner's score of its tag, so that a doubtful class draws less.
        steps: make the steps of refinement, done in this order once overlapping items are merged: each takes maps
            ``[B, C, H, W]`` of at least 0, where the K classes may be (bool ``[B, K, H, W]``, or broadcastable) and
            images ``[B, 3, H, W]`` to maps ``[B, C or more, H, W]``.
    """

    revision: ClassVar[int] = 2

    def __init__(
        self,
        source: Callable[[], Source],
        maker: Callable[[], Maker],
        merge: bool = False,
        band: float = 0.0,
        scored: bool = False,
        steps: Sequence[Callable[[], Step]] = (),
    ) -> None:
        super().__init__(maker, merge, band)
        self.source = source()
        self.scored = scored
        self.steps = [step() for step in steps]

    def maps(self, learner: Learner, image: Tensor) -> Tensor:
        """Class maps ``[B, K, H, W]`` of images ``[B, 3, H, W]``, before refinement."""
        maps = self.maker(partial(self.source, learner), image)
        return maps * learner.tag_scores(image)[:, :, None, None] if self.scored else maps

    def refine(self, maps: Tensor, allowed: Tensor, image: Tensor) -> Tensor:
        """Maps ``[B, C, H, W]`` after all steps; see the class for ``allowed`` and ``image``."""
        for step in self.steps:
            maps = step(maps, allowed, image)
        return maps

    def decide(self, maps: Tensor, allowed: Tensor) -> Tensor:
        """Masks uint8 ``[B, H, W]``; of C maps, those behind the K classes of ``allowed`` draw 255."""
        classes = allowed.shape[1]
        free = torch.ones_like(allowed[:, :1]).expand(-1, maps.shape[1] - classes, -1, -1)
        mask = super().decide(maps, torch.cat([allowed, free], 1))
        return mask.masked_fill(mask >= classes, IGNORE)
