"""Progressive dropout attention: where a class is seen most clearly, a classifier in training sees nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eosin.core.values import Clock


class DropoutAttention(nn.Module):
    """Multiplies features by how much of any class they show, but for where they show most (MLPS, Han et al. 2022).

    With the class maps ``A_c`` of the features and a bound ``g`` that falls from epoch to epoch,

    ``F' = F (1/K) sum_c A_c^+ [A_c^+ <= g max A_c^+]``, ``A_c^+ = relu(A_c)``.

    So the most discriminative regions are dropped, more of them as training goes on, and the classifier has to look for
    others. It is for training alone.

    Args:
        begin: the epoch, counted from 0, from which on it is done.
        decay: what the bound is multiplied by each epoch, from 1 in epoch 0.
        least: the smallest bound.
    """

    def __init__(self, begin: int = 3, decay: float = 0.98, least: float = 0.65) -> None:
        super().__init__()
        self.begin = begin
        self.decay = decay
        self.least = least

    def bound(self, epoch: int) -> float:
        """``g`` in an epoch, counted from 0."""
        return max(self.decay**epoch, self.least)

    def forward(self, features: Tensor, maps: Tensor, clock: Clock) -> Tensor:
        """Features ``[B, D, h, w]`` before dropout.

        Args:
            features: ``[B, D, h, w]``.
            maps: their class maps, ``[B, K, h, w]``.
            clock: tells the epoch.
        """
        if clock.epoch < self.begin:
            return features
        with torch.autocast(features.device.type, enabled=False):
            shown = maps.float().relu()
            kept = shown <= self.bound(clock.epoch) * shown.amax((2, 3), keepdim=True)
            return features * (shown * kept).mean(1, keepdim=True).to(features.dtype)
