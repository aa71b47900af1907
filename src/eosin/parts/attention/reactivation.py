"""Reactivation: where features are strong already, they are damped, so that others get a say."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BOUND = 5.0  # an exponential of more would make features of any size


class ReactivationGate(nn.Module):
    """One factor for all channels of a pixel, ``f' = f exp(-Conv7x7(mean_c f_c))`` (ARML, Feng et al. 2024).

    That is the spatial half of ARS as it is printed. The exponent is kept within 5, which is ours.

    Shapes:
        ``[B, C, H, W]`` to the same, of any size and number of channels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 7, padding=3, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Features ``[B, C, H, W]``."""
        with torch.autocast(features.device.type, enabled=False):
            strength: Tensor = self.conv(features.float().mean(1, keepdim=True))
            return features * torch.exp(-strength.clamp(-BOUND, BOUND)).to(features.dtype)
