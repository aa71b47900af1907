"""A learner as the function that a model folder stores."""

from __future__ import annotations

from torch import Tensor, nn

from eosin.core.learner import Learner


class Exported(nn.Module):
    """From uint8 tiles ``[B, tile, tile, 3]`` to probabilities float32 ``[B, K, tile, tile]``."""

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, tiles: Tensor) -> Tensor:
        """Scale to 0..1, put channels first, predict."""
        return self.learner.predict(tiles.permute(0, 3, 1, 2).float() / 255).float()
