"""Say how good the pseudo masks of finished runs are, in a table of a results page.

    python docs/masks.py docs/results/baselines.md glas-masks runs/glas/runs/*

replaces what stands between ``<!-- glas-masks -->`` and ``<!-- /glas-masks -->``. Training truth is read to measure,
after training; runs that draw no masks are passed over. The data sets that the runs name must still be there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from eosin.core.artifact import read_json, write_text
from eosin.data.dataset import Dataset
from eosin.metrics.confusion import Confusion
from eosin.metrics.scores import miou
from eosin.slides.image import read_mask

IGNORE = 255


def quality(run: Path) -> tuple[str, str, float, float] | None:
    """Recipe, data set, mIoU of the pixels that the masks label, and the share that they leave out; None without."""
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
    return told["recipe"], dataset.digest[:12], miou(confusion.matrix), left / pixels


def table(runs: list[Path]) -> str:
    """Markdown: one row a recipe, mean and standard deviation over its runs."""
    found = [one for run in runs if (one := quality(run))]
    lines = ["| Recipe | Runs | mIoU of pseudo masks, training | Left out |", "| --- | ---: | ---: | ---: |"]
    for recipe in dict.fromkeys(name for name, *_ in found):
        values = np.array([one[2:] for one in found if one[0] == recipe])
        spread = f" ± {values[:, 0].std(ddof=1):.3f}" if len(values) > 1 else ""
        lines.append(f"| {recipe} | {len(values)} | {values[:, 0].mean():.3f}{spread} | {values[:, 1].mean():.1%} |")
    return "\n".join([*lines, "", f"Data set digest {', '.join(sorted({one[1] for one in found}))}."])


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python docs/masks.py PAGE BLOCK RUN...")
    page, block = Path(sys.argv[1]), sys.argv[2]
    head, begin, rest = page.read_text(encoding="utf-8").partition(f"<!-- {block} -->\n")
    _, end, tail = rest.partition(f"<!-- /{block} -->")
    if not end:
        sys.exit(f"{page}: has no block {block}")
    write_text(page, f"{head}{begin}{table([Path(run) for run in sys.argv[3:]])}\n{end}{tail}")
