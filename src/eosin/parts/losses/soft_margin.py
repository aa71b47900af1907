"""The loss of image-level labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class SoftMargin(nn.Module):
    """Multi-label soft margin: binary cross-entropy with logits, mean over the known tags of the batch.

    With all tags known this is the mean over classes, then over images. An unknown tag (NaN) is as if that class had
    never been asked of that image: no value, no gradient, no share in the mean.
    """

    def forward(self, logits: Tensor, tags: Tensor) -> Tensor:
        """Compute the loss in float32, also under autocast.

        Args:
            logits: ``[B, K]``.
            tags: ``[B, K]``, 1 present, 0 absent, NaN unknown.

        Returns:
            A float32 scalar; 0 with a gradient (of zeros) where no tag is known.
        """
        with torch.autocast(logits.device.type, enabled=False):
            known = ~tags.isnan()
            # Replaced before the loss, because NaN times 0 would still be NaN in the gradient.
            targets = torch.where(known, tags, 0.0).float()
            losses = functional.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
            return torch.where(known, losses, 0.0).sum() / known.sum().clamp(min=1)
