"""The loss by which a network learns the softened probabilities of another one."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class KL(nn.Module):
    """Mean over the pixels of ``T^2 KL(softmax(t / T) || softmax(s / T))`` (Hinton et al. 2015).

    The softmax is over classes. ``T^2`` keeps the gradient of the size that it has at ``T = 1``.

    Args:
        temperature: ``T``; HAMIL (Zhong et al. 2023) has 30.
    """

    def __init__(self, temperature: float = 30.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss in at least float32, also under autocast.

        Args:
            student: logits ``[B, K, H, W]``.
            teacher: logits of the same shape; they get no gradient.

        Returns:
            A scalar of at least 0 up to rounding.
        """
        with torch.autocast(student.device.type, enabled=False):
            kind = torch.promote_types(student.dtype, torch.float32)
            taught = (teacher.detach().to(kind) / self.temperature).log_softmax(1)
            learnt = (student.to(kind) / self.temperature).log_softmax(1)
            return self.temperature**2 * (taught.exp() * (taught - learnt)).sum(1).mean()
