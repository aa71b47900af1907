"""Say what the prototypes of finished runs of LPD and PBIP look at, in a table of a results page.

    python docs/prototypes.py docs/results/prototypes.md phantom test runs/phantom/runs/*

replaces what stands between ``<!-- phantom -->`` and ``<!-- /phantom -->``, by the views that each run keeps of a few
items of the named split. Only classes that an item's truth holds count; runs without views of prototypes are passed
over. The data sets that the runs name must still be there.
"""

from __future__ import annotations

import sys
from dataclasses import astuple
from pathlib import Path

import numpy as np

from eosin.core.artifact import read_json, write_text
from eosin.data.dataset import Dataset
from eosin.report.prototypes import looks, prototypes_of
from eosin.slides.image import read_mask


def measured(run: Path, split: str) -> tuple[str, int, tuple[float, ...]] | None:
    """Recipe, number of images and the means over their classes; None without views of prototypes."""
    told = read_json(run / "provenance.json")
    dataset = Dataset.open(told["dataset"]["folder"])
    truth, found, items = dataset.truth(split), [], 0
    for file in sorted((run / "views" / "segmenter" / split).glob("*.npz")):
        with np.load(file) as kept:
            maps = prototypes_of(dict(kept))
        if truth is None or not maps.size:
            return None
        place = int(np.flatnonzero(dataset.items(split).ids[truth.index] == file.stem)[0])
        mask, (height, width) = read_mask(truth.path(place)), maps.shape[2:]
        rows, columns = (np.arange(n) * side // n for n, side in zip((height, width), mask.shape, strict=True))
        mask = mask[rows[:, None], columns]
        found += [astuple(looks(own, mask == c)) for c, own in enumerate(maps) if (mask == c).any()]
        items += 1
    return (told["recipe"], items, tuple(map(float, np.mean(found, 0)))) if found else None


def table(runs: list[Path], split: str) -> str:
    """Markdown: one row a recipe, mean and standard deviation over its runs."""
    found = [one for run in runs if (one := measured(run, split))]
    lines = [
        "| Recipe | Runs | Images | Covered by any prototype | Covered by each | Mean IoU of two |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for recipe in dict.fromkeys(name for name, *_ in found):
        values = np.array([one[2] for one in found if one[0] == recipe])
        images = sum(one[1] for one in found if one[0] == recipe)
        spread = values.std(0, ddof=1) if len(values) > 1 else None
        cells = [
            f"{m:.3f}" + (f" ± {s:.3f}" if spread is not None else "")
            for m, s in zip(values.mean(0), spread if spread is not None else values[0], strict=True)
        ]
        lines.append(f"| {recipe} | {len(values)} | {images} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit("usage: python docs/prototypes.py PAGE BLOCK SPLIT RUN...")
    page, block, split = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    head, begin, rest = page.read_text(encoding="utf-8").partition(f"<!-- {block} -->\n")
    _, end, tail = rest.partition(f"<!-- /{block} -->")
    if not end:
        sys.exit(f"{page}: has no block {block}")
    write_text(page, f"{head}{begin}{table([Path(run) for run in sys.argv[4:]], split)}\n{end}{tail}")
