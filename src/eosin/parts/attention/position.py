"""Position attention: every pixel looks at all others."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PositionAttention(nn.Module):
    """Adds to each pixel what it attends to in the whole map (DANet, Fu et al. 2019; the gland method, equation 2).

    ``x'_u = x_u + g sum_w softmax_w(q_u . k_w) v_w`` over all pixels ``w``. The paper prints neither the gate ``g``,
    which begins at 0, nor the sum over keys (its equation normalises over queries).

    Args:
        channels: C.
        reduction: C over the channels of ``q`` and ``k``; 4 in the paper, 8 in its code.

    Shapes:
        ``[B, C, H, W]`` to the same, of any size. Time grows with ``(H W)^2``, in exported forms memory, too.
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.widths = [inner, inner, channels]
        self.project = nn.Linear(channels, sum(self.widths))  # q, k and v in one go
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Features ``[B, C, H, W]``."""
        height, width = x.shape[2:]
        query, key, value = self.project(x.permute(0, 2, 3, 1).flatten(1, 2)).split(self.widths, -1)
        wider = (0, value.shape[-1] - query.shape[-1])  # kernels that need not hold all weights take one width for all
        query, key = F.pad(query, wider), F.pad(key, wider)
        heads = (query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1))
        found = F.scaled_dot_product_attention(*heads, scale=1.0).squeeze(1)
        attended: Tensor = found.unflatten(1, (height, width)).permute(0, 3, 1, 2)
        return x + self.gate * attended.to(x.dtype)
