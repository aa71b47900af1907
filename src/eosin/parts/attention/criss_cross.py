"""Criss-cross attention: every pixel looks along its row and its column."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CrissCross(nn.Module):
    """Adds to each pixel what it attends to in its row and its column (CCNet, Huang et al. 2019).

    With projections ``q``, ``k`` (``C / reduction`` channels) and ``v`` (``C``) of the features ``x``, and the cross
    ``N(u)`` of the H + W - 1 pixels in the column and the row of pixel ``u``, itself counted once:

    ``x'_u = x_u + g sum_{w in N(u)} softmax_{w in N(u)}(q_u . k_w) v_w``

    The gate ``g`` begins at 0, and with it what is added. After two passes every pixel has seen every other one.

    Args:
        channels: C.
        reduction: C over the channels of ``q`` and ``k``.
        passes: how often it is done, with the same weights.

    Shapes:
        ``[B, C, H, W]`` to the same, of any size. It is quickest where channels come last in memory.
    """

    def __init__(self, channels: int, reduction: int = 8, passes: int = 1) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.widths = [inner, inner, channels]
        self.passes = passes
        self.project = nn.Linear(channels, sum(self.widths))  # q, k and v in one go
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Features ``[B, C, H, W]``."""
        for _ in range(self.passes):
            x = x + self.gate * self.attended(x).to(x.dtype)
        return x

    def attended(self, x: Tensor) -> Tensor:
        """What each pixel attends to, before the gate, ``[B, C, H, W]``."""
        height = x.shape[2]
        query, key, value = self.project(x.permute(0, 2, 3, 1)).split(self.widths, -1)  # [B, H, W, channels]
        across = query @ key.transpose(-1, -2)  # [B, H, W, W]: of each row
        query, key, below = (t.transpose(1, 2) for t in (query, key, value))
        down = query @ key.transpose(-1, -2)  # [B, W, H, H]: of each column
        itself = torch.eye(height, dtype=torch.bool, device=x.device)
        energy = torch.cat([down.masked_fill(itself, -torch.inf).transpose(1, 2), across], -1)
        in_column, in_row = energy.float().softmax(-1).to(value.dtype).tensor_split((height,), -1)
        attended: Tensor = in_row @ value + (in_column.transpose(1, 2) @ below).transpose(1, 2)
        return attended.permute(0, 3, 1, 2)


class CrissCrossTwice(CrissCross):
    """Criss-cross attention in two passes with the same weights, after which every pixel has seen all others (RCCA).

    Args:
        channels: C.
        reduction: C over the channels of ``q`` and ``k``.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__(channels, reduction, passes=2)
