"""Is a step of iterative distillation cheap? Exits with 1 where a bound is broken.

Usage: ``python benchmarks/ikd_step.py [--threads 1] [--quick] [--write PAGE]``.

A step of a student of IKD-MIL as it is trained here, against the published step's shape from its formulas: the teacher
answers with its gradients recorded, Dice is taken image by image and map by map in a Python loop, and all of it is
float32 with contiguous memory. Host, batch and image size are the paper's: VGG-MIL, 16 images of 256 px. Both have the
same weights. Against it are set our step in float32, and our step as it is trained on this machine, in bf16 where the
processor has units for it.

A ratio is the median over rounds in which rivals take turns.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from _page import Ratio, begin, commit, finish, processor
from torch import Tensor
from torch.nn import functional as F

import eosin  # noqa: F401  (before timm, which imports torchvision)
from eosin.core.values import Batch, Clock
from eosin.engine.device import open_device
from eosin.parts.backbones.encoder import Encoder
from eosin.parts.losses.dice import BagDice
from eosin.parts.losses.mining import Mining
from eosin.parts.mil import Mil, Sides, Student
from eosin.parts.pooling.generalised import GeneralisedMean

SIDE, BATCH, ALPHA = 256, 16, 0.25
FASTER, AS_FAST, APART = 2.5, 1.0, 1e-5  # the bounds
BLOCK = "ikd-step"
CLOCK = Clock(0, 0, 1, 1)
Step = Callable[[Batch], Tensor]


def networks() -> tuple[Student, Mil]:
    """A student and its teacher, with the weights of one seed each."""
    net = partial(Sides, encoder=partial(Encoder, "vgg16_blocks", (0, 1, 2)), names=(0, 1, 2), fusion=(0.3, 0.3, 0.4))
    made: list[Mil] = []
    for seed, kind in enumerate((partial(Student, mining=partial(Mining), alpha=ALPHA), Mil)):
        torch.manual_seed(seed)
        made.append(kind(2, net, partial(BagDice), partial(GeneralisedMean)))
    student, teacher = made
    assert isinstance(student, Student)
    student.taught_by(teacher.eval())
    return student.train(), teacher


def drawn(count: int, side: int) -> Batch:
    """A batch of noise; every second image is positive."""
    torch.manual_seed(2)
    tags = torch.ones(count, 2)
    tags[::2, 1] = 0
    return Batch(torch.rand(count, 3, side, side), tags)


def published(student: Student, teacher: Mil) -> Step:
    """The step from its formulas, image by image; the teacher's answer is recorded, and used detached."""

    def dice(output: Tensor, target: Tensor) -> Tensor:
        return 1 - (2 * (output * target).sum() + 1) / (output.sum() + target.sum() + 1)

    def mined(ours: Tensor, theirs: Tensor, positive: bool) -> Tensor:
        target = (theirs >= 0.5).float() if positive else torch.zeros_like(theirs)
        losses = F.binary_cross_entropy(ours.clamp(1e-6, 1 - 1e-6), target, reduction="none")
        if target.min() == target.max():
            return losses.mean()
        return ((-losses.detach()).flatten().softmax(0) * losses.flatten()).sum()

    def step(batch: Batch) -> Tensor:
        for parameter in teacher.parameters():
            parameter.requires_grad_(parameter is not teacher.net.theta)
        image = student.normalise(batch.image)
        taught = teacher.net(image)
        maps = student.net(image)
        total = torch.zeros(())
        for number in range(len(batch)):
            positive = bool(batch.tags[number, 1])
            target = taught[number, -1].detach() if positive else torch.ones_like(taught[number, -1])
            for output in maps[number]:
                total = total + dice(output if positive else 1 - output, target)
            total = total + ALPHA * mined(maps[number, -1], taught[number, -1].detach(), positive)
        return total / len(batch)

    return step


def trained(student: Student, precision: str) -> Step:
    """The step as the loop does it, in a precision."""
    device = open_device(precision)
    device.place(student)

    def step(batch: Batch) -> Tensor:
        with device.autocast():
            losses: dict[str, Tensor] = student(device.send(batch), CLOCK)
        return torch.stack(list(losses.values())).sum()

    return step


def stepped(step: Step, learner: Student, batch: Batch) -> tuple[float, float]:
    """The objective of a batch, and the seconds that it takes forward and backward."""
    learner.zero_grad(set_to_none=True)
    begin = time.perf_counter()
    total = step(batch)
    total.backward()
    return float(total.detach()), time.perf_counter() - begin


def measured(rounds: int, count: int, side: int) -> list[Ratio]:
    """What each rival takes, and how far the losses in float32 are apart."""
    batch = drawn(count, side)
    first, teacher = networks()
    learners = {"published": first, "float32": copy.deepcopy(first), "trained": copy.deepcopy(first)}
    auto = open_device("auto").precision
    steps = {
        "published": published(learners["published"], copy.deepcopy(teacher)),
        "float32": trained(learners["float32"], "fp32"),
        "trained": trained(learners["trained"], "auto"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    losses: dict[str, float] = {}
    for number in range(rounds + 1):
        for name, step in steps.items():
            losses[name], spent = stepped(step, learners[name], batch)
            if number:  # the first prepares kernels
                seconds[name].append(spent)
        print(*(f"{name} {losses[name]:.7f}" for name in steps), flush=True)
    print(*(f"{name} {statistics.median(each):.2f} s a step" for name, each in seconds.items()), flush=True)
    what = f"VGG-MIL, {side} px, batch {count}"
    gains = {
        name: [b / a for a, b in zip(seconds[name], seconds["published"], strict=True)]
        for name in ("trained", "float32")
    }
    bound = ("≥", FASTER) if auto == "bf16" else ()
    apart = abs(losses["float32"] - losses["published"]) / abs(losses["published"])
    return [
        Ratio(f"steps/s, as trained here ({auto}) : the published form, {what}", gains["trained"], *bound),
        Ratio(f"steps/s, in float32 : the published form, {what}", gains["float32"], "≥", AS_FAST),
        Ratio(f"difference of the losses in float32, relative ({apart:.1e})", [apart], "≤", APART),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    arguments = begin(parser)
    ratios = measured(*((1, 4, 64) if arguments.quick else (5, BATCH, SIDE)))
    where = f"Device cpu: {processor()}; torch threads {arguments.threads}, torch {torch.__version__}"
    return finish(ratios, f"{where}, commit {commit()}.", arguments.write, BLOCK)


if __name__ == "__main__":
    sys.exit(main())
