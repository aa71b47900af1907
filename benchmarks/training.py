"""How fast is training, and what does the engine add to it? Exits with 1 where a bound is broken.

Usage: ``python benchmarks/training.py [--threads 1] [--quick] [--write PAGE]``. The bounds hold for the default
settings on a machine that does nothing else: by the clock, on at most two cores, with one torch thread.

A ratio is the median over rounds in which rivals take turns. A round of the engine's loop is an epoch: each step of the
engine is followed by the same step of a bare loop.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from _page import Ratio, commit, finish, processor, table

import eosin  # noqa: F401  (before segmentation_models_pytorch, which imports torchvision)
from eosin.core.learner import Learner
from eosin.core.processor import flags
from eosin.core.progress import SILENT
from eosin.core.values import Batch, Clock, FitSpec
from eosin.data.dataset import Dataset
from eosin.data.module import Plan, WeakView, loader
from eosin.data.phantom import CLASSES, PhantomSpec, draw_dataset
from eosin.engine import loop
from eosin.engine.checkpoint import COST, EVERY_S, Checkpoints
from eosin.engine.device import open_device, peak_memory_mb, workers
from eosin.engine.journal import Journal
from eosin.engine.optim import optimizer
from eosin.engine.weights import built
from eosin.parts.backbones.encoder import Encoder
from eosin.parts.classifiers import CamClassifier
from eosin.parts.losses.cross_entropy import PixelCrossEntropy
from eosin.parts.losses.soft_margin import SoftMargin
from eosin.parts.pooling.highest import HighestMean
from eosin.parts.segmenters import Segmenter, UNet
from eosin.verbs.train import resolve

CORES = 2
SIDE, BATCH = 112, 32  # of the classifier
LOADED, FASTER, FASTER_MIT, SLOWER = 2.0, 2.0, 1.4, 1.03  # the bounds
BLOCK = "training-speed"
CLASSIFIER = partial(
    CamClassifier,
    classes=len(CLASSES),
    encoder=partial(Encoder, "resnet18"),
    pool=partial(HighestMean, 0.1),
    loss=partial(SoftMargin),
    compete="softmax",
)


def unet(encoder: str) -> partial[Segmenter]:
    net = partial(UNet, len(CLASSES), encoder)
    return partial(Segmenter, net=net, loss=partial(PixelCrossEntropy), mask="pseudo")


# name, builder, side in px, batch, what bf16 and channels_last must gain
NETWORKS = (
    ("ResNet-18", CLASSIFIER, 112, 32, FASTER),
    ("ResNet-18", CLASSIFIER, 224, 16, FASTER),
    ("U-Net (ResNet-18)", unet("resnet18"), 112, 16, FASTER),
    ("U-Net (ResNet-18)", unet("resnet18"), 224, 16, FASTER),
    ("U-Net (MiT-B0)", unet("mit_b0"), 224, 16, FASTER_MIT),
)
FORMS = {
    "float32": (torch.float32, torch.contiguous_format),
    "bf16": (torch.bfloat16, torch.contiguous_format),
    "bf16, channels_last": (torch.bfloat16, torch.channels_last),
}
HEAVY = NETWORKS[3]  # where memory is short


class Prepared:
    """Batches in memory; ``seconds`` is what the engine took for each, from being given it to asking for the next."""

    def __init__(self, batches: Sequence[Batch], between: Callable[[Batch], object] = len) -> None:
        self.batches, self.between = batches, between
        self.seconds: list[float] = []

    def __call__(self, view: WeakView, plan: Plan, workers: int) -> Iterator[Batch]:
        """Stand in for the engine's loader, and do ``between`` before the next batch is handed out."""
        for number in range(len(plan)):
            batch = self.batches[number % len(self.batches)]
            begin = time.perf_counter()
            yield batch
            self.seconds.append(time.perf_counter() - begin)
            self.between(batch)


class Stamped:
    """The engine's loader, noting when each batch was taken from it."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, view: WeakView, plan: Plan, workers: int) -> Iterator[Batch]:
        """Stand in for the engine's loader."""
        for batch in loader(view, plan, workers):
            self.times.append(time.perf_counter())
            yield batch

    def rate(self, skip: int) -> float:
        """Batches per second, without the first ones."""
        return (len(self.times) - 1 - skip) / (self.times[-1] - self.times[skip])


class Watched(Checkpoints):
    """Saves each ``every``-th time that it is asked, in place of by the clock, and notes (step, seconds) of each."""

    def __init__(self, folder: Path, saves: list[tuple[int, float]], every: int) -> None:
        super().__init__(folder)
        self.saves, self.every, self.asked = saves, every, 0

    def due(self) -> bool:
        """Count."""
        self.asked += 1
        return self.asked % self.every == 0

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Save as always."""
        self.saves.append((step, seconds(lambda: super(Watched, self).save(step, state))))


def cost_of(saves: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """The median seconds of a checkpoint, and how long the engine then trains between two by default."""
    cost = statistics.median(spent for _, spent in saves)
    return cost, max(EVERY_S, cost / COST)


class Bare:
    """The training step as anybody would write it, with the engine's optimizer."""

    def __init__(self, build: partial[Any], dtype: torch.dtype, memory_format: torch.memory_format) -> None:
        self.dtype, self.format = dtype, memory_format
        self.learner: Learner = built(build, "bare", 0).to(memory_format=memory_format)
        self.optim = optimizer(self.learner, FitSpec())

    def step(self, batch: Batch) -> float:
        """Forward, backward, AdamW; returns the loss."""
        self.learner.train()
        self.optim.zero_grad(set_to_none=True)
        batch = replace(batch, image=batch.image.contiguous(memory_format=self.format))
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            losses = self.learner(batch, Clock(0, 0, 1, 1))
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        self.optim.step()
        return total.item()


def fit(build: partial[Any], view: WeakView, spec: FitSpec, feed: Any, folder: Path, saving: Any = Checkpoints) -> Path:
    """Train as ``eosin run`` does, but fed by ``feed`` and judged better in each epoch; returns the fit's folder."""
    device = open_device(spec.precision)
    learner = device.place(built(build, "fit", 0))
    folder = Path(tempfile.mkdtemp(dir=folder))
    better = count(1)
    judge = lambda learner: {"epoch": float(next(better))}  # noqa: E731
    with patch.object(loop, "loader", feed), patch.object(loop, "Checkpoints", saving):
        journal = Journal(folder / "journal.jsonl")
        loop.Fit("fit", learner, view, spec, 0, "masks", judge, device, journal, SILENT, folder).run()
    return folder


def drawn(side: int, size: int) -> Batch:
    """A batch of noise."""
    torch.manual_seed(0)
    tags = torch.randint(0, 2, (size, len(CLASSES))).float()
    masks = {"pseudo": torch.randint(0, len(CLASSES), (size, side, side))}
    return Batch(torch.rand(size, 3, side, side), tags, masks, ("noise",) * size)


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def loading(view: WeakView, rounds: int, folder: Path) -> Ratio:
    """The loader alone against training, in images per second."""
    spec = FitSpec(epochs=1, batch=BATCH, items=16 * BATCH)
    ratios = []
    for number in range(rounds):
        alone, training = Stamped(), Stamped()
        for _ in alone(view, Plan(view.items.tags, BATCH, 2, number, spec.items), workers(len(view))):
            pass
        fit(CLASSIFIER, view, spec, training, folder)
        rates = [BATCH * alone.rate(skip=1), BATCH * training.rate(skip=4)]
        print(f"loader alone {rates[0]:.0f}, training {rates[1]:.0f} images/s", flush=True)
        ratios.append(rates[0] / rates[1])
    return Ratio(f"images/s, loader alone : training of ResNet-18, {SIDE} px, batch {BATCH}", ratios, "≥", LOADED)


def precisions(rounds: int, quick: bool) -> Iterator[Ratio]:
    """Full steps in float32, bf16, and bf16 with channels last."""
    amx = "amx_bf16" in flags()
    for name, build, side, size, bound in NETWORKS:
        arms, batch = (
            {form: Bare(build, *how) for form, how in FORMS.items()},
            drawn(side, size // 4 if quick else size),
        )
        took: dict[str, list[float]] = {form: [] for form in FORMS}
        for number in range(rounds + 1):
            for form, arm in arms.items():
                spent = seconds(partial(arm.step, batch))
                if number:  # the first prepares kernels
                    took[form].append(spent)
        what = f"{name}, {side} px, batch {len(batch)}"
        print(f"{what}:", *(f"{form} {1e3 * statistics.median(t):.0f} ms" for form, t in took.items()), flush=True)
        for form in list(FORMS)[1:]:
            gains = [a / b for a, b in zip(took["float32"], took[form], strict=True)]
            bounded = amx and form == "bf16, channels_last"
            yield Ratio(f"steps/s, {form} : float32, {what}", gains, "≥" if bounded else "", bound)


def overhead(view: WeakView, epochs: int, folder: Path) -> Iterator[Ratio]:
    """The engine's loop against a bare one on the same batches; checkpoints count as they come by default."""
    per_epoch = len(view) // BATCH
    spec = FitSpec(epochs=epochs, batch=BATCH, items=per_epoch * BATCH)
    batches = list(islice(loader(view, Plan(view.items.tags, BATCH, 1, 0), 0), 8))
    dtype = torch.bfloat16 if open_device("auto").precision == "bf16" else torch.float32
    bare = Bare(CLASSIFIER, dtype, torch.channels_last)  # as the engine has it
    others: list[float] = []
    feed = Prepared(batches, lambda batch: others.append(seconds(partial(bare.step, batch))))
    saves: list[tuple[int, float]] = []
    fit(CLASSIFIER, view, spec, feed, folder, partial(Watched, saves=saves, every=per_epoch + 1))
    cost, interval = cost_of(saves)
    for step, spent in saves:
        feed.seconds[step - 1] -= spent
    turns = [slice(k * per_epoch + (0 if k else 4), (k + 1) * per_epoch) for k in range(epochs)]  # 4 steps warm up
    ratios = [sum(feed.seconds[turn]) / sum(others[turn]) for turn in turns]
    pairs = [a / b for a, b in zip(feed.seconds[4:], others[4:], strict=True)]  # only to tell the noise
    noise = statistics.stdev(pairs) / len(pairs) ** 0.5
    print(f"pairs of steps: {len(pairs)}, median ratio {statistics.median(pairs):.4f}, standard error {noise:.4f}")
    print(f"a bare step takes {1e3 * statistics.median(others):.0f} ms, a checkpoint {cost:.2f} s", flush=True)
    what = f"bare loop, ResNet-18, {SIDE} px, batch {BATCH}"
    yield Ratio(f"time, engine's loop without checkpoints : {what}", ratios)
    yield Ratio(f"time, engine's loop : {what}", [r * (1 + cost / interval) for r in ratios], "≤", SLOWER)


def heavy(view: WeakView, accumulate: int, steps: int, folder: Path) -> Prepared:
    """Some steps of a large network by the engine."""
    _, build, side, size, _ = HEAVY
    feed = Prepared([drawn(side, size)])
    fit(build, view, FitSpec(epochs=1, batch=size, items=steps * size, accumulate=accumulate), feed, folder)
    return feed


def peak(data: Path, accumulate: int, threads: int, folder: Path) -> float:
    """MB that three steps need, besides what the process holds before; runs in a process of its own."""
    torch.set_num_threads(threads)
    view = WeakView(Dataset.open(data).items("train"), None, 0)
    before = peak_memory_mb()
    heavy(view, accumulate, 3, folder)
    after = peak_memory_mb()
    assert before is not None and after is not None, "this system does not tell how much memory a process held"
    return after - before


def memory(data: Path, threads: int, folder: Path) -> dict[int, float]:
    """Peak memory in MB by parts of a batch."""
    found = {}
    for accumulate in (1, 4):
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # a process's peak never falls
            found[accumulate] = pool.submit(peak, data, accumulate, threads, folder).result()
        print(f"accumulate {accumulate}: {found[accumulate]:.0f} MB", flush=True)
    return found


def accumulation(view: WeakView, rounds: int, mb: dict[int, float], folder: Path) -> Iterator[Ratio]:
    """A batch in four parts against a whole one, in time and memory."""
    ratios = []
    for _ in range(rounds):
        whole, parts = (statistics.median(heavy(view, a, 3, folder).seconds[1:]) for a in (1, 4))
        print(f"accumulate 1 {whole:.2f} s, 4 {parts:.2f} s a step", flush=True)
        ratios.append(parts / whole)
    what = f"accumulate 4 : 1, {HEAVY[0]}, {HEAVY[2]} px, batch {HEAVY[3]}"
    yield Ratio(f"time, {what}", ratios)
    yield Ratio(f"peak memory, {what} ({mb[4]:.0f} : {mb[1]:.0f} MB more than before the fit)", [mb[4] / mb[1]])


def checkpoints(view: WeakView, folder: Path) -> list[list[str]]:
    """What a checkpoint costs, with averaged weights."""
    saves: list[tuple[int, float]] = []
    spec = FitSpec(epochs=2, batch=BATCH, items=3 * BATCH, ema=0.99)  # the second epoch's hold the kept weights too
    made = fit(CLASSIFIER, view, spec, Prepared([drawn(SIDE, BATCH)]), folder, partial(Watched, saves=saves, every=1))
    read = statistics.median(seconds(lambda: Checkpoints(made / loop.CHECKPOINTS).newest(print)) for _ in range(3))
    size = max(path.stat().st_size for path in (made / loop.CHECKPOINTS).iterdir())
    cost, interval = cost_of(saves)
    return [
        ["size", f"{size / 1e6:.0f} MB"],
        ["writing it", f"{cost:.2f} s"],
        ["reading it", f"{read:.2f} s"],
        ["training between two, by default", f"{interval:.0f} s"],
        ["share of the time that writing takes", f"{100 * cost / (interval + cost):.1f} %"],
    ]


def circumstances(threads: int, loaders: int) -> str:
    """What it was measured on, as a sentence."""
    amx = "with AMX" if "amx_bf16" in flags() else "without AMX, so that no bound applies to bf16"
    device = open_device("auto")
    where = f"Device {device.name}: {processor()}, {amx}; training in {device.precision}, torch threads {threads}"
    return f"{where}, loading processes {loaders}, torch {torch.__version__}, commit {commit()}."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--quick", action="store_true", help="only see whether it works: its numbers say nothing")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables into this page")
    arguments = parser.parse_args()
    rounds, epochs, patches = (1, 1, 16 * BATCH) if arguments.quick else (5, 4, 40 * BATCH)
    os.environ.update(ACCELERATE_USE_CPU="true", CUDA_VISIBLE_DEVICES="")  # bounds are of processors
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    torch.set_num_threads(arguments.threads)
    augment = resolve("cam-default")[0].fit_spec("classifier").augment
    runs = Path("runs")  # checkpoints are written to the disk that runs are on
    runs.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=runs) as temporary:
        folder = Path(temporary)
        data = folder / "phantom"
        draw_dataset(data, PhantomSpec(patches=patches, val=0, test=0, large=0, size=SIDE))
        view = WeakView(Dataset.open(data).items("train"), augment, 0)
        mb = memory(data, arguments.threads, folder)  # first: a new process inherits the peak of its parent
        ratios = [loading(view, rounds, folder)]
        ratios += precisions(rounds, arguments.quick)
        ratios += overhead(view, epochs, folder)
        ratios += accumulation(view, rounds, mb, folder)
        costs = checkpoints(view, folder)
    costing = table([["A checkpoint of ResNet-18 with AdamW and averaged weights", ""], *costs])
    return finish(
        ratios, f"{costing}\n\n{circumstances(arguments.threads, workers(len(view)))}", arguments.write, BLOCK
    )


if __name__ == "__main__":
    sys.exit(main())
