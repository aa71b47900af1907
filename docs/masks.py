"""Say how good the pseudo masks of finished runs are, in a table of a results page.

    python docs/masks.py docs/results/baselines.md glas-masks runs/glas/runs/*
    python docs/masks.py docs/results/two-stage.md glas-tried "gland, clipped=runs/clipped"

replaces what stands between ``<!-- glas-masks -->`` and ``<!-- /glas-masks -->``. Training truth is read to measure,
after training; runs that draw no masks are passed over. Runs of one name, which is their recipe's unless given, share a
row. The data sets that the runs name must still be there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from _page import origin, write

from eosin.core.artifact import read_json
from eosin.data.dataset import Dataset
from eosin.metrics.confusion import Confusion
from eosin.metrics.scores import miou
from eosin.slides.image import read_mask

IGNORE = 255


def quality(argument: str) -> tuple[str, Path, float, float] | None:
    """Name, run, mIoU of the pixels that the masks label, and the share that they leave out; None without."""
    name, _, path = argument.rpartition("=")
    run = Path(path)
    told = read_json(run / "provenance.json")
    dataset = Dataset.open(told["dataset"]["folder"])
    truth, folder = dataset.truth("train"), run / "steps" / "pseudo" / "masks"
    if truth is None or not folder.is_dir():
        return None
    confusion, left, pixels = Confusion(len(dataset.classes)), 0, 0
    ids = dataset.items("train").ids[truth.index]
    for position, item in enumerate(ids):
        mask, true = read_mask(folder / f"{item}.png"), read_mask(truth.path(position))
        drawn = mask != IGNORE
        confusion.add(mask[drawn], true[drawn])
        left, pixels = left + int((~drawn).sum()), pixels + mask.size
    return name or told["recipe"], run, miou(confusion.matrix), left / pixels


def table(runs: list[str]) -> str:
    """Markdown: one row a name, mean and standard deviation over its runs."""
    found = [one for run in runs if (one := quality(run))]
    lines = ["| Runs of | Runs | mIoU of pseudo masks, training | Left out |", "| --- | ---: | ---: | ---: |"]
    for name in dict.fromkeys(one[0] for one in found):
        values = np.array([one[2:] for one in found if one[0] == name])
        spread = f" ± {values[:, 0].std(ddof=1):.3f}" if len(values) > 1 else ""
        lines.append(f"| {name} | {len(values)} | {values[:, 0].mean():.3f}{spread} | {values[:, 1].mean():.1%} |")
    return "\n".join([*lines, "", origin([one[1] for one in found])])


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python docs/masks.py PAGE BLOCK [NAME=]RUN...")
    write(Path(sys.argv[1]), sys.argv[2], table(sys.argv[3:]))
