"""The loss by which what a map shows is like its prototype, and what it hides is like those of other classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class PrototypeContrast(nn.Module):
    """InfoNCE of foreground and background against prototypes (PBIP, Tang et al. 2025; LPD, Le et al. 2025).

    With the cosines over the temperature ``s+`` to a pair's own prototype and ``s-`` to its negatives, those of what
    the map shows in the first line and of what it hides in the second:

    - ``FG = logsumexp(s+, s-) - s+``;
    - ``BG = logsumexp(s+, s-) - logsumexp(s-)``.

    The loss is ``FG + BG``, the mean over pairs.

    Args:
        temperature: of the cosines.
        joined: as PBIP has it: exponentials are added up over all pairs before the logarithm is taken, once, and in
            ``BG`` the negatives count as their mean, not as their sum.
    """

    def __init__(self, temperature: float = 0.07, joined: bool = False) -> None:
        super().__init__()
        self.temperature = temperature
        self.joined = joined

    def forward(self, shown: Tensor, hidden: Tensor, prototypes: Tensor, own: Tensor, negative: Tensor) -> Tensor:
        """Compute the loss in at least float32, also under autocast.

        Args:
            shown: a vector for each pair, ``[N, D]``: of what its map shows.
            hidden: the same of what it hides, ``[N, D]``.
            prototypes: ``[P, D]``.
            own: int64 ``[N]``, the prototype of each pair.
            negative: bool ``[N, P]``, its negatives, at least one each and the own one never.

        Returns:
            A scalar; 0 with a gradient (of zeros) for no pair.
        """
        with torch.autocast(shown.device.type, enabled=False):
            if not len(shown):
                return 0 * (shown.float().sum() + hidden.float().sum() + prototypes.float().sum())
            plus, minus = self._apart(shown, prototypes, own, negative)
            front = self._ratio(plus, minus, plus)
            plus, minus = self._apart(hidden, prototypes, own, negative)
            if self.joined:
                minus = minus - negative.sum(1).to(minus).log()
            return front + self._ratio(plus, minus, minus)

    def _apart(self, seen: Tensor, prototypes: Tensor, own: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """For each pair ``s+`` and ``logsumexp(s-)``, both ``[N]``."""
        kind = torch.promote_types(seen.dtype, torch.float32)
        seen, prototypes = (functional.normalize(x.to(kind), dim=1) for x in (seen, prototypes))
        alike = seen @ prototypes.T / self.temperature
        return alike.gather(1, own[:, None])[:, 0], alike.masked_fill(~negative, -math.inf).logsumexp(1)

    def _ratio(self, plus: Tensor, minus: Tensor, right: Tensor) -> Tensor:
        """Minus the logarithm of the share that ``right`` has of both: mean over pairs, or of their sums."""
        both = torch.logaddexp(plus, minus)
        return both.logsumexp(0) - right.logsumexp(0) if self.joined else (both - right).mean()
