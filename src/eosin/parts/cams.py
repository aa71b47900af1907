"""Averaging class maps over scales, mirror images and quarter turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from eosin.core.learner import resized


class Averaged:
    """The mean of the class maps of an image seen at several scales and in several positions.

    Args:
        scales: factors of the image size, at least one.
        views: 1: as it is; 4: also mirrored left-right, up-down and both ways; 8: each of them also turned by 90
            degrees (tissue has no upright).
    """

    def __init__(self, scales: Sequence[float] = (1.0,), views: Literal[1, 4, 8] = 1) -> None:
        self.scales = tuple(scales)
        flips: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1)) if views > 1 else ((),)
        self.views = [(flip, turn) for turn in ((0, 1) if views == 8 else (0,)) for flip in flips]

    def __call__(self, predict: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
        """Maps ``[B, K, H, W]`` of images ``[B, 3, H, W]``; ``predict`` makes ``[B, K, h, w]`` of ``[B, 3, h, w]``."""
        return reduce(torch.add, self._seen(predict, image)) / (len(self.scales) * len(self.views))

    def _seen(self, predict: Callable[[Tensor], Tensor], image: Tensor) -> Iterator[Tensor]:
        """The maps ``[B, K, H, W]`` of each scale and view, back in the image's position and size."""
        for scale in self.scales:
            scaled = resized(image, scale)
            for flip, turn in self.views:
                seen = torch.rot90(torch.flip(scaled, flip), turn, (-2, -1))
                maps = torch.flip(torch.rot90(predict(seen), -turn, (-2, -1)), flip)
                yield F.interpolate(maps.float(), size=image.shape[-2:], mode="bilinear", align_corners=False)
