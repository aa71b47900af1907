"""How alike pixels and prototypes are, at one stage of an encoder."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

START = 1 / 0.07  # of the scale of cosines; it learns


class PrototypeHead(nn.Module):
    """Prototypes brought into the space of a stage, their likeness to its pixels, and its scale (LPD, PBIP, TPRO).

    Args:
        width: of the prototypes.
        channels: D, of the stage.
        projection: ``mlp``: ``width`` to half of it, ReLU, to D; ``linear``: one layer. Weights begin with a standard
            deviation of 0.02, biases at 0.
        likeness: ``cosine``, or ``product`` of pixels of length 1 and prototypes as they are (TPRO).
    """

    def __init__(
        self,
        width: int,
        channels: int,
        projection: Literal["mlp", "linear"] = "mlp",
        likeness: Literal["cosine", "product"] = "cosine",
    ) -> None:
        super().__init__()
        self.likeness = likeness
        hidden = width // 2
        mlp = (nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.project = nn.Sequential(*mlp) if projection == "mlp" else nn.Linear(width, channels)
        for module in self.project.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.scale = nn.Parameter(torch.tensor(START))

    def forward(self, features: Tensor, prototypes: Tensor) -> tuple[Tensor, Tensor]:
        """Likeness in float32, also under autocast.

        Args:
            features: ``[B, D, h, w]``.
            prototypes: ``[K, k, width]``.

        Returns:
            Likeness ``[B, K, k, h, w]``, not scaled, and the prototypes as they are in this stage, ``[K, k, D]``.
        """
        with torch.autocast(features.device.type, enabled=False):
            here: Tensor = self.project(prototypes)
            pixels = F.normalize(features.float(), dim=1)
            likened = F.normalize(here, dim=2) if self.likeness == "cosine" else here
            return torch.einsum("bdhw,ckd->bckhw", pixels, likened), here
