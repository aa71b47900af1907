"""The loss by which distillation tokens learn the class of each patch from a teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PatchDistillation(nn.Module):
    """Binary cross-entropy of a student's class logits with a half hardened answer of a teacher (PDSeg, equation 1).

    With ``S`` the softmax over classes of the teacher's logits at a patch and ``H`` the one-hot of its highest class
    (all of them where several tie), the target is ``alpha H + (1 - alpha) S``; the mean is over patches and classes.

    Args:
        alpha: the share of ``H``, in 0..1; 0.5 in the paper's code.
        gate: whether classes whose tag is absent are taken out of ``S``, which is then normalised anew, and of ``H``. A
            class of unknown tag (NaN) stays. An image of which no tag is known then has no say in the mean.
    """

    def __init__(self, alpha: float = 0.5, gate: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.gate = gate

    def target(self, teacher: Tensor, tags: Tensor) -> Tensor:
        """What is learnt, float32 in 0..1 and without gradient: ``[B, K, h, w]`` of logits of that shape."""
        soft = teacher.detach().float().softmax(1)
        allowed = torch.ones_like(soft)
        if self.gate:
            allowed = (tags != 0).to(soft)[:, :, None, None]
            soft = soft * allowed
            soft = soft / soft.sum(1, keepdim=True).clamp(min=torch.finfo(soft.dtype).tiny)
        hard = (soft == soft.amax(1, keepdim=True)).to(soft) * allowed
        return self.alpha * hard + (1 - self.alpha) * soft

    def forward(self, student: Tensor, teacher: Tensor, tags: Tensor) -> Tensor:
        """Compute the loss in float32, also under autocast.

        Args:
            student: logits ``[B, K, h, w]``.
            teacher: logits of the same shape; they get no gradient.
            tags: ``[B, K]``, 1 present, 0 absent, NaN unknown.

        Returns:
            A float32 scalar; 0 with a gradient (of zeros) where no image has a say.
        """
        with torch.autocast(student.device.type, enabled=False):
            losses = F.binary_cross_entropy_with_logits(student.float(), self.target(teacher, tags), reduction="none")
            if not self.gate:
                return losses.mean()
            known = (~tags.isnan()).any(1)
            each = torch.where(known, losses.mean((1, 2, 3)), 0.0)
            return each.sum() / known.sum().clamp(min=1)
