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
import yaml
from _page import write

from eosin.core.artifact import read_json
from eosin.data.dataset import Dataset
from eosin.report.prototypes import looks, prototypes_of
from eosin.slides.image import read_mask


def measured(run: Path, split: str) -> tuple[tuple[str, ...], int, tuple[float, ...]] | None:
    """What the run is called by, its number of images and the means over their classes; None without such views.

    It is called by its recipe, the number of prototypes and the weight of their diversity.
    """
    told = read_json(run / "provenance.json")
    options = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))["options"]
    called = tuple(str(x) for x in (told["recipe"], options.get("per_class"), options.get("diversity_weight", "–")))
    dataset = Dataset.open(told["dataset"]["folder"])
    truth, found, items = dataset.truth(split), [], 0
    for file in sorted((run / "views" / "segmenter" / split).glob("*.npz")):
        with np.load(file) as kept:
            maps = prototypes_of(dict(kept))
        if truth is None or not maps.size:
            return None
        place = int(np.flatnonzero(dataset.items(split).ids[truth.index] == file.stem)[0])
        mask = read_mask(truth.path(place))
        rows, columns = (np.arange(n) * side // n for n, side in zip(maps.shape[2:], mask.shape, strict=True))
        mask = mask[rows[:, None], columns]
        found += [astuple(looks(own, mask == c)) for c, own in enumerate(maps) if (mask == c).any()]
        items += 1
    return (called, items, tuple(map(float, np.mean(found, 0)))) if found else None


def table(runs: list[Path], split: str) -> str:
    """Markdown: one row for what runs are called by, mean and standard deviation over them."""
    found = [one for run in runs if (one := measured(run, split))]
    lines = [
        "| Recipe | Prototypes | Diversity | Runs | Images | Covered by any | Covered by each | Mean IoU of two |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for called in dict.fromkeys(one[0] for one in found):
        values = np.array([one[2] for one in found if one[0] == called])
        images = sum(one[1] for one in found if one[0] == called)
        cells = [f"{mean:.3f}" for mean in values.mean(0)]
        if len(values) > 1:
            cells = [f"{cell} ± {spread:.3f}" for cell, spread in zip(cells, values.std(0, ddof=1), strict=True)]
        lines.append(f"| {' | '.join([*called, str(len(values)), str(images), *cells])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit("usage: python docs/prototypes.py PAGE BLOCK SPLIT RUN...")
    write(Path(sys.argv[1]), sys.argv[2], table([Path(run) for run in sys.argv[4:]], sys.argv[3]))
