"""How alike pixels and prototypes are, at one stage of an encoder."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

START = 1 / 0.07  # of the scale of cosines; it learns


class PrototypeHead(nn.Module):
    """Prototypes brought into the space of a stage, their cosines to its pixels, and the scale of these (LPD, PBIP).

    Args:
        width: of the prototypes.
        channels: D, of the stage.
        projection: ``mlp``: ``width`` to half of it, ReLU, to D; ``linear``: one layer. Weights begin with a standard
            deviation of 0.02, biases at 0.
    """

    def __init__(self, width: int, channels: int, projection: Literal["mlp", "linear"] = "mlp") -> None:
        super().__init__()
        hidden = width // 2
        mlp = (nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.project = nn.Sequential(*mlp) if projection == "mlp" else nn.Linear(width, channels)
        for module in self.project.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.scale = nn.Parameter(torch.tensor(START))

    def forward(self, features: Tensor, prototypes: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines in float32, also under autocast.

        Args:
            features: ``[B, D, h, w]``.
            prototypes: ``[K, k, width]``.

        Returns:
            Cosines ``[B, K, k, h, w]``, not scaled, and the prototypes as they are in this stage, ``[K, k, D]``.
        """
        with torch.autocast(features.device.type, enabled=False):
            here: Tensor = self.project(prototypes)
            pixels, likened = F.normalize(features.float(), dim=1), F.normalize(here, dim=2)
            return torch.einsum("bdhw,ckd->bckhw", pixels, likened), here
