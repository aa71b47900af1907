"""The loss of masks that hold mistakes: pixels that are easy to learn weigh more."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class PLF(nn.Module):
    """Cross-entropy whose pixels weigh by how well they are predicted already, mean over the labelled pixels.

    A pixel of loss ``l``, whose label has probability ``p = exp(-l)``, weighs ``p / mean p``, the mean being over the
    labelled pixels of its image, times a confidence, ``max_c p_c - min_c p_c`` (the gland method, Feng et al. 2025,
    eq. 11, as printed). Without the confidence this is the loss of OEEM (Li et al. 2022), ``softmax(-l)`` over the
    pixels of an image divided by its mean, so that the weights of an image have mean 1. Weights have no gradient.
    Where a mask has one value there are no easier pixels to tell from harder ones, and all weigh 1.

    Args:
        confidence: whether the confidence weighs, too.
        ignore: the mask value that means "not labelled".
    """

    def __init__(self, confidence: bool = True, ignore: int = 255) -> None:
        super().__init__()
        self.confidence = confidence
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
            logits = logits.float()
            # Summed by us: cross_entropy adds up with atomicAdd on a GPU, in an order that changes from call to call.
            losses = functional.cross_entropy(logits, masks, ignore_index=self.ignore, reduction="none")
            weighed = self.weights(logits, masks, losses) * losses
            return weighed.sum() / (masks != self.ignore).sum().clamp(min=1)

    @torch.no_grad()
    def weights(self, logits: Tensor, masks: Tensor, losses: Tensor) -> Tensor:
        """The weight of each pixel, float32 ``[B, H, W]``; what it is where nothing is labelled has no meaning."""
        labelled = masks != self.ignore
        # The softmax of -l is p / sum p, and does not vanish where every p is too small for float32.
        shares = losses.masked_fill(~labelled, torch.inf).neg().flatten(1).softmax(1).view_as(losses)
        weights = shares * labelled.sum((1, 2), keepdim=True)
        if self.confidence:
            probabilities = logits.softmax(1)
            weights = weights * (probabilities.amax(1) - probabilities.amin(1))
        low = masks.masked_fill(~labelled, torch.iinfo(masks.dtype).max).amin((1, 2), keepdim=True)
        high = masks.masked_fill(~labelled, -1).amax((1, 2), keepdim=True)
        return torch.where(low < high, weights, 1.0)
