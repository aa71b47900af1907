"""What the benchmarks that fill a page share: ratios, a table, the commit, and a block of the page to put them into."""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from eosin.core.artifact import write_text

CORES = 2


@dataclass(frozen=True)
class Ratio:
    """Two rivals, and what one is to the other in each round; ``sign`` and ``bound`` say what the median must be."""

    name: str
    rounds: Sequence[float]
    sign: str = ""
    bound: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether the bound is kept."""
        value = statistics.median(self.rounds)
        return not self.sign or (value >= self.bound if self.sign == "≥" else value <= self.bound)

    def row(self) -> list[str]:
        """Name, median, spread, bound and verdict."""
        spread = f"{min(self.rounds):.3f} to {max(self.rounds):.3f}" if len(self.rounds) > 1 else ""
        bound = [f"{self.sign} {self.bound:g}", "ok" if self.holds else "BROKEN"] if self.sign else ["", ""]
        return [self.name, f"{statistics.median(self.rounds):.3f}", spread, *bound]


def begin(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read ``--threads``, ``--quick``, ``--write`` and what ``parser`` takes, and keep to ``CORES`` processors."""
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--quick", action="store_true", help="only see whether it works: its numbers say nothing")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page")
    arguments = parser.parse_args()
    os.environ.update(CUDA_VISIBLE_DEVICES="")  # bounds are of processors
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    torch.set_num_threads(arguments.threads)
    return arguments


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows, of which the first is the head, as Markdown; numbers stand to the right."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"| --- |{' ---: |' * (len(rows[0]) - 1)}", *lines[1:]])


def commit() -> str:
    """Of the source tree, with "+changes" if it was changed."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=10", "--dirty=+changes"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def processor() -> str:
    """Its name."""
    told = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.*)$", told.read_text() if told.exists() else "", re.MULTILINE)
    return model[1] if model else platform.processor() or platform.machine()


def write(page: Path, block: str, tables: str) -> None:
    """Put tables into a block of a page, between ``<!-- block -->`` and ``<!-- /block -->``."""
    text = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {block} -->", f"<!-- /{block} -->"
    if begin not in text or end not in text:
        sys.exit(f"{page}: has no block {begin} ... {end}")
    write_text(page, re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{tables}\n{end}", text, flags=re.DOTALL))


def finish(ratios: Sequence[Ratio], told: str, page: Path | None, block: str) -> int:
    """Print ratios and what is told of them, put both into a block of a page if one is given; the exit code."""
    rows = [["Ratio", "Median", "Rounds", "Bound", ""], *(ratio.row() for ratio in ratios)]
    tables = f"{table(rows)}\n\n{told}"
    print(f"\n{tables}", flush=True)
    if page:
        write(page, block, tables)
    return 0 if all(ratio.holds for ratio in ratios) else 1
