"""The loss by which features under a class map are recognised as that class, and as no other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Reactivation(nn.Module):
    """Softmax cross-entropy of what each present class shows of an image (ReCAM, Chen et al. 2022, equation 3).

    The mean over the classes that an image is known to hold, then over the images that hold one. An absent or an
    unknown tag (NaN) draws no map, and so has no term; as a rival in the softmax every class counts, since a map of one
    class is none of another whether or not the image holds that one, too.
    """

    def forward(self, logits: Tensor, tags: Tensor) -> Tensor:
        """Compute the loss in float32, also under autocast.

        Args:
            logits: ``[B, K, K]``: of image, class that was looked for, class that it is taken for.
            tags: ``[B, K]``, 1 present, 0 absent, NaN unknown.

        Returns:
            A float32 scalar; 0 with a gradient (of zeros) where no tag is known to be present.
        """
        with torch.autocast(logits.device.type, enabled=False):
            present = (tags == 1).float()
            held = present.sum(1)
            losses = -functional.log_softmax(logits.float(), 2).diagonal(dim1=1, dim2=2)
            means = (losses * present).sum(1) / held.clamp(min=1)
            return means.sum() / (held > 0).sum().clamp(min=1)
