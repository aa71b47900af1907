"""The loss by which the images of a batch resemble each other as much as another network has it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Correlation(nn.Module):
    """Mean squared difference of ``G = X X^T`` of student and teacher, rows of norm 1 (Tung and Mori 2019).

    ``X`` has a row for each image of the batch: all its logits, flattened. This is how we read the loss ``CRL`` in
    table 4 of ARML (Feng et al. 2024), which is named and not written down: the released code has it, and uses it
    nowhere.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss in at least float32, also under autocast.

        Args:
            student: logits ``[B, K, H, W]``.
            teacher: logits of the same shape; they get no gradient.

        Returns:
            A scalar; 0 for a single image, which has nothing to resemble.
        """
        with torch.autocast(student.device.type, enabled=False):
            return functional.mse_loss(_resemblance(student), _resemblance(teacher.detach()))


def _resemblance(logits: Tensor) -> Tensor:
    """Products of all pairs of images, ``[B, B]``, each row of norm 1; 0 for an image of zeros."""
    points = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(1)
    return functional.normalize(points @ points.T, dim=1)
