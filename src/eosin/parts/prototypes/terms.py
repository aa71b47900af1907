"""Loss terms beside that of tags."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from eosin.parts.prototypes.maps import located
from eosin.parts.prototypes.seen import Seen


class Apart(nn.Module):
    """Prototypes of a class are kept apart by what they look at, in the last stage.

    Where a class is, is guessed from the fused maps of the classes that an image is known to hold.

    Args:
        loss: makes the loss, ``(cosines [B, K, k, h, w], mask [B, h, w])`` to a scalar.
        floor: a pixel at which no fused map, in 0..1, is above it has no class.
    """

    def __init__(self, loss: Callable[[], nn.Module], floor: float) -> None:
        super().__init__()
        self.loss = loss()
        self.floor = floor

    def forward(self, seen: Seen) -> Tensor:
        """The loss."""
        with torch.no_grad():
            mask = located(seen.fusion.located(seen.stages), seen.tags, self.floor)
        found: Tensor = self.loss(seen.last.cosines, mask)
        return found


class Area(nn.Module):
    """The mean of all maps of the last stage; it may be negative."""

    def forward(self, seen: Seen) -> Tensor:
        """The loss."""
        return seen.last.maps.mean()
