"""Several networks that learn from the same doubtful masks and from each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eosin.core.learner import Learner, Normalise, resized, resized_masks
from eosin.core.values import Batch, Clock


class Peers(Learner):
    """Networks of one form and different first weights, each taught by the others (ARML, HAMIL).

    Each network in turn is the one that learns, the others are its peers: they vote on which pixels of the mask to
    trust, and they are what a second loss relates it to. The terms of all networks are added up. Peers have no
    gradient, so every network gets that of its own terms only, as if it had an optimizer to itself (but for ``clip``,
    which measures all together). Each runs once a step: what it answers serves in all its roles. All see the same
    batch, and each has running means of its own.

    Args:
        net: makes a network, ``[B, 3, H, W]`` to logits ``[B, K, H, W]``. It is called for each one in turn, so that
            what is drawn at random differs, and what is loaded from a file is the same.
        loss: makes the pixel loss, ``(logits, mask, votes of the peers)`` to a scalar.
        masks: which of the batch's masks are learnt; of several, each pixel loss has the same share.
        relation: makes the second loss, ``(logits, logits of a peer)`` to a scalar; None has none.
        loss_weight: of the pixel loss.
        relation_weight: of the second loss.
        teacher: ``each``: the second loss to each peer, averaged; ``mean``: to the mean of their logits.
        answer: who predicts: ``first``: the first network alone; ``mean``: the mean of all logits.
        scale: images are resized by this factor before the networks, masks likewise in training.
        count: how many networks. Two vote unanimously; one has no peers, and no second loss.
        imagenet: whether colours are shifted and scaled as for ImageNet.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - who learns what of whom
        self,
        net: Callable[[], nn.Module],
        loss: Callable[[], nn.Module],
        masks: Sequence[str],
        relation: Callable[[], nn.Module] | None = None,
        loss_weight: float = 1.0,
        relation_weight: float = 1.0,
        teacher: Literal["each", "mean"] = "each",
        answer: Literal["first", "mean"] = "first",
        scale: float = 1.0,
        count: int = 3,
        imagenet: bool = True,
    ) -> None:
        super().__init__()
        self.normalise: nn.Module = Normalise() if imagenet else nn.Identity()
        self.nets = nn.ModuleList([net() for _ in range(count)])
        self.loss = loss()
        self.relation = None if relation is None else relation()
        self.masks = tuple(masks)
        self.loss_weight, self.relation_weight = loss_weight, relation_weight
        self.teacher, self.answer = teacher, answer
        self.scale = scale

    def logits(self, image: Tensor, count: int | None = None) -> list[Tensor]:
        """Class logits of the first ``count`` networks (None: of all), each ``[B, K, scale * H, scale * W]``."""
        prepared = resized(self.normalise(image), self.scale)
        return [net(prepared) for net in self.nets[:count]]

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """``pixels``: the pixel losses of all networks; with a second loss also ``relation``."""
        logits = self.logits(batch.image)
        taught = [one.detach() for one in logits]
        votes = [one.argmax(1) for one in taught]
        masks = [resized_masks(batch.masks[name], logits[0]) for name in self.masks]
        pixels = [self.loss(one, mask, _others(votes, i)) for mask in masks for i, one in enumerate(logits)]
        terms = {"pixels": self.loss_weight * torch.stack(pixels).sum() / len(masks)}
        if self.relation is not None:
            related = [self._related(one, _others(taught, i)) for i, one in enumerate(logits)]
            terms["relation"] = self.relation_weight * torch.stack(related).sum()
        return terms

    def _related(self, student: Tensor, peers: list[Tensor]) -> Tensor:
        """The second loss of a network, of one size for any number of peers."""
        assert self.relation is not None
        teachers = peers if self.teacher == "each" else [torch.stack(peers).mean(0)]
        return torch.stack([self.relation(student, teacher) for teacher in teachers]).mean()

    def predict(self, image: Tensor) -> Tensor:
        """Class probabilities, float32 ``[B, K, H, W]``."""
        logits = self.logits(image, 1 if self.answer == "first" else None)
        mean = torch.stack([one.float() for one in logits]).mean(0)
        return F.interpolate(mean, size=image.shape[-2:], mode="bilinear", align_corners=False).softmax(1)

    def views(self, image: Tensor) -> dict[str, Tensor]:
        """The classes that each network names, and where one of them names another than the first."""
        named = [one.argmax(1) for one in self.logits(image)]
        apart = [(one != named[0])[:, None] for one in named[1:]]
        seen = {f"network {number}": classes for number, classes in enumerate(named, 1)}
        return {**seen, "disagree": torch.cat(apart, 1).any(1, keepdim=True).float()} if apart else seen


def _others(values: list[Tensor], index: int) -> list[Tensor]:
    """All but one, beginning with the next."""
    return values[index + 1 :] + values[:index]
