"""The loss of image-level labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

BOUND = 10.0  # the largest weight of a positive term; the smallest is its inverse


class SoftMargin(nn.Module):
    """Multi-label soft margin: binary cross-entropy with logits, mean over the known tags of the batch.

    With all tags known this is the mean over classes, then over images. An unknown tag (NaN) is as if that class had
    never been asked of that image: no value, no gradient, no share in the mean.

    Args:
        positive: the weight of each class where it is present, ``w [-y log s(x)] - (1 - y) log(1 - s(x))``, as torch's
            ``pos_weight``; the mean is still over the number of known tags. None weighs nothing.
    """

    positive: Tensor | None

    def __init__(self, positive: tuple[float, ...] | None = None) -> None:
        super().__init__()
        self.register_buffer("positive", None if positive is None else torch.tensor(positive), persistent=False)

    def forward(self, logits: Tensor, tags: Tensor) -> Tensor:
        """Compute the loss in float32, also under autocast.

        Args:
            logits: ``[B, K]``.
            tags: ``[B, K]``, 1 present, 0 absent, NaN unknown.

        Returns:
            A float32 scalar; 0 with a gradient (of zeros) where no tag is known.

        Raises:
            ValueError: if there are not K weights.
        """
        if self.positive is not None and len(self.positive) != logits.shape[1]:
            raise ValueError(f"{len(self.positive)} positive weights for {logits.shape[1]} classes")
        with torch.autocast(logits.device.type, enabled=False):
            known = ~tags.isnan()
            # Replaced before the loss, because NaN times 0 would still be NaN in the gradient.
            targets = torch.where(known, tags, 0.0).float()
            losses = functional.binary_cross_entropy_with_logits(
                logits.float(), targets, pos_weight=self.positive, reduction="none"
            )
            return torch.where(known, losses, 0.0).sum() / known.sum().clamp(min=1)


def balancing(counts: Sequence[tuple[int, int]]) -> tuple[float, ...]:
    """Positive weights that let the images with a class and those without it count alike: absent / present.

    They are kept within 1/10 and 10. Beyond, the few images of a very rare class, and any of them that is tagged by
    mistake, would decide every step that they are in; and the smaller a count is, the less certain is the weight that
    is made of it. The other end is the mirror of that, for a class that is nearly everywhere. The bound is ours.

    Args:
        counts: known (present, absent) training tags of each class.

    Returns:
        The weight of each class; 1 for a class that is never or always present, as there is nothing to balance.
    """
    weights = (absent / present if present and absent else 1.0 for present, absent in counts)
    return tuple(min(BOUND, max(1 / BOUND, weight)) for weight in weights)
