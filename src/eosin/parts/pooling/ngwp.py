"""Pooling by what competing classes claim of an image, with a penalty for classes that claim next to nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

POWER, FLOOR = 3.0, 0.01  # p and lambda of the penalty


class NGWP(nn.Module):
    """Normalised global weighted pooling with a focal penalty (Araslanov and Roth 2020, as in PDSeg, Li et al. 2025).

    With ``m`` the softmax over classes of the maps ``x`` at each pixel, the score of a class is

    ``sum_p m_p x_p / (1 + sum_p m_p) + (1 - mean_p m_p)^3 log(0.01 + mean_p m_p)``.

    The first part is the mean of a map where it wins, whatever the size of that place; the second is a price for
    winning nowhere. Gradients flow through ``m``, too.

    Args:
        focal: whether there is a penalty.
        background: whether a map of ones takes part in the softmax, so that a pixel may belong to no class. Its own
            score is dropped. PDSeg leaves it out, since on tissue every pixel has a class.

    Shapes:
        maps ``[B, K, h, w]`` of any size to ``[B, K]``.
    """

    def __init__(self, focal: bool = True, background: bool = False) -> None:
        super().__init__()
        self.focal = focal
        self.background = background

    def forward(self, maps: Tensor) -> Tensor:
        """Scores float32 ``[B, K]``."""
        with torch.autocast(maps.device.type, enabled=False):
            x = maps.float().flatten(2)
            rivals = torch.cat([x, torch.ones_like(x[:, :1])], 1) if self.background else x
            m = rivals.softmax(1)[:, : x.shape[1]]
            scores = (m * x).sum(2) / (1 + m.sum(2))
            if not self.focal:
                return scores
            share = m.mean(2)
            return scores + (1 - share) ** POWER * torch.log(FLOOR + share)
