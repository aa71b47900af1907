"""Where training runs and in which precision. The one file that knows Accelerate."""

from __future__ import annotations

import os
import random
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Literal, TypeVar

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn

from eosin.core.errors import WrongUse
from eosin.core.learner import Learner
from eosin.core.processor import has_bf16
from eosin.core.values import Batch
from eosin.engine.team import Team

resource: ModuleType | None
try:
    import resource
except ImportError:  # Windows has none
    resource = None

Precision = Literal["fp32", "bf16", "fp16"]
N = TypeVar("N", bound=nn.Module)
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_PATIENCE = timedelta(days=7)  # others wait while the first process labels, scores and exports


@dataclass(frozen=True, slots=True)
class Device:
    """A device, its precision, its memory format, and the processes that share the work."""

    accelerator: Accelerator
    precision: Precision
    team: Team

    @property
    def name(self) -> str:
        """``cpu``, ``cuda`` ..."""
        kind: str = self.accelerator.device.type
        return kind

    def place(self, net: N) -> N:
        """Move a network here, in the memory format that is fast here."""
        net.to(self.accelerator.device)
        return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]  # torch's stubs lack it

    def prepare(self, learner: Learner, compiled: bool) -> nn.Module:
        """What the loop calls instead of the learner: with several processes, gradients are averaged between them.

        Args:
            learner: already placed here.
            compiled: compile its networks by ``torch.compile``; names of weights stay the same.
        """
        if compiled:
            for child in learner.children():  # a list of networks is never called itself
                for net in child.children() if isinstance(child, (nn.ModuleList, nn.ModuleDict)) else [child]:
                    net.compile()
        prepared: nn.Module = self.accelerator.prepare_model(learner)
        return prepared

    def send(self, batch: Batch) -> Batch:
        """Move a batch here."""
        to: Callable[[Tensor], Tensor] = lambda t: t.to(self.accelerator.device, non_blocking=True)  # noqa: E731
        image = to(batch.image).contiguous(memory_format=torch.channels_last)
        return Batch(image, to(batch.tags), {k: to(m) for k, m in batch.masks.items()}, batch.ids)

    def autocast(self) -> AbstractContextManager[object]:
        """Networks run under it; losses switch it off again."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.name, _DTYPES[self.precision])

    def scaler(self) -> torch.amp.GradScaler:
        """Scales the loss where small gradients would be lost (fp16); elsewhere it does nothing."""
        return torch.amp.GradScaler(self.name, enabled=self.precision == "fp16")

    def apart(self, net: nn.Module) -> AbstractContextManager[object]:
        """Gradients are not averaged between processes within, since more of the batch is to come."""
        no_sync: AbstractContextManager[object] = self.accelerator.no_sync(net)
        return no_sync


def open_device(precision: Literal["auto", "fp32", "bf16", "fp16"]) -> Device:
    """The best device of this machine.

    Args:
        precision: ``auto`` takes bf16 where it gains: CUDA with bf16, and CPUs with AMX or AVX512-BF16.

    Raises:
        WrongUse: if bf16 is asked for where the device has none.
    """
    together = int(os.environ.get("WORLD_SIZE", "1")) > 1
    accelerator = Accelerator(
        cpu=together and not torch.cuda.is_available(),  # else Accelerate takes each process for the only one
        step_scheduler_with_optimizer=False,
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=True),  # a warm-up may leave some without gradient
            InitProcessGroupKwargs(timeout=_PATIENCE),
        ],
    )
    gains = _bf16_gains(accelerator.device.type)
    if precision == "bf16" and accelerator.device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise WrongUse("fit.precision = 'bf16': this GPU has no bf16; use fp16 or fp32")
    chosen: Precision = ("bf16" if gains else "fp32") if precision == "auto" else precision
    team = Team(accelerator.process_index, accelerator.num_processes, accelerator.device.type)
    return Device(accelerator, chosen, team)


def open_team() -> Team:
    """The processes that were started together."""
    return open_device("fp32").team


def _bf16_gains(device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device == "cpu" and has_bf16()


def workers(items: int) -> int:
    """Loader processes: one core is left to the computation, and few items are read at once without any."""
    if items < 512:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(4, cores - 1))


def seed_everything(*key: int) -> None:
    """Seed Python, NumPy and torch from a key, e.g. (seed, step)."""
    words = np.random.SeedSequence(key).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]))


def cpu_seconds() -> float:
    """Processor time of this process and of the workers that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def peak_memory_mb() -> float | None:
    """The most memory this process has held so far: of the GPU where one is used, else resident; None if unknown."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says on Linux is carried on from the process that started this one
        found = re.search(r"^VmHWM:\s*(\d+) kB$", status.read_text(), re.MULTILINE)
        return round(int(found[1]) / 2**10, 1) if found else None
    if resource is None:
        return None
    most: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most / (2**20 if sys.platform == "darwin" else 2**10), 1)


def energy_joules() -> float | None:
    """What the processor packages have used so far; None where it cannot be read, which as a rule takes root."""
    try:
        counts = [int(path.read_text()) for path in sorted(Path("/sys/class/powercap").glob("intel-rapl:?/energy_uj"))]
    except OSError:
        return None
    return sum(counts) / 1e6 if counts else None
