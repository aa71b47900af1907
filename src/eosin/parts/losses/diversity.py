"""The loss by which the prototypes of a class look at different pixels of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Diversity(nn.Module):
    """How alike the pixels are that two prototypes of a class look at: ``exp(-J)``, in 0..1 (LPD, Le et al. 2025).

    Prototype ``u`` looks at the pixels of its class in an image as ``v_u = softmax(cosine / temperature)`` over them.
    Two are as far apart as Jeffreys' divergence ``J(u, v) = sum_n (v_un - v_vn) (log v_un - log v_vn)``. Without a
    temperature, as the method was released, cosines are too close to each other for any of it to change: the loss is 1.

    ``J = <v_u, a_u> + <v_v, a_v> - <v_u, a_v> - <v_v, a_u>`` of the logits ``a``, so that products of all pairs of
    prototypes give all divergences at once.

    Args:
        temperature: of the cosines.
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, cosines: Tensor, masks: Tensor) -> Tensor:
        """Compute the loss in at least float32, also under autocast.

        Args:
            cosines: of each pixel to the k prototypes of each class, ``[B, K, k, h, w]`` in -1..1.
            masks: the class of each pixel, int64 ``[B, h, w]``, anything else where there is none.

        Returns:
            A scalar in 0..1: the mean over pairs of prototypes, then over classes of images that have two pixels at
            least; 0 with a gradient (of zeros) where there is none of them, or one prototype alone.
        """
        count = cosines.shape[2]
        with torch.autocast(cosines.device.type, enabled=False):
            cosines = cosines.to(torch.promote_types(cosines.dtype, torch.float32))
            classes = torch.arange(cosines.shape[1], device=masks.device)
            held = masks[:, None] == classes[:, None, None]  # [B, K, h, w]
            enough = held.sum((2, 3)) > 1
            if count < 2 or not enough.any():
                return 0 * cosines.sum()
            alike = torch.exp(-self.divergences(cosines[enough].flatten(2), held[enough].flatten(1)))
            first, second = torch.triu_indices(count, count, 1, device=alike.device)
            return alike[:, first, second].mean()

    def divergences(self, cosines: Tensor, held: Tensor) -> Tensor:
        """Jeffreys' divergence of all pairs, ``[M, k, k]``.

        Args:
            cosines: ``[M, k, N]``.
            held: which pixels belong to the class, bool ``[M, N]``, at least one in each row.
        """
        outside = ~held[:, None]
        logits = cosines / self.temperature
        shares = logits.masked_fill(outside, -torch.inf).softmax(2)
        # A constant added to a prototype's logits changes no divergence; without it fewer digits are lost.
        logits = (logits - (shares * logits.masked_fill(outside, 0.0)).sum(2, keepdim=True)).masked_fill(outside, 0.0)
        products = shares @ logits.transpose(1, 2)
        own = products.diagonal(dim1=1, dim2=2)
        return (own[:, :, None] + own[:, None] - products - products.transpose(1, 2)).clamp(min=0)
