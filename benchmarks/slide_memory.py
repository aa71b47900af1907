"""How much memory does a slide take? It must follow the tissue, not the slide. Exits with 1 where a bound is broken.

Usage: ``python benchmarks/slide_memory.py [--quick] [--write PAGE]``. It needs the extra ``bench`` and Linux.

Two slides are drawn, of 50,000 and of 100,000 pixels a side, both with 2 % tissue, so that the larger has four times as
much of it. Each is predicted by ``predict_slide``, results and all, in a process of its own; four times a second the
proportional set sizes (PSS) of that process and of all that it started are added up. The model is a U-Net with a
ResNet-18 encoder and random weights, which runs on every tenth batch; so that this ends, the other batches are answered
by a rule that has the same classes and regions of some size.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import psutil
import torch
from _page import Ratio, commit, finish, processor, table
from predict_slide import BATCH, made
from torch.nn.functional import avg_pool2d, interpolate, one_hot

from eosin.data.phantom import CLASSES, PhantomSpec
from eosin.data.phantom_slide import draw_slide
from eosin.predictor.predictor import Predictor
from eosin.wsi.inputs import Job
from eosin.wsi.settings import Settings
from eosin.wsi.slide import predict_slide, see

SIDES, SHARE = (50_000, 100_000), 0.02
MOST, GROWTH, MINUTES = 2000.0, 1.1, 10.0  # the bounds: MB, larger to smaller slide, and for drawing the larger
REAL = 10  # every so many batches the model runs
BLOCK = "slide-memory"
PHASES = ("tissue", "prediction", "outcome")


class Mostly(Predictor):
    """A model that runs only now and then."""

    calls = 0

    def __call__(self, tiles: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """The model's answer, or the rule's."""
        self.calls += 1
        if self.calls % REAL == 1:
            return super().__call__(tiles)
        dark = avg_pool2d(255 - tiles[..., 1].float()[:, None], 16)[:, 0].div_(32).long().clamp_(max=len(CLASSES) - 1)
        certain = one_hot(dark, len(CLASSES)).permute(0, 3, 1, 2).float() * 0.8 + 0.05
        return interpolate(certain, scale_factor=16)


def work(model: Path, slide: Path, out: Path) -> None:
    """Predict a slide; say what begins."""
    torch.set_num_threads(1)
    predictor = Mostly.load(model)

    def start(tiles: int) -> object:
        print(f"prediction {tiles}", flush=True)
        return lambda done, note: print("outcome", flush=True) if note else None

    with see(Job(slide, out), predictor.card, Settings(batch=BATCH)) as seen:
        print("tissue", flush=True)
        predict_slide(seen, predictor, Settings(batch=BATCH), start, lambda: None)  # type: ignore[arg-type]


def peaks(model: Path, slide: Path, out: Path) -> tuple[dict[str, float], int]:
    """The most MB in each phase, and the tiles."""
    command = [sys.executable, __file__, "--work", str(model), str(slide), str(out)]
    most, tiles, phase = dict.fromkeys(PHASES, 0.0), 0, ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:

        def listen() -> None:
            nonlocal phase, tiles
            for line in process.stdout or ():
                phase, *number = line.split()
                tiles = int(number[0]) if number else tiles

        threading.Thread(target=listen, daemon=True).start()
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            if phase:
                most[phase] = max(most[phase], used(watched))
            time.sleep(0.25)
    if process.returncode:
        sys.exit(f"{slide.name}: the prediction ended with {process.returncode}")
    return most, tiles


def used(process: psutil.Process) -> float:
    """MB of a process and its children, what they share counted once."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            total += one.memory_full_info().pss
        except psutil.NoSuchProcess:  # it has just ended
            continue
    return total / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only see whether it works: its numbers say nothing")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables into this page")
    parser.add_argument("--work", nargs=3, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(*arguments.work)
        return 0
    sides = (8_000, 12_000) if arguments.quick else SIDES
    rows = [["Slide, px", "Tiles", *(f"{phase}, MB" for phase in PHASES)]]
    highest, minutes = [], 0.0
    runs = Path("runs")
    runs.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=runs) as temporary:
        folder = Path(temporary)
        model = made(folder / "model")
        for side in sides:
            slide = folder / f"{side}.tif"
            begun = time.perf_counter()
            draw_slide(slide, folder / "mask.tif", PhantomSpec(), 0, side, side, SHARE)
            minutes = (time.perf_counter() - begun) / 60
            most, tiles = peaks(model, slide, folder / "out")
            highest.append(max(most.values()))
            rows.append([f"{side} x {side}", str(tiles), *(f"{most[phase]:.0f}" for phase in PHASES)])
            print(" | ".join(rows[-1]), flush=True)
    large, small = (f"{side} x {side} px" for side in reversed(sides))
    ratios = [
        Ratio(f"peak memory, {large} : {small}, both with {SHARE:.0%} tissue", [highest[1] / highest[0]], "≤", GROWTH),
        Ratio(f"peak memory, {large} : {MOST:.0f} MB", [highest[1] / MOST], "≤", 1),
        Ratio(f"time, drawing the slide of {large} : {MINUTES:.0f} minutes", [minutes / MINUTES], "≤", 1),
    ]
    how = f"torch {torch.__version__}, threads 1, the model on every {REAL}th batch"
    where = f"Device cpu: {processor()}; {how}, commit {commit()}."
    told = f"Peaks of memory by phase:\n\n{table(rows)}\n\n{textwrap.fill(where, 120)}"
    return finish(ratios, told, arguments.write, BLOCK)


if __name__ == "__main__":
    sys.exit(main())
