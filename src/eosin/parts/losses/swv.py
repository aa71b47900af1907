"""The loss of masks that hold mistakes: pixels at which two other networks agree weigh more."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class SWV(nn.Module):
    """Cross-entropy whose pixels weigh by a vote of peers (samples weighted voting; ARML, Feng et al. 2024, eq. 4).

    A pixel for which all peers name the same class weighs ``omega``, any other ``1 / omega``. The sum is divided by
    the number of labelled pixels and not by that of the weights, so ``omega`` also scales the loss: it is about twice
    the plain one where peers agree nearly everywhere and ``omega = 2``. With 2 this is the cross-entropy of HAMIL
    (Zhong et al. 2023), too; with 1 it is plain; with infinity the weights are 1 and 0, as the paper's last row is run.

    Args:
        omega: at least 1, may be infinite.
        ignore: the mask value that means "not labelled".
    """

    def __init__(self, omega: float = 2.0, ignore: int = 255) -> None:
        super().__init__()
        self.agreed, self.split = (1.0, 0.0) if math.isinf(omega) else (omega, 1 / omega)
        self.ignore = ignore

    def forward(self, logits: Tensor, masks: Tensor, votes: Sequence[Tensor]) -> Tensor:
        """Compute the loss in at least float32, also under autocast.

        Args:
            logits: ``[B, K, H, W]``.
            masks: int64 ``[B, H, W]``, ``0..K-1`` or ``ignore``.
            votes: the classes that each peer names, int64 ``[B, H, W]``; one always agrees, and so do none.

        Returns:
            A scalar; 0 with a gradient (of zeros) where no pixel is labelled.
        """
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            # Summed by us: cross_entropy adds up with atomicAdd on a GPU, in an order that changes from call to call.
            losses = functional.cross_entropy(logits, masks, ignore_index=self.ignore, reduction="none")
            weights = torch.full_like(losses, self.agreed)
            for vote in votes[1:]:
                weights = weights.masked_fill(vote != votes[0], self.split)
            return (weights * losses).sum() / (masks != self.ignore).sum().clamp(min=1)
