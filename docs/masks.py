"""Say how good the pseudo masks of finished runs are, in a table of a results page.

    python docs/masks.py docs/results/baselines.md glas-masks runs/glas/runs/*
    python docs/masks.py docs/results/two-stage.md glas-tried "gland, clipped=runs/clipped"

replaces what stands between ``<!-- glas-masks -->`` and ``<!-- /glas-masks -->``. Training truth is read to measure,
after training; runs that draw no masks are passed over. Runs of one name, which is their recipe's unless given, share a
row; of several sets of masks each has its own. The data sets that the runs name must still be there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from _page import origin, write

from eosin.core.artifact import read_json
from eosin.data.dataset import Dataset
from eosin.metrics.confusion import Confusion
from eosin.metrics.scores import miou
from eosin.slides.image import read_mask

IGNORE = 255


def qualities(argument: str) -> Iterator[tuple[str, Path, float, float]]:
    """Of each set of masks: name, run, mIoU of the pixels that it labels, and the share that it leaves out."""
    name, _, path = argument.rpartition("=")
    run = Path(path)
    told = read_json(run / "provenance.json")
    dataset = Dataset.open(told["dataset"]["folder"])
    truth = dataset.truth("train")
    if truth is None:
        return
    ids = dataset.items("train").ids[truth.index]
    for step in sorted((run / "steps").glob("pseudo*")):
        confusion, left, pixels = Confusion(len(dataset.classes)), 0, 0
        for position, item in enumerate(ids):
            mask, true = read_mask(step / "masks" / f"{item}.png"), read_mask(truth.path(position))
            drawn = mask != IGNORE
            confusion.add(mask[drawn], true[drawn])
            left, pixels = left + int((~drawn).sum()), pixels + mask.size
        called = (name or told["recipe"]) + ("" if step.name == "pseudo" else f", {step.name}")
        yield called, run, miou(confusion.matrix), left / pixels


def table(runs: list[str]) -> str:
    """Markdown: one row a name, mean and standard deviation over its runs."""
    found = [one for run in runs for one in qualities(run)]
    lines = ["| Runs of | Runs | mIoU of pseudo masks, training | Left out |", "| --- | ---: | ---: | ---: |"]
    for name in dict.fromkeys(one[0] for one in found):
        values = np.array([one[2:] for one in found if one[0] == name])
        spread = f" ± {values[:, 0].std(ddof=1):.3f}" if len(values) > 1 else ""
        lines.append(f"| {name} | {len(values)} | {values[:, 0].mean():.3f}{spread} | {values[:, 1].mean():.1%} |")
    return "\n".join([*lines, "", origin(list(dict.fromkeys(one[1] for one in found)))])


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python docs/masks.py PAGE BLOCK [NAME=]RUN...")
    write(Path(sys.argv[1]), sys.argv[2], table(sys.argv[3:]))
