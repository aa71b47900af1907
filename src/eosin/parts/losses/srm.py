"""The loss by which a network relates the images of a batch to each other as another network does."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class SRM(nn.Module):
    """Distances and angles between the images of a batch (samples relation mining; ARML, Feng et al. 2024, eq. 6, 7).

    An image is one point: all its logits, flattened. Compared are the distances of all pairs, divided by the mean of
    those that are not 0, and the cosines of the angles at ``i`` in all triples ``(i, j, k)``, student against teacher,
    by smooth L1 averaged over all ``B^2`` and ``B^3`` entries, those of ``i = j`` included (relational knowledge
    distillation, Park et al. 2019). Neither changes when all logits are shifted or multiplied by a positive number.

    Both follow from the products of all pairs of points, ``G = X X^T``, so that differences of points, ``B x B x D``
    numbers, are never made: ``|x_i - x_j|^2 = G_ii + G_jj - 2 G_ij`` and
    ``<x_j - x_i, x_k - x_i> = G_jk - G_ij - G_ik + G_ii``. Points are centred first, which keeps digits.

    Args:
        distance: weight of the distances.
        angle: weight of the angles.
    """

    def __init__(self, distance: float = 30.0, angle: float = 60.0) -> None:
        super().__init__()
        self.distance = distance
        self.angle = angle

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss in at least float32, also under autocast.

        Args:
            student: logits ``[B, K, H, W]``.
            teacher: logits of the same shape; they get no gradient.

        Returns:
            A scalar; 0 with a gradient (of zeros) for fewer than three images, which have one distance at most.
        """
        with torch.autocast(student.device.type, enabled=False):
            if len(student) < 3:
                return 0 * student.float().sum()
            distances, cosines = relations(student)
            with torch.no_grad():
                taught_distances, taught_cosines = relations(teacher)
            apart = functional.smooth_l1_loss(distances, taught_distances)
            return self.distance * apart + self.angle * functional.smooth_l1_loss(cosines, taught_cosines)


def relations(logits: Tensor) -> tuple[Tensor, Tensor]:
    """How the images of a batch lie to each other.

    Two that are closer than rounding can tell, as one and the same image is, have distance 0 and no direction.

    Args:
        logits: ``[B, ...]``.

    Returns:
        Distances ``[B, B]`` over the mean of those that are not 0, and the cosine of the angle at ``i`` between ``j``
        and ``k``, ``[B, B, B]``; 0 where there is no direction.
    """
    points = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(1)
    points = points - points.mean(0)
    products = points @ points.T
    own = products.diagonal()
    sums = own[:, None] + own
    squares = sums - 2 * products
    apart = squares > 8 * torch.finfo(points.dtype).eps * sums
    lengths = torch.where(apart, squares, 1.0).sqrt()  # the root has no slope at 0
    mean = torch.where(apart, lengths, 0.0).sum() / apart.sum().clamp(min=1)
    distances = torch.where(apart, lengths, 0.0) / torch.where(mean > 0, mean, 1.0)
    inverse = apart / lengths
    at = products - products[:, :, None] - products[:, None] + own[:, None, None]
    return distances, at * inverse[:, :, None] * inverse[:, None]
