"""Does it pay to keep freed memory between training steps? Exits with 1 where a bound is broken.

Usage: ``python benchmarks/kept_memory.py [--threads 1] [--quick] [--write PAGE]``.

Full training steps in the precision of this machine, within ``eosin.core.memory.kept_memory`` as fits are,
against the same steps with the C library as it comes. Each rival is a process of its own, for a process's peak never
falls; a ratio is the median over rounds in which they take turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch
from _page import Ratio, begin, commit, finish, processor

import eosin  # noqa: F401  (before timm, which imports torchvision)
from eosin.core.memory import kept_memory
from eosin.core.values import Batch, Clock, FitSpec
from eosin.engine.device import open_device, peak_memory_mb
from eosin.engine.optim import optimizer
from eosin.engine.weights import built
from eosin.parts.backbones.encoder import Encoder
from eosin.parts.classifiers import CamClassifier
from eosin.parts.losses.cross_entropy import PixelCrossEntropy
from eosin.parts.losses.dice import BagDice
from eosin.parts.losses.soft_margin import SoftMargin
from eosin.parts.mil import Mil, Sides
from eosin.parts.pooling.generalised import GeneralisedMean
from eosin.parts.pooling.highest import HighestMean
from eosin.parts.segmenters import Segmenter, UNet

BLOCK = "kept-memory"
FASTER, AS_FAST = 1.2, 0.97  # the bounds: of the network with the largest activations, and of the others
STEPS = 5
CLASSES = 2
CLASSIFIER = partial(
    CamClassifier,
    CLASSES,
    partial(Encoder, "resnet18"),
    partial(HighestMean, 0.1),
    partial(SoftMargin),
)
UNET = partial(Segmenter, net=partial(UNet, CLASSES, "resnet18"), loss=partial(PixelCrossEntropy), mask="pseudo")
VGG = partial(
    Mil,
    CLASSES,
    partial(Sides, encoder=partial(Encoder, "vgg16_blocks", (0, 1, 2)), names=(0, 1, 2), fusion=(0.3, 0.3, 0.4)),
    partial(BagDice),
    partial(GeneralisedMean),
)
# name: builder, side in px, batch, bound
NETWORKS: dict[str, tuple[partial[Any], int, int, float]] = {
    "VGG-MIL": (VGG, 128, 32, FASTER),
    "U-Net (ResNet-18)": (UNET, 224, 16, AS_FAST),
    "ResNet-18": (CLASSIFIER, 112, 32, AS_FAST),
}


def rival(name: str, kept: bool, threads: int, quick: bool) -> tuple[float, float, float]:
    """Seconds of a step, MB that the process held at most, and the last loss; runs in a process of its own."""
    torch.set_num_threads(threads)
    build, side, size, _ = NETWORKS[name]
    size = size // 8 if quick else size
    torch.manual_seed(0)
    tags = torch.ones(size, CLASSES)
    tags[::2, 1] = 0
    masks = {"pseudo": torch.randint(0, CLASSES, (size, side, side))}
    batch = Batch(torch.rand(size, 3, side, side), tags, masks)
    device = open_device("auto")
    learner = device.place(built(build, "kept", 0)).train()
    optim = optimizer(learner, FitSpec())
    spent = []
    with kept_memory() if kept else nullcontext():
        for _ in range(2 if quick else 2 + STEPS):
            begun = time.perf_counter()
            optim.zero_grad(set_to_none=True)
            with device.autocast():
                losses = learner(device.send(batch), Clock(0, 0, 1, 1))
            total = torch.stack(list(losses.values())).sum()
            total.backward()
            optim.step()
            spent.append(time.perf_counter() - begun)
    most = peak_memory_mb()
    assert most is not None, "this system does not tell how much memory a process held"
    return statistics.median(spent[1 if quick else 2 :]), most, total.item()


def measured(rounds: int, threads: int, quick: bool) -> list[Ratio]:
    """Steps per second and peak memory, with freed memory kept against handed back."""
    ratios = []
    for name, (_, side, size, bound) in NETWORKS.items():
        gains, apart, mb = [], 0.0, {True: 0.0, False: 0.0}
        for _ in range(rounds):
            took, loss = {}, {}
            for kept in (False, True):
                with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                    took[kept], most, loss[kept] = pool.submit(rival, name, kept, threads, quick).result()
                mb[kept] = max(mb[kept], most)
            apart = max(apart, abs(loss[False] - loss[True]))
            gains.append(took[False] / took[True])
            print(f"{name}: handed back {took[False]:.3f} s, kept {took[True]:.3f} s a step", flush=True)
        what = f"kept : handed back, {name}, {side} px, batch {size}"
        ratios.append(Ratio(f"steps/s, {what}", gains, "≥", bound))
        ratios.append(Ratio(f"difference of the loss after {STEPS + 2} steps, {what}", [apart], "≤", 0))
        ratios.append(Ratio(f"peak memory, {what} ({mb[True]:.0f} : {mb[False]:.0f} MB)", [mb[True] / mb[False]]))
    return ratios


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    arguments = begin(parser)
    ratios = measured(1 if arguments.quick else 3, arguments.threads, arguments.quick)
    where = f"Device cpu: {processor()}; torch threads {arguments.threads}, torch {torch.__version__}"
    return finish(ratios, f"{where}, {open_device('auto').precision}, commit {commit()}.", arguments.write, BLOCK)


if __name__ == "__main__":
    sys.exit(main())
