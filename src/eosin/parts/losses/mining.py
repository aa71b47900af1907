"""The loss that mines reliable pixels of a teacher's map: what the student finds hard weighs less."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAST = 1e-6  # how near to 0 and 1 a student's probability may come
CUT = 0.5  # from where on a teacher's probability counts as present


class Mining(nn.Module):
    """Weighted cross-entropy of a student's map ``p`` and a teacher's map ``t`` (``L_wce`` of IKD-MIL, equation 3).

    ``L = sum_i w_i ce_i``, ``w = softmax(-ce)`` over the pixels of a map. With ``q_i`` the probability that the student
    gives to the target, ``softmax(-ce)_i = q_i / sum_j q_j``. The weights have no gradient; the mean is over the known
    tags of all images. Of a class that is absent the target is 0 everywhere.

    Args:
        target: ``hard``: ``ce = -log q`` with the target ``t >= 0.5``; ``soft``: the binary cross-entropy of ``p`` and
            ``t``; ``printed``: ``-t log p``, as the paper has it, which lacks the other class and so pulls ``p`` up
            only.
        weighted: weigh pixels; else all weigh ``1 / N``. A map whose target is of one class alone, cut at 0.5, never
            weighs them, but for ``printed``.
    """

    def __init__(self, target: Literal["hard", "soft", "printed"] = "hard", weighted: bool = True) -> None:
        super().__init__()
        self.target, self.weighted = target, weighted

    def forward(self, student: Tensor, teacher: Tensor, present: Tensor) -> Tensor:
        """Compute the loss in float32, also under autocast.

        Args:
            student: probabilities ``[B, K, H, W]``.
            teacher: likewise; they get no gradient.
            present: tags ``[B, K]``, 1 present, 0 absent, NaN unknown.

        Returns:
            A float32 scalar; 0 with a gradient (of zeros) where no tag is known.
        """
        with torch.autocast(student.device.type, enabled=False):
            known = ~present.isnan()
            taught = torch.where((present == 1)[..., None, None], teacher.detach().float(), 0.0)
            cut = (taught >= CUT).float()
            found = student.float().clamp(LEAST, 1 - LEAST)
            if self.target == "printed":
                losses = -taught * found.log()
            else:
                target = cut if self.target == "hard" else taught
                losses = functional.binary_cross_entropy(found, target, reduction="none")
            each = (self._weights(losses.detach(), cut) * losses).sum((-2, -1))
            return torch.where(known, each, 0.0).sum() / known.sum().clamp(min=1)

    def _weights(self, losses: Tensor, cut: Tensor) -> Tensor:
        """What each pixel weighs, adding up to 1 over a map."""
        plain = torch.full_like(losses, 1 / losses[0, 0].numel())
        if not self.weighted:
            return plain
        mined = (-losses).flatten(2).softmax(2).view_as(losses)
        if self.target == "printed":
            return mined
        both = (cut.amax((-2, -1), keepdim=True) > 0) & (cut.amin((-2, -1), keepdim=True) == 0)
        return torch.where(both, mined, plain)
