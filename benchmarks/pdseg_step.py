"""What does it save to run PDSeg's teacher once a step? Exits with 1 where a bound is broken.

Usage: ``python benchmarks/pdseg_step.py [--threads 1] [--batch 16] [--quick] [--write PAGE]``.

PDSeg's step as it is trained here, against the shape of the released one: all networks are evaluated once, without
gradients, for the teacher's answer alone, and then once more to learn, channels first, and with the attention of that
time, whose weights are made and kept. A better rival is placed as ours is and evaluates the teacher alone twice. Both
are in float32. Against them are set our step in float32, and our step as it is trained on this machine, in bf16 where
the processor has units for it. All have the same weights, no dropout and no skipped blocks, and batch norms held as at
test, so that every pass of a network is the same; networks, batch and image size are those of the paper.

A ratio is the median over rounds in which rivals take turns.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from _page import Ratio, begin, commit, finish, processor
from torch import Tensor, nn
from torch.nn import functional as F

import eosin  # noqa: F401  (before timm, which imports torchvision)
from eosin.core.values import Batch, Clock
from eosin.engine.device import open_device
from eosin.methods.pdseg import Distilled, Lesson, Teacher
from eosin.parts.backbones.distilled import DistilledViT
from eosin.parts.losses.patch_distillation import PatchDistillation
from eosin.parts.losses.soft_margin import SoftMargin
from eosin.parts.mask_transformer import MaskTransformer
from eosin.parts.pooling.ngwp import NGWP

CLASSES, SIDE, BATCH, PATCH = 4, 224, 16, 16
FASTER, APART = 1.5, 1e-5  # the bounds
BLOCK = "pdseg-step"
CLOCK = Clock(1, 1, 2, 2)  # the second epoch: tokens learn
RIVALS = {"published": "all networks twice", "frugal": "the teacher twice"}
Step = Callable[[Distilled, Batch], Tensor]


def networks(encoder: str, teacher: str, side: int) -> Distilled:
    """Student and teacher with the weights of one seed, each of whose passes is the same."""
    torch.manual_seed(0)
    learner = Distilled(
        CLASSES,
        student=partial(DistilledViT, encoder, "patch", side // PATCH, drop_path=0.0),
        decoder=partial(MaskTransformer, dropout=0.0),
        pool=partial(NGWP),
        loss=partial(SoftMargin),
        lesson=partial(Lesson, "patch", PatchDistillation, 1.0, 1),
        teacher=partial(Teacher, teacher, 4, "none", width=256),
    )
    return held(learner.train())


def held(learner: Distilled) -> Distilled:
    """The same with batch norms as at test."""
    for module in learner.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return learner


def drawn(count: int, side: int) -> Batch:
    """A batch of noise with tags."""
    torch.manual_seed(1)
    return Batch(torch.rand(count, 3, side, side), torch.randint(0, 2, (count, CLASSES)).float())


def ours(learner: Distilled, batch: Batch) -> Tensor:
    """The objective as it is trained."""
    return torch.stack(list(learner(batch, CLOCK).values())).sum()


def printed(learner: Distilled, batch: Batch, whole: bool) -> Tensor:
    """The objective from its formulas: the target by an evaluation before, of all networks or of the teacher alone."""
    assert learner.teacher is not None
    image = learner.prepared(batch.image)
    learner.eval()
    with torch.no_grad():
        soft = learner.teacher(image).softmax(1)
        if whole:
            learner.seen(image)
    held(learner.train())
    hard = F.one_hot(soft.argmax(1), CLASSES).movedim(-1, 1)
    scores, logits = learner.seen(image)
    assert logits is not None
    maps = learner.teacher(image)
    tags = sum(F.binary_cross_entropy_with_logits(pooled(one), batch.tags) for one in (scores, maps))
    return tags + F.binary_cross_entropy_with_logits(logits, 0.5 * hard + 0.5 * soft)


def pooled(maps: Tensor) -> Tensor:
    """Scores ``[B, K]`` by nGWP and the focal penalty."""
    m = maps.softmax(1)
    share = m.mean((2, 3))
    return (m * maps).sum((2, 3)) / (1 + m.sum((2, 3))) + (1 - share) ** 3 * torch.log(0.01 + share)


@contextmanager
def attention_of_that_time(learner: Distilled, on: bool) -> Iterator[None]:
    """Attention by explicit weights, as timm had it then, instead of torch's one operation."""
    modules = [module for module in learner.modules() if hasattr(module, "fused_attn")]
    for module in modules:
        module.fused_attn = not on
    yield
    for module in modules:
        module.fused_attn = True


STEPS: dict[str, Step] = {
    "ours": ours,
    "published": partial(printed, whole=True),
    "frugal": partial(printed, whole=False),
}


def stepped(step: Step, learner: Distilled, batch: Batch, old: bool) -> tuple[float, float]:
    """The objective of a batch, and the seconds that it takes forward and backward."""
    learner.zero_grad(set_to_none=True)
    with attention_of_that_time(learner, old):
        begin = time.perf_counter()
        total = step(learner, batch)
        total.backward()
        return total.item(), time.perf_counter() - begin


def measured(rounds: int, encoder: str, teacher: str, count: int, side: int) -> list[Ratio]:
    """What each rival takes, and how far the losses are apart."""
    plain, auto = open_device("fp32"), open_device("auto")
    learner, batch = networks(encoder, teacher, side), drawn(count, side)
    placed, sent = plain.place(copy.deepcopy(learner)), plain.send(batch)
    seconds: dict[str, list[float]] = {name: [] for name in ("trained", *STEPS)}
    losses: dict[str, float] = {}
    for number in range(rounds + 1):
        for name, spent in seconds.items():
            with auto.autocast() if name == "trained" else plain.autocast():
                step, where = STEPS.get(name, ours), (learner, batch) if name == "published" else (placed, sent)
                losses[name], took = stepped(step, *where, old=name == "published")
            if number:  # the first prepares kernels
                spent.append(took)
        print(*(f"{name} {losses[name]:.7f}" for name in seconds), flush=True)
    print(*(f"{name} {statistics.median(each):.1f} s a step" for name, each in seconds.items()), flush=True)
    what = f"{encoder} and {teacher}, {side} px, batch {count}"

    def gain(name: str, rival: str) -> list[float]:
        return [b / a for a, b in zip(seconds[name], seconds[rival], strict=True)]

    used = auto.precision
    bound = "≥", FASTER
    apart = max(abs(losses["ours"] - losses[rival]) / abs(losses[rival]) for rival in RIVALS)
    return [
        Ratio(f"steps/s, as trained here ({used}) : all networks twice, {what}", gain("trained", "published"), *bound),
        Ratio(f"steps/s, in float32 : {RIVALS['published']}, {what}", gain("ours", "published"), *bound),
        Ratio(f"steps/s, in float32 : {RIVALS['frugal']}, {what}", gain("ours", "frugal")),
        Ratio(f"difference of the losses in float32, relative ({apart:.1e})", [apart], "≤", APART),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=BATCH, help="images in a step")
    arguments = begin(parser)
    quick = (1, "vit_tiny_patch16_224", "resnet18", 2, 64)
    paper = (3, "vit_small_patch16_384", "resnet101", arguments.batch, SIDE)
    ratios = measured(*(quick if arguments.quick else paper))
    where = f"Device cpu: {processor()}; torch threads {arguments.threads}, torch {torch.__version__}"
    return finish(ratios, f"{where}, commit {commit()}.", arguments.write, BLOCK)


if __name__ == "__main__":
    sys.exit(main())
