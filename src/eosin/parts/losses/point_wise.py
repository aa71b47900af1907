"""The loss by which a network answers at each pixel as another network does."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PointWise(nn.Module):
    """Mean over the pixels of ``|softmax(s) - softmax(t)|_2`` (ARML, Feng et al. 2024, the loss ``L_pt`` of table 4).

    The softmax is over classes and the norm that of a pixel's probabilities, so the loss is between 0 and the root of
    2, whatever the size of an image.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss in at least float32, also under autocast.

        Args:
            student: logits ``[B, K, H, W]``.
            teacher: logits of the same shape; they get no gradient.

        Returns:
            A scalar. Where both are the same its gradient is 0.
        """
        with torch.autocast(student.device.type, enabled=False):
            kind = torch.promote_types(student.dtype, torch.float32)
            taught = teacher.detach().to(kind).softmax(1)
            apart: Tensor = torch.linalg.vector_norm(student.to(kind).softmax(1) - taught, dim=1)
            return apart.mean()
