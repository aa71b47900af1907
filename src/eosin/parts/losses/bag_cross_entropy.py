"""The loss of bags whose score is pooled from the probabilities of their pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAST = 1e-6  # how near to 0 and 1 a pooled probability may come


class BagCrossEntropy(nn.Module):
    """Binary cross-entropy of pooled maps and tags; of an image's maps it is the sum (SA-MIL, Swin-MIL).

    The mean is over the known tags of all images.

    Args:
        pool: makes the pooling, ``[..., H, W]`` in 0..1 to ``[...]`` in 0..1.
    """

    def __init__(self, pool: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.pool = pool()

    def forward(self, maps: Tensor, present: Tensor) -> Tensor:
        """Compute the loss in float32, also under autocast.

        Args:
            maps: probabilities ``[B, S, K, H, W]``, S maps of each class.
            present: tags ``[B, K]``, 1 present, 0 absent, NaN unknown.

        Returns:
            A float32 scalar; 0 with a gradient (of zeros) where no tag is known.
        """
        with torch.autocast(maps.device.type, enabled=False):
            known = ~present.isnan()
            scores = self.pool(maps.float()).clamp(LEAST, 1 - LEAST)
            tags = torch.where(known, present, 0.0).float()[:, None].expand_as(scores)
            each = functional.binary_cross_entropy(scores, tags, reduction="none").sum(1)
            return torch.where(known, each, 0.0).sum() / known.sum().clamp(min=1)
