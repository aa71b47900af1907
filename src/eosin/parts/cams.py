"""Averaging class maps over scales and flips."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own short name)


class Averaged:
    """The mean of the class maps of an image seen at several scales, with and without mirroring.

    Args:
        scales: factors of the image size.
        flip: also see the image mirrored left-right, up-down and both ways.
    """

    def __init__(self, scales: Sequence[float] = (1.0,), flip: bool = False) -> None:
        self.scales = tuple(scales)
        self.flips: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1)) if flip else ((),)

    def __call__(self, predict: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
        """``predict`` maps ``[B, 3, h, w]`` to ``[B, K, h, w]``; the answer is ``[B, K, H, W]`` for ``[B, 3, H, W]``."""
        size = image.shape[-2:]
        total: Tensor | None = None
        for scale in self.scales:
            scaled = image
            if scale != 1.0:
                sides = [max(1, round(side * scale)) for side in size]
                scaled = F.interpolate(image, size=sides, mode="bilinear", align_corners=False, antialias=scale < 1)
            for flip in self.flips:
                maps = torch.flip(predict(torch.flip(scaled, flip)), flip) if flip else predict(scaled)
                maps = F.interpolate(maps.float(), size=size, mode="bilinear", align_corners=False)
                total = maps if total is None else total + maps
        assert total is not None  # noqa: S101  (scales is not empty)
        return total / (len(self.scales) * len(self.flips))
