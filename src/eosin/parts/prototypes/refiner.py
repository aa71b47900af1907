"""The mask refiner: what the map of a prototype shows of an image, and what it hides, told apart by prototypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eosin.parts.prototypes.maps import stretched, upper
from eosin.parts.prototypes.seen import Seen


class Guide(Protocol):
    """Something that describes what weights leave of images, in the space of the prototypes."""

    def __call__(self, image: Tensor, weights: Tensor) -> Tensor:
        """Vectors ``[N, width]`` of images ``[N, 3, H, W]`` in 0..1 and weights ``[N, 1, H, W]`` in 0..1."""
        ...


class MaskRefiner(nn.Module):
    """A map should show what its prototype stands for, and hide what prototypes of other classes do (PBIP, LPD).

    Of each image the prototypes count whose tag is known to be present and that have a say in it (:func:`heeded`), but
    for maps that are the same everywhere, which show and hide nothing.
    With the map ``m`` of such a pair stretched to 0..1 and ``b = [m >= max m / 2]``, what is shown is ``b m`` of the
    image, and what is hidden ``(1 - b) (1 - m)`` of it.

    Args:
        contrast: makes the loss, ``(shown, hidden, prototypes, own, negative)`` to a scalar.
        guide: makes what describes both; None takes the mean of the learner's own features, weighed likewise and
            detached, and the prototypes as they are in the space of these features.
        pairs: most pairs that are looked at in a step, drawn anew each time with the same chance for all, so that
            their mean is that of all pairs on average; 0 looks at all.
        negatives: ``others``: prototypes of other classes; ``all``: also the others of the same class.
    """

    def __init__(
        self,
        contrast: Callable[[], nn.Module],
        guide: Callable[[], Guide] | None = None,
        pairs: int = 16,
        negatives: Literal["others", "all"] = "others",
    ) -> None:
        super().__init__()
        self.contrast = contrast()
        self.guide = guide() if guide is not None else None
        self.pairs = pairs
        self.negatives = negatives

    def forward(self, seen: Seen) -> Tensor:
        """The loss of a batch, by its last stage; 0 with a gradient (of zeros) where no pair counts."""
        stage = seen.last
        device = stage.maps.device.type
        outside = torch.autocast(device, enabled=torch.is_autocast_enabled(device))  # for the guide, a network
        with torch.autocast(device, enabled=False):
            known = stage.maps.detach()
            uneven = known.amax((3, 4)) > known.amin((3, 4))
            of, kind, which = self._drawn(heeded(known.mean((3, 4)), seen.tags) & uneven)
            maps = stage.maps[of, kind, which]
            if self.guide is None:
                bank, features = stage.here, stage.features.detach().to(maps)[of]
                shown, hidden = (pooled(features, weights) for weights in split(stretched(maps)))
            else:
                bank, image = seen.prototypes, seen.image[of]
                large = F.interpolate(maps[:, None], size=image.shape[2:], mode="bilinear", align_corners=False)
                with outside:
                    shown, hidden = (self._described(image, weights) for weights in split(stretched(large[:, 0])))
            classes, count = bank.shape[:2]
            own = kind * count + which
            owners = torch.arange(classes, device=own.device).repeat_interleave(count)
            strangers = owners != kind[:, None]
            if self.negatives == "all":
                strangers = torch.arange(classes * count, device=own.device) != own[:, None]
            loss: Tensor = self.contrast(shown, hidden, bank.flatten(0, 1), own, strangers)
            return loss

    def _drawn(self, heeded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image, class and prototype, each int64 ``[N]``, of the pairs that are looked at."""
        found = heeded.nonzero()
        if self.pairs and len(found) > self.pairs:
            found = found[torch.randperm(len(found), device=found.device)[: self.pairs]]
        of, kind, which = found.unbind(1)
        return of, kind, which

    def _described(self, image: Tensor, weights: Tensor) -> Tensor:
        assert self.guide is not None
        return self.guide(image, weights[:, None]) if len(image) else weights.new_zeros(0, 1)


def heeded(scores: Tensor, tags: Tensor) -> Tensor:
    """The prototypes that have a say in an image.

    Args:
        scores: of each prototype in the image, ``[B, K, k]``.
        tags: ``[B, K]``.

    Returns:
        bool ``[B, K, k]``: those of a present class whose score is above the mean of their class; of equal ones all.
    """
    above = (scores > scores.mean(2, keepdim=True)) | (scores == scores.amax(2, keepdim=True))
    return above & (tags == 1)[:, :, None]


def split(maps: Tensor) -> tuple[Tensor, Tensor]:
    """What maps ``[N, h, w]`` in 0..1 show and what they hide: ``b m`` and ``(1 - b) (1 - m)``."""
    front = upper(maps).to(maps)
    return front * maps, (1 - front) * (1 - maps)


def pooled(features: Tensor, weights: Tensor) -> Tensor:
    """The mean of features ``[N, D, h, w]`` by weights ``[N, h, w]``; 0 where nothing has a weight."""
    total = weights.sum((1, 2)).clamp(min=torch.finfo(weights.dtype).tiny)
    return torch.einsum("ndhw,nhw->nd", features, weights) / total[:, None]
