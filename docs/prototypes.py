"""Say what the prototypes of finished runs of LPD and PBIP look at, in a table of a results page.

    python docs/prototypes.py docs/results/prototypes.md phantom test runs/phantom/runs/*

replaces what stands between ``<!-- phantom -->`` and ``<!-- /phantom -->``, by the maps that each run's model makes of
all items of the named split. Only classes that an item's truth holds count; runs without prototypes are passed over.
The data sets that the runs name must still be there.
"""

from __future__ import annotations

import sys
from dataclasses import astuple
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import yaml
from _page import origin, write

from eosin.core.artifact import read_json
from eosin.core.progress import Silent
from eosin.engine.device import open_device
from eosin.engine.views import keep_views
from eosin.engine.weights import load
from eosin.report.prototypes import looks_at
from eosin.slides.image import read_mask
from eosin.verbs.finished import finished


def measured(run: Path, split: str) -> tuple[tuple[str, ...], int, tuple[float, ...]] | None:
    """What the run is called by, its number of images and the means over their classes; None without prototypes.

    It is called by its recipe, the number of prototypes and the weight of their diversity.
    """
    options = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))["options"]
    if "per_class" not in options:
        return None
    place, lab, final = finished(run, Silent())
    recipe = read_json(run / "provenance.json")["recipe"]
    called = tuple(str(x) for x in (recipe, options.get("per_class"), options.get("diversity_weight", "–")))
    items, truth = place.dataset.items(split), place.dataset.truth(split)
    if truth is None:
        return None
    device, found = open_device("fp32"), []
    learner = device.place(load(lab.build_of(lab.trained[final]), lab.trained[final]))
    with TemporaryDirectory() as folder:
        keep_views(learner, items, lab.tiling, device, Path(folder), lambda: None)
        for k, index in enumerate(truth.index):
            with np.load(Path(folder) / f"{items.ids[index]}.npz") as kept:
                found += map(astuple, looks_at(dict(kept), read_mask(truth.path(k))).values())
    return called, len(truth.index), tuple(map(float, np.mean(found, 0)))


def table(runs: list[Path], split: str) -> str:
    """Markdown: one row for what runs are called by, mean and standard deviation over them."""
    told = {run: one for run in runs if (one := measured(run, split))}
    found = list(told.values())
    lines = [
        "| Recipe | Prototypes | Diversity | Runs | Images | Covered by any | Covered by each | Mean IoU of two |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for called in dict.fromkeys(one[0] for one in found):
        values = np.array([one[2] for one in found if one[0] == called])
        images = max(one[1] for one in found if one[0] == called)
        cells = [f"{mean:.3f}" for mean in values.mean(0)]
        if len(values) > 1:
            cells = [f"{cell} ± {spread:.3f}" for cell, spread in zip(cells, values.std(0, ddof=1), strict=True)]
        cells = ["–" if cell.startswith("nan") else cell for cell in cells]  # a prototype alone overlaps with none
        lines.append(f"| {' | '.join([*called, str(len(values)), str(images), *cells])} |")
    return "\n".join([*lines, "", f"Images of {split}. {origin(list(told))}"])


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit("usage: python docs/prototypes.py PAGE BLOCK SPLIT RUN...")
    write(Path(sys.argv[1]), sys.argv[2], table([Path(run) for run in sys.argv[4:]], sys.argv[3]))
