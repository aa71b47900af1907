"""The loss of masks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class PixelCrossEntropy(nn.Module):
    """Cross-entropy of class logits, mean over the labelled pixels of the batch.

    Args:
        ignore: the mask value that means "not labelled".
    """

    def __init__(self, ignore: int = 255) -> None:
        super().__init__()
        self.ignore = ignore

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Compute the loss in float32, also under autocast.

        Args:
            logits: ``[B, K, H, W]``.
            masks: int64 ``[B, H, W]``, ``0..K-1`` or ``ignore``.

        Returns:
            A float32 scalar; 0 with a gradient (of zeros) where no pixel is labelled.
        """
        with torch.autocast(logits.device.type, enabled=False):
            # Summed by us: cross_entropy adds up with atomicAdd on a GPU, in an order that changes from call to call.
            losses = functional.cross_entropy(logits.float(), masks, ignore_index=self.ignore, reduction="none")
            return losses.sum() / (masks != self.ignore).sum().clamp(min=1)
