"""Score the arms of a comparison by ``mil-patch``, both halves of it, in a table of a results page.

    python docs/patches.py docs/results/mil.md phantom-patches runs/mil runs/mil/data/phantom-13722f4603

replaces what stands between ``<!-- phantom-patches -->`` and ``<!-- /phantom-patches -->`` by the scores of the models
that the comparison has trained, on the test split of the data set that is named last.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from _page import write

from eosin.core.artifact import read_json
from eosin.verbs.models import score

COLUMNS = {
    "F1, released": ("released", "f1"),
    "IoU, released": ("released", "iou"),
    "HD px, released ↓": ("released", "hd"),
    "F1": ("honest", "f1"),
    "IoU": ("honest", "iou"),
    "IoU of the split": ("honest", "dataset_iou"),
    "Specificity": ("honest", "specificity"),
    "HD px ↓": ("honest", "hd"),
}


def cell(scores: list[Mapping[str, Any]], half: str, key: str) -> str:
    """Mean and standard deviation of one score over runs."""
    values, digits = np.array([one[half][key] for one in scores]), 1 if key == "hd" else 3
    spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def table(comparison: Path, data: Path) -> str:
    """Markdown: one row an arm."""
    lines = [f"| Arm | Runs | {' | '.join(COLUMNS)} |", f"| --- |{' ---: |' * (1 + len(COLUMNS))}"]
    for arm in read_json(comparison / "compare.json")["arms"]:
        runs = [comparison / "runs" / Path(run).name for run in arm["runs"]]
        scores = [score(run, data, "test", "mil-patch")["mil_patch"] for run in runs]
        cells = [cell(scores, *where) for where in COLUMNS.values()]
        lines.append(f"| {' | '.join([arm['name'], str(len(runs)), *cells])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit("usage: python docs/patches.py PAGE BLOCK COMPARISON DATA")
    write(Path(sys.argv[1]), sys.argv[2], table(Path(sys.argv[3]), Path(sys.argv[4])))
