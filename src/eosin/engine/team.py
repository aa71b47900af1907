"""The processes that train together: one as a rule, several under ``python -m torch.distributed.run``.

The first one writes; the others compute their share and wait. With one process every call here does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from eosin.core.errors import EosinError

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Team:
    """Which process this is, of how many.

    Attributes:
        rank: 0 is the first, which writes.
        world: how many.
        device: where tensors must be for the processes to exchange them.
    """

    rank: int = 0
    world: int = 1
    device: str = "cpu"

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self.world > 1 and kind is None:
            dist.barrier()
            dist.destroy_process_group()

    def first(self, work: Callable[[], R]) -> R:
        """Do something in the first process only; all get what it returns, which must be picklable.

        Raises:
            Exception: in the first process, whatever ``work`` raises; the others then end quietly with its exit code.
        """
        if self.world == 1:
            return work()
        said: list[Any] = [None]
        if self.leads:
            try:
                said = [("done", work())]
            except BaseException as error:
                with suppress(RuntimeError):  # the others may have ended; what failed here is what counts
                    dist.broadcast_object_list([("failed", getattr(error, "exit_code", 1))])
                raise
        dist.broadcast_object_list(said)
        how, value = said[0]
        if how == "failed":
            raise SystemExit(value)
        return value  # type: ignore[no-any-return]

    def sum(self, counts: NDArray[Any]) -> NDArray[Any]:
        """The sum over all processes, exact for integers."""
        if self.world == 1:
            return counts
        total = torch.from_numpy(np.ascontiguousarray(counts)).to(self.device)
        dist.all_reduce(total)
        return total.cpu().numpy()

    def add(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def agree(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes the first one's values, in place."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def share(self, count: int) -> NDArray[np.int64]:
        """The positions of ``count`` things that are this process's, each in just one of them."""
        return np.arange(self.rank, count, self.world)


def too_few(batch: int, team: Team) -> EosinError:
    """A batch that cannot be shared."""
    return EosinError(
        f"a batch of {batch} images is too small for {team.world} processes, which need two each: "
        "raise fit.batch or start fewer"
    )
