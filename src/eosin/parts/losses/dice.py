"""The overlap of predictions with masks, with other predictions, and with what the tag of a whole image says."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class SoftDice(nn.Module):
    """Soft Dice of class probabilities, mean over the images that have labelled pixels and over all classes.

    Args:
        ignore: the mask value that means "not labelled"; such pixels are in no sum.
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
            A float32 scalar in 0..1; 0 with a gradient (of zeros) where no pixel is labelled.
        """
        with torch.autocast(logits.device.type, enabled=False):
            labelled = masks != self.ignore
            truth = functional.one_hot(masks.masked_fill(~labelled, 0), logits.shape[1]).permute(0, 3, 1, 2)
            known = labelled[:, None]
            overlap = dice(logits.float().softmax(1) * known, truth * known)
            images = labelled.any(-1).any(-1)
            return (overlap.mean(1) * images).sum() / images.sum().clamp(min=1)


class BagDice(nn.Module):
    """Soft Dice of maps of which only the image's tag is known, or what a teacher says of them (IKD-MIL).

    With the tag ``y`` of a class, a map ``o`` and its target ``t``, ``D`` the Dice of two maps:

    ``y = 1``: ``D(o, t)``; without a teacher ``t`` is 1 everywhere;
    ``y = 0``: ``D(1 - o, 1)``, since against an empty map any Dice is close to 1.

    The terms of all maps of an image are added up; the mean is over the known tags of all images.
    """

    def forward(self, maps: Tensor, present: Tensor, targets: Tensor | None = None) -> Tensor:
        """Compute the loss in float32, also under autocast.

        Args:
            maps: probabilities ``[B, S, K, H, W]``, S maps of each class.
            present: tags ``[B, K]``, 1 present, 0 absent, NaN unknown.
            targets: ``[B, S, K, H, W]``, or with S = 1 for all maps alike; they get no gradient.

        Returns:
            A float32 scalar; 0 with a gradient (of zeros) where no tag is known.
        """
        with torch.autocast(maps.device.type, enabled=False):
            maps, known = maps.float(), ~present.isnan()
            there = (present == 1)[:, None, :, None, None]
            outputs = torch.where(there, maps, 1 - maps)
            wanted = maps.new_ones(()) if targets is None else torch.where(there, targets.detach().float(), 1.0)
            each = dice(outputs, wanted.expand_as(outputs)).sum(1)
            return torch.where(known, each, 0.0).sum() / known.sum().clamp(min=1)


def dice(outputs: Tensor, targets: Tensor) -> Tensor:
    """One minus the Dice of two maps, ``1 - (2 sum o t + 1) / (sum o + sum t + 1)``, sums over the pixels.

    The ones keep it finite, and at 0, where both are empty; targets may be soft, and then a map's own is not 0.

    Args:
        outputs: in 0..1, ``[..., H, W]``.
        targets: in 0..1, of the same shape.

    Returns:
        float32 ``[...]`` in 0..1.
    """
    outputs, targets = outputs.float(), targets.float()
    together, apart = (outputs * targets).sum((-2, -1)), outputs.sum((-2, -1)) + targets.sum((-2, -1))
    return 1 - (2 * together + 1) / (apart + 1)
