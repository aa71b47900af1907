"""How fast are slides predicted on a CPU, against the model alone and others? Exits with 1 where a bound is broken.

Usage: ``python benchmarks/predict_slide.py [SLIDE ...] [--threads 1] [--quick] [--write PAGE]``.
It needs the extras ``cpu`` and ``bench``. The bounds hold for the default settings on a machine that does nothing else,
by the clock, on at most two cores, with one thread; those in bfloat16 on a processor with AMX.

The model is a U-Net with a ResNet-18 encoder and random weights, exported as any other. Slides are those named and one
of 20,000 x 20,000 pixels that is drawn. Every ratio is the median over rounds in which rivals take turns; each reads
the slide, predicts the same tiles and blends them. The model's own rate is that of its calls on tiles that lie in
memory. The straightforward loop reads a tile with OpenSlide, calls the program in float32 and adds it up with numpy.
MONAI's ``SlidingWindowInferer`` is given the pixels of the first slide in memory and the same model in the same
precision.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import openslide
import torch
from _page import Ratio, commit, finish, processor

import eosin  # noqa: F401  (before segmentation_models_pytorch, which imports torchvision)
from eosin import __version__
from eosin.core.processor import flags, has_bf16
from eosin.data.phantom import CLASSES, PhantomSpec
from eosin.data.phantom_slide import draw_slide
from eosin.engine.export import Exported, tissue
from eosin.parts.losses.cross_entropy import PixelCrossEntropy
from eosin.parts.segmenters import Segmenter, UNet
from eosin.predictor.export import export_program
from eosin.predictor.predictor import Predictor
from eosin.predictor.spec import Card, Precision, Runtime
from eosin.predictor.write import write_model
from eosin.slides.open import open_slide
from eosin.wsi.grid import Grid
from eosin.wsi.inputs import Job
from eosin.wsi.settings import Settings
from eosin.wsi.slide import Seen, see, tiles_of
from eosin.wsi.stitch import predict_bands

CORES = 2
TILE, MARGIN, BATCH, MPP = 256, 16, 16, 0.5
OF_MODEL: dict[Runtime, float] = {"torch": 0.8, "openvino": 0.7}  # the bounds
OF_LOOP, OF_MONAI = 2.0, 1.0
SIDE, SHARE = 20_000, 0.05  # of the drawn slide
BLOCK = "slide-speed"


def made(folder: Path) -> Path:
    """A model folder with the program."""
    torch.manual_seed(0)
    net = partial(UNet, len(CLASSES), "resnet18")
    segmenter = Segmenter(net=net, loss=partial(PixelCrossEntropy), mask="pseudo").eval()
    card = Card(
        classes=CLASSES,
        tile=TILE,
        margin=MARGIN,
        mpp=MPP,
        method="benchmark",
        recipe="0" * 64,
        selection="last",
        dataset="none",
        eosin=__version__,
    )
    write_model(folder, Exported(segmenter), card, tissue(TILE))
    return folder


def clock(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def cost(work: Callable[[], object]) -> np.ndarray:
    """Seconds by the clock and of the processor."""
    begun, used = time.perf_counter(), time.process_time()
    work()
    return np.array([time.perf_counter() - begun, time.process_time() - used])


def cut(tiles: Grid, most: int) -> Grid:
    """The first tiles of a grid."""
    return Grid(tiles.size, tiles.tile, tiles.margin, tiles.tops, tiles.lefts, tiles.places[:most])


def ours(predictor: Predictor, seen: Seen, tiles: Grid, area: object, folder: Path) -> None:
    """Read, predict, blend, and write the bands."""
    shutil.rmtree(folder, ignore_errors=True)
    predict_bands(predictor, tiles, seen.scaled, area, folder, classes=len(CLASSES), batch=BATCH)  # type: ignore[arg-type]


def loop(predictor: Predictor, path: Path, tiles: Grid) -> np.ndarray:
    """As one would write it: a tile at a time, into a canvas of the rows and columns that are needed."""
    slide = openslide.OpenSlide(path)
    tops, lefts = ([ends[i] for i in tiles.places[:, axis]] for axis, ends in enumerate((tiles.tops, tiles.lefts)))
    top, left = min(tops), min(lefts)
    height, width = max(tops) + TILE - top, max(lefts) + TILE - left
    canvas, weight = np.zeros((len(CLASSES), height, width), np.float32), np.zeros((height, width), np.float32)
    for y, x in zip(tops, lefts, strict=True):
        pixels = np.array(slide.read_region((x, y), 0, (TILE, TILE)).convert("RGB"))
        found = predictor(pixels[None])[0].numpy()
        canvas[:, y - top : y - top + TILE, x - left : x - left + TILE] += found
        weight[y - top : y - top + TILE, x - left : x - left + TILE] += 1
    slide.close()
    canvas /= np.maximum(weight, 1)
    return canvas.argmax(0)


def whole(model: Path, path: Path, rounds: int, most: int, folder: Path) -> Iterator[Ratio]:
    """A slide by both runtimes, the model alone, and the loop."""
    arms: list[tuple[Runtime, Precision]] = [(r, "bf16" if has_bf16() else "fp32") for r in ("torch", "openvino")]
    predictors = {runtime: Predictor.load(model, precision, runtime) for runtime, precision in arms}
    plain = Predictor.load(model, "fp32", "torch")
    shares: dict[str, list[np.ndarray]] = {runtime: [] for runtime in predictors}
    gains: list[float] = []
    with see(Job(path, folder / path.stem), plain.card, Settings()) as seen:
        area, every = tiles_of(seen, plain.card, Settings())
        tiles = cut(every, most)
        batch = torch.from_numpy(tiles.tiles(seen.scaled, 0, min(BATCH, len(tiles))))
        calls = max(2, len(tiles) // BATCH // 2)
        for number in range(rounds + 1):
            took = {}
            for runtime, predictor in predictors.items():
                alone = cost(lambda p=predictor: [p(batch) for _ in range(calls)])  # type: ignore[misc]
                took[runtime] = cost(partial(ours, predictor, seen, tiles, area, folder / "bands"))
                alone += cost(lambda p=predictor: [p(batch) for _ in range(calls)])  # type: ignore[misc]
                if number:  # the first prepares kernels
                    shares[runtime].append(alone / (2 * calls * len(batch)) / (took[runtime] / len(tiles)))
            straight = clock(partial(loop, plain, path, tiles)) if seen.scaled.scale == 1 else 0.0
            if number and straight:
                gains.append(straight / took["openvino"][0])
            print(f"{path.name}: round {number} of {rounds}", flush=True)
        size = f"{path.stem} ({seen.size[1]} x {seen.size[0]} px, {len(tiles)} tiles, read by {seen.slide.reader})"
    for runtime, precision in arms:
        by_clock, by_processor = np.transpose(shares[runtime]).tolist()
        name = f"tiles/s, {size} : the model alone, {runtime} {precision}"
        yield Ratio(name, by_clock, "≥", OF_MODEL[runtime])
        yield Ratio(f"the same by processor time, {runtime} {precision}", by_processor)
    if gains:
        yield Ratio(f"tiles/s, openvino : a straightforward loop, {size}", gains, "≥", OF_LOOP)


def monai(model: Path, path: Path, rounds: int, most: int) -> Iterator[Ratio]:
    """The same pixels in memory, the same model: MONAI's inferer against our blending."""
    from monai.inferers import SlidingWindowInferer

    from eosin.core.tiling import bands
    from eosin.wsi.canvas import most_probable

    predictor = Predictor.load(model, "bf16" if has_bf16() else "fp32", "torch")
    with open_slide(path) as slide:
        height, width = (min(side, most) for side in (slide.levels[0].height, slide.levels[0].width))
        pixels = torch.from_numpy(slide.read(0, 0, 0, height, width)).permute(2, 0, 1).contiguous()

    def predict(tiles: torch.Tensor) -> torch.Tensor:
        return predictor(tiles.permute(0, 2, 3, 1).to(torch.uint8))

    floats = pixels.float()[None]  # MONAI adds up in the type of what it is given
    inferer = SlidingWindowInferer((TILE, TILE), BATCH, overlap=2 * MARGIN / TILE, mode="gaussian")
    arms: dict[str, Callable[[], object]] = {
        "monai": lambda: inferer(floats, predict)[0].argmax(0),
        "ours": lambda: [most_probable(band) for band in bands(predict, pixels, TILE, MARGIN, BATCH)],
    }
    took: dict[str, list[float]] = {name: [] for name in arms}
    with torch.inference_mode():
        for number in range(rounds + 1):
            for name, arm in arms.items():
                spent = clock(arm)
                if number:
                    took[name].append(spent)
            print(f"MONAI: round {number} of {rounds}", flush=True)
    gains = [a / b for a, b in zip(took["monai"], took["ours"], strict=True)]
    name = f"pixels/s : MONAI {version('monai')}'s SlidingWindowInferer, {height} x {width} px of {path.stem} in memory"
    yield Ratio(name, gains, "≥", OF_MONAI)


def circumstances(threads: int) -> str:
    """What it was measured on."""
    amx = "with AMX" if "amx_bf16" in flags() else "without AMX, so that no bound applies to bf16"
    where = f"Device cpu: {processor()}, {amx}; threads {threads}, at most {CORES} cores"
    return f"{where}, OpenVINO {version('openvino')}, torch {torch.__version__}, commit {commit()}."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slides", nargs="*", type=Path, metavar="SLIDE", help="further slides, of about 0.5 um/px")
    parser.add_argument("--threads", type=int, default=1, help="of torch and OpenVINO")
    parser.add_argument("--quick", action="store_true", help="only see whether it works: its numbers say nothing")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables into this page")
    arguments = parser.parse_args()
    rounds, most, side = (1, 32, 2_000) if arguments.quick else (5, 320, SIDE)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    torch.set_num_threads(arguments.threads)
    runs = Path("runs")
    runs.mkdir(exist_ok=True)
    told = [circumstances(arguments.threads)]
    with tempfile.TemporaryDirectory(dir=runs) as temporary:
        folder = Path(temporary)
        model, drawn = made(folder / "model"), folder / "drawn.tif"
        export_program(model, model, "openvino", tissue(TILE))
        draw_slide(drawn, folder / "mask.tif", PhantomSpec(), 0, side, side, SHARE)
        slides = [*arguments.slides, drawn]
        ratios = [ratio for path in slides for ratio in whole(model, path, rounds, most, folder)]
        if find_spec("monai"):
            ratios += monai(model, slides[0], rounds, 600 if arguments.quick else 3000)
        else:
            told.append("MONAI is not installed (extra bench).")
    return finish(ratios, textwrap.fill(" ".join(told), 120), arguments.write, BLOCK)


if __name__ == "__main__":
    sys.exit(main())
