"""How fast is prediction on a CPU, by OpenVINO, torch and ONNX? Exits with 1 where a bound is broken.

Usage: ``python benchmarks/predict_image.py [--threads 1] [--quick] [--write PAGE]``. It needs the extras ``cpu`` and
``onnx``. The bounds hold for the default settings on a machine that does nothing else: by the clock, on at most two
cores, with one thread; those in bfloat16 on a processor with AMX.

The model is a U-Net with a ResNet-50 encoder and random weights, exported as any other. Every ratio is the median over
rounds in which rivals take turns. A whole image costs what ``eosin predict`` takes for it, reading and writing counted
and loading the model not; the model's own rate is that of its calls on tiles that lie in memory, before and after.
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
from pathlib import Path

import numpy as np
import torch
from _page import Ratio, commit, finish, processor
from PIL import Image
from torch import Tensor, nn
from torch.export import Dim
from torch.utils.flop_counter import FlopCounterMode
from training import seconds

import eosin  # noqa: F401  (before segmentation_models_pytorch, which imports torchvision)
from eosin import __version__
from eosin.core.processor import flags, has_bf16
from eosin.core.tiling import origins, stride
from eosin.data.phantom import CLASSES, PhantomSpec, draw_image
from eosin.engine.export import Exported, tissue
from eosin.parts.losses.cross_entropy import PixelCrossEntropy
from eosin.parts.segmenters import Segmenter, UNet
from eosin.predictor.export import export_program
from eosin.predictor.formats.onnx import to_onnx
from eosin.predictor.predictor import Predictor
from eosin.predictor.runtimes import Run
from eosin.predictor.runtimes.openvino import library
from eosin.predictor.spec import Card
from eosin.predictor.write import write_model
from eosin.wsi.images import predict_images
from eosin.wsi.inputs import jobs

CORES = 2
TILE, MARGIN, BATCH = 224, 28, 16
FASTER, OF_MATMUL, OF_MODEL = 2.0, 0.70, 0.85  # the bounds
PRODUCT = 2048  # side of the matrices whose product is the measure of the processor
RIVALS = (("torch", "fp32"), ("onnx", "fp32"), ("openvino", "fp32"), ("torch", "bf16"), ("openvino", "bf16"))
BLOCK = "prediction-speed"


class Encoder(nn.Module):
    """The encoder alone, from tiles to its last features."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, tiles: Tensor) -> Tensor:
        """Scale to 0..1, put channels first, encode."""
        features: Tensor = self.net(tiles.permute(0, 3, 1, 2).float() / 255)[-1]
        return features


def segmenter() -> Segmenter:
    torch.manual_seed(0)
    net = partial(UNet, len(CLASSES), "resnet50")
    return Segmenter(net=net, loss=partial(PixelCrossEntropy), mask="pseudo").eval()


def made(folder: Path) -> Path:
    """A model folder with every form."""
    card = Card(
        classes=CLASSES,
        tile=TILE,
        margin=MARGIN,
        mpp=0.5,
        method="benchmark",
        recipe="0" * 64,
        selection="last",
        dataset="none",
        eosin=__version__,
    )
    write_model(folder, Exported(segmenter()), card, tissue(TILE))
    for form in ("onnx", "openvino"):
        parity = export_program(folder, folder, form, tissue(TILE)).parity
        print(f"{form} differs by {parity.max_difference:.2g} from the program", flush=True)
    return folder


def encoder() -> tuple[Run, float]:
    """The encoder by OpenVINO in bf16, and its floating-point operations for one tile."""
    net, tiles = Encoder(segmenter().net.net.encoder), tissue(TILE, 2)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        net(tiles[:1])
    with torch.no_grad():
        program = torch.export.export(net, (tiles,), dynamic_shapes=({0: Dim("batch", min=1)},))
    core = library().Core()
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = core.compile_model(core.read_model(to_onnx(program)), "CPU", settings)
    return (lambda tiles: compiled(tiles.numpy(), share_inputs=True)[0]), float(counted.get_total_flops())


def single(model: Path, rounds: int, bounded: bool) -> Iterator[Ratio]:
    """Tiles in memory: rivals, and the encoder against the processor's own rate."""
    tiles = tissue(TILE, 4).repeat(BATCH // 4, 1, 1, 1)
    arms: dict[str, Callable[[], object]] = {
        f"{runtime} {precision}": partial(Predictor.load(model, precision, runtime), tiles)
        for runtime, precision in RIVALS
        if precision == "fp32" or has_bf16()
    }
    matrix = torch.randn(PRODUCT, PRODUCT, dtype=torch.bfloat16)
    arms["product"] = partial(torch.mm, matrix, matrix)
    flops = 0.0
    if has_bf16():
        run, flops = encoder()
        arms["encoder"] = partial(run, tiles)
    took: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds + 1):
        for name, arm in arms.items():
            spent = seconds(arm)
            if number:  # the first prepares kernels
                took[name].append(spent)
        print(f"tiles in memory: round {number} of {rounds}", flush=True)
    runners = [name for name in arms if name not in ("product", "encoder")]
    what = f"U-Net (ResNet-50), {TILE} px, batch {BATCH}"
    for name in runners[1:]:
        rival = "torch bf16" if name == "openvino bf16" else "torch fp32"
        gains = [a / b for a, b in zip(took[rival], took[name], strict=True)]
        held = bounded and name == "openvino bf16"
        yield Ratio(f"tiles/s, {name} : {rival}, {what}", gains, "≥" if held else "", FASTER)
    if flops:
        product = 2.0 * PRODUCT**3
        shares = [(flops * BATCH / a) / (product / b) for a, b in zip(took["encoder"], took["product"], strict=True)]
        name = f"FLOP/s, the encoder by OpenVINO in bf16 : torch's product of {PRODUCT} x {PRODUCT} matrices in bf16"
        yield Ratio(name, shares, "≥" if bounded else "", OF_MATMUL)


def cost(work: Callable[[], object]) -> np.ndarray:
    """Seconds by the clock and of the processor."""
    clock, used = time.perf_counter(), time.process_time()
    work()
    return np.array([time.perf_counter() - clock, time.process_time() - used])


def whole(model: Path, rounds: int, images: int, side: int, folder: Path) -> Iterator[Ratio]:
    """Whole images by ``predict_images`` against the model alone, by the fastest runtime."""
    precision = "bf16" if has_bf16() else "fp32"
    pixels = np.tile(draw_image(PhantomSpec(), (1, 1), side // 4, side // 4)[0], (4, 4, 1))
    sources = [folder / f"{number}.png" for number in range(images)]
    for source in sources:
        Image.fromarray(pixels).save(source, compress_level=1)
    tiles = images * len(origins(pixels.shape[0], TILE, stride(TILE, MARGIN))) ** 2
    predictor = Predictor.load(model, precision, "openvino")
    batch = tissue(TILE, 4).repeat(BATCH // 4, 1, 1, 1)
    calls = max(2, tiles // images // BATCH // 2)
    out = folder / "out"
    by_clock, by_processor = [], []
    for number in range(rounds + 1):
        alone = cost(lambda: [predictor(batch) for _ in range(calls)])
        all_of_it = cost(lambda: predict_images(predictor, jobs(sources, out), batch=BATCH))
        alone += cost(lambda: [predictor(batch) for _ in range(calls)])
        shares = (alone / (2 * calls * BATCH)) / (all_of_it / tiles)
        shutil.rmtree(out)
        if number:
            by_clock.append(float(shares[0]))
            by_processor.append(float(shares[1]))
        print(f"whole images: round {number} of {rounds}", flush=True)
    name = f"tiles/s, images of {side} x {side} px : the model alone"
    yield Ratio(name, by_clock, "≥", OF_MODEL)
    yield Ratio(f"the same by processor time, {name}", by_processor)


def circumstances(threads: int) -> str:
    """What it was measured on."""
    amx = "with AMX" if _amx() else "without AMX, so that no bound applies to bf16"
    openvino, ort = library().__version__.partition("-")[0], version("onnxruntime")
    where = f"Device cpu: {processor()}, {amx}; threads {threads}, at most {CORES} cores"
    return f"{where}, OpenVINO {openvino}, onnxruntime {ort}, torch {torch.__version__}, commit {commit()}."


def _amx() -> bool:
    return "amx_bf16" in flags()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="of torch and OpenVINO")
    parser.add_argument("--quick", action="store_true", help="only see whether it works: its numbers say nothing")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables into this page")
    arguments = parser.parse_args()
    rounds, turns, images, side = (1, 1, 1, 1000) if arguments.quick else (7, 3, 2, 4000)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    torch.set_num_threads(arguments.threads)
    runs = Path("runs")
    runs.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=runs) as temporary:
        folder = Path(temporary)
        model = made(folder / "model")
        ratios = [*single(model, rounds, _amx()), *whole(model, turns, images, side, folder)]
    return finish(ratios, textwrap.fill(circumstances(arguments.threads), 120), arguments.write, BLOCK)


if __name__ == "__main__":
    sys.exit(main())
