"""Is the drawn tissue fast to draw, hard for colour alone, and learnable? Exits with 1 where a bound is broken.

Usage: ``python benchmarks/phantom.py [--minutes 3] [--seed 0]``. The bounds hold for the default settings.

Drawing and U-Net are bound to time by the clock on two cores. Other work on the machine takes from it and makes them
fail; the processor time beside it tells whether that was so.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import eosin  # noqa: F401  (before segmentation_models_pytorch, which imports torchvision)
from eosin.data.dataset import Dataset
from eosin.data.phantom import CLASSES, PhantomSpec, draw_dataset
from eosin.metrics.confusion import Confusion
from eosin.metrics.scores import iou, miou
from eosin.slides.image import read_mask, read_rgb

Array = NDArray[np.uint8]
BLURS = (4.0, 12.0)  # standard deviations in pixels: less and more than a nucleus
CORES = 2
DRAW_SECONDS, REGRESSION, BLURRED, UNET, SEVERAL = 20.0, 0.60, 0.70, 0.85, 0.5


def load(data: Dataset, split: str) -> tuple[Array, Array]:
    """Images uint8 ``[N, H, W, 3]`` and masks uint8 ``[N, H, W]`` of a split."""
    items, truth = data.items(split), data.truth(split)
    assert truth is not None and len(truth) == len(items)
    images = np.stack([read_rgb(items.path(i)) for i in range(len(items))])
    return images, np.stack([read_mask(truth.path(i)) for i in range(len(truth))])


def pixels(image: Array, blurs: tuple[float, ...]) -> NDArray[np.float32]:
    """Features of every pixel: its colour and the colour of its blurred surroundings, ``[H * W, 3 (1 + B)]``."""
    colour = image.astype(np.float32) / 255
    layers = [colour, *(cv2.GaussianBlur(colour, (0, 0), blur) for blur in blurs)]
    return np.concatenate(layers, -1).reshape(-1, 3 * len(layers))


def regression(train: tuple[Array, Array], test: tuple[Array, Array], blurs: tuple[float, ...]) -> Confusion:
    """Per-pixel logistic regression, trained on 100 pixels of every training patch."""
    rng = np.random.default_rng(0)
    features, labels = [], []
    for image, mask in zip(*train, strict=True):
        chosen = rng.choice(mask.size, 100, replace=False)
        features.append(pixels(image, blurs)[chosen])
        labels.append(mask.ravel()[chosen])
    x, y = np.concatenate(features), np.concatenate(labels)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(x[y != 255], y[y != 255])
    counts = Confusion(len(CLASSES))
    for image, mask in zip(*test, strict=True):
        counts.add(model.predict(pixels(image, blurs)).reshape(mask.shape), mask)
    return counts


def unet(train: tuple[Array, Array], test: tuple[Array, Array], seconds: float) -> tuple[Confusion, str]:
    """Train a U-Net (ResNet-18, from scratch, bf16) on the true masks for so long; returns its counts and a note."""
    import segmentation_models_pytorch as smp
    import torch
    from torch.nn import functional as F

    torch.manual_seed(0)
    torch.set_num_threads(CORES)
    rng = np.random.default_rng(0)
    net = smp.Unet("resnet18", encoder_weights=None, classes=len(CLASSES)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)

    def tensor(images: Array) -> torch.Tensor:
        scaled = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 127.5 - 1
        return scaled.contiguous(memory_format=torch.channels_last)

    start, before, step = time.perf_counter(), time.process_time(), 0
    while (done := (time.perf_counter() - start) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 20) * (1 - done)
        chosen = rng.choice(len(train[0]), 16, replace=False)
        images, masks = train[0][chosen], train[1][chosen]
        turn, flip = int(rng.integers(4)), int(rng.integers(2))
        images, masks = np.rot90(images, turn, (1, 2)), np.rot90(masks, turn, (1, 2))
        if flip:
            images, masks = images[:, :, ::-1], masks[:, :, ::-1]
        gain = rng.uniform(0.9, 1.1, (len(images), 1, 1, 3))
        images = np.clip(images * gain, 0, 255).astype(np.uint8)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(tensor(images))
        loss = F.cross_entropy(logits.float(), torch.from_numpy(masks.astype(np.int64)), ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
    note = f"{step} steps of 16, {time.process_time() - before:.0f} s of processor time"
    net.eval()
    counts = Confusion(len(CLASSES))
    with torch.no_grad():
        for i in range(0, len(test[0]), 16):
            counts.add(net(tensor(test[0][i : i + 16])).argmax(1), torch.from_numpy(test[1][i : i + 16]))
    return counts, note


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0, help="training time of the U-Net; 0 leaves it out")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    broken: list[str] = []
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    print(f"By the clock, on at most {CORES} cores: other work on this machine can break the bounds of time.\n")

    def report(name: str, value: float, holds: Callable[[float], bool], bound: str, note: str = "") -> None:
        print(f"{name:42s} {value:8.3f}   {bound:8s} {'ok' if holds(value) else 'BROKEN'}  {note}", flush=True)
        if not holds(value):
            broken.append(name)

    def scored(counts: Confusion) -> str:
        return ", ".join(f"{n} {v:.2f}" for n, v in zip(CLASSES.names, iou(counts.matrix), strict=True))

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "phantom"
        start, before = time.perf_counter(), sum(os.times()[:4])
        draw_dataset(folder, PhantomSpec(val=0, test=0, large=0, seed=arguments.seed))
        seconds, processor = time.perf_counter() - start, sum(os.times()[:4]) - before
        note = f"{processor:.1f} s of processor time, {2000 / seconds:.0f} patches/s"
        report("seconds for 2,000 patches of 128 px", seconds, lambda s: s < DRAW_SECONDS, "< 20", note)
        folder = Path(temporary) / "whole"
        draw_dataset(folder, PhantomSpec(large=0, seed=arguments.seed))
        data = Dataset.open(folder)
        tags = data.items("train").tags
        several = float((tags.sum(1) > 1).mean())
        shares = ", ".join(f"{n} {v:.2f}" for n, v in zip(CLASSES.names, tags.mean(0), strict=True))
        report("share of patches with several tags", several, lambda s: s >= SEVERAL, ">= 0.50", shares)
        train, test = load(data, "train"), load(data, "test")
    for name, blurs, bound in (("colour", (), REGRESSION), (f"colour and blurs {BLURS}", BLURS, BLURRED)):
        counts = regression(train, test, blurs)
        score = miou(counts.matrix)
        report(f"regression on {name}", score, lambda s, b=bound: s <= b, f"<= {bound:.2f}", scored(counts))
    if arguments.minutes > 0:
        counts, note = unet(train, test, 60 * arguments.minutes)
        name = f"U-Net of {arguments.minutes:g} minutes"
        report(name, miou(counts.matrix), lambda s: s >= UNET, f">= {UNET:.2f}", f"{scored(counts)}; {note}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
