"""How fast are slides read? Tiles read directly against OpenSlide; exits with 1 where a bound is broken.

Usage: ``python benchmarks/read_slide.py [--quick] [--write PAGE]``. The bounds hold for the default settings on a
machine that does nothing else.

Both readers walk over the same overlapping tiles in the order of prediction, from a newly opened slide on; opening it
is not counted. OpenSlide has the usual loop: ``read_region``, to RGB, to an array; it keeps tiles of its own. Every
ratio is the median over rounds in which the two take turns. A slide that is JPEG-tiled (YCbCr 4:2:0, quality 80) is
drawn; the two real ones, JPEG and JPEG 2000, are read where ``EOSIN_DATA`` or ``../shared/data`` has them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openslide
import tifffile
from _page import Ratio, commit, finish, processor

from eosin.data.phantom import PhantomSpec, draw_image
from eosin.slides.open import open_slide
from eosin.slides.slide import Pixels

SIZE, OVERLAP = 256, 56  # of the tiles that are asked for
FASTER = 2.0  # the bound for JPEG
BLOCK = "reading-speed"
REAL = {"JPEG, real": "CMU-1-Small-Region.svs", "JPEG 2000, real": "TCGA-CR-7395-01A-01-TS1.svs"}
Read = Callable[[int, int], Pixels]


def drawn(path: Path, side: int) -> Path:
    """A drawn slide of one level."""
    pixels = np.tile(draw_image(PhantomSpec(), (1, 1), side // 4, side // 4)[0], (4, 4, 1))
    settings = {"photometric": "ycbcr", "subsampling": (2, 2), "compressionargs": {"level": 80}}
    tifffile.imwrite(path, pixels, tile=(256, 256), compression="jpeg", metadata=None, **settings)
    return path


def places(path: Path, side: int) -> list[tuple[int, int]]:
    """Where tiles begin, rows and columns, in at most ``side`` pixels of the middle of a slide."""
    with open_slide(path) as slide:
        sizes = slide.levels[0].height, slide.levels[0].width
    begins = [(max(0, (size - side) // 2), min(size, side)) for size in sizes]
    rows, columns = (range(begin, begin + extent - SIZE + 1, SIZE - OVERLAP) for begin, extent in begins)
    return [(row, column) for row in rows for column in columns]


def directly(path: Path, at: list[tuple[int, int]], threads: int) -> float:
    """Seconds that our reader takes."""
    with open_slide(path, "tifffile") as slide:
        begin = time.perf_counter()
        walk(lambda row, column: slide.read(0, row, column, SIZE, SIZE), at, threads)
        return time.perf_counter() - begin


def usual(path: Path, at: list[tuple[int, int]], threads: int) -> float:
    """Seconds that the usual loop over OpenSlide takes."""
    with openslide.OpenSlide(path) as slide:
        begin = time.perf_counter()
        walk(
            lambda row, column: np.asarray(slide.read_region((column, row), 0, (SIZE, SIZE)).convert("RGB")),
            at,
            threads,
        )
        return time.perf_counter() - begin


def walk(read: Read, at: list[tuple[int, int]], threads: int) -> None:
    """Read all tiles."""
    if threads == 1:
        for row, column in at:
            read(row, column)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda place: read(*place), at))


def alike(path: Path, at: list[tuple[int, int]]) -> None:
    """Stop if both readers do not give the same pixels."""
    with open_slide(path, "tifffile") as slide, openslide.OpenSlide(path) as other:
        for row, column in at[:: max(1, len(at) // 20)]:
            expected = np.asarray(other.read_region((column, row), 0, (SIZE, SIZE)).convert("RGB"))
            if not np.array_equal(slide.read(0, row, column, SIZE, SIZE), expected):
                sys.exit(f"{path.name}: the readers differ at row {row}, column {column}")


def compared(name: str, path: Path, side: int, rounds: int, bounded: bool) -> list[Ratio]:
    """Our rate to OpenSlide's, by one thread and by two."""
    at, ratios = places(path, side), []
    alike(path, at)
    for threads in (1, 2):
        gains = []
        for number in range(rounds + 1):
            ours, others = directly(path, at, threads), usual(path, at, threads)
            if number:  # the first brings the file into memory
                gains.append(others / ours)
        print(f"{name}, {threads} threads: {len(at) / ours:.0f} and {len(at) / others:.0f} tiles/s", flush=True)
        what = f"tiles/s, direct : OpenSlide, {name}, {len(at)} tiles of {SIZE} px, threads {threads}"
        ratios.append(Ratio(what, gains, "≥" if bounded else "", FASTER))
    return ratios


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only see whether it works: its numbers say nothing")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables into this page")
    arguments = parser.parse_args()
    rounds, side = (1, 600) if arguments.quick else (7, 2000)
    real = Path(os.environ.get("EOSIN_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")) / "slides"
    with tempfile.TemporaryDirectory() as folder:
        slides = {"JPEG, drawn": drawn(Path(folder) / "drawn.tif", max(side, 1024))}
        slides |= {name: real / file for name, file in REAL.items() if (real / file).exists()}
        ratios = [
            ratio
            for name, path in slides.items()
            for ratio in compared(
                name, path, side // 2 if "2000" in name else side, rounds, not arguments.quick and "2000" not in name
            )
        ]
    versions = f"tifffile {tifffile.__version__}, OpenSlide {openslide.__library_version__}"
    told = f"Device cpu: {processor()}, {versions}, commit {commit()}."
    return finish(ratios, textwrap.fill(told, 120), arguments.write, BLOCK)


if __name__ == "__main__":
    sys.exit(main())
