"""Score the arms of a comparison by ``mil-patch``, both halves of it, in a table of a results page.

    python docs/patches.py docs/results/mil.md phantom-patches runs/mil runs/mil/data/phantom-13722f4603

replaces what stands between ``<!-- phantom-patches -->`` and ``<!-- /phantom-patches -->`` by the scores of the models
that the comparison has trained, on the test split of the data set that is named last. Runs whose recipe has that
protocol are scored already. The last column is from their journals: the mean of the fused map over the training patches
of the class, as they were seen in the epoch that was kept.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from _page import write

from eosin.core.artifact import read_json
from eosin.data.dataset import Dataset
from eosin.report.compare.read import Run, read_run
from eosin.verbs.models import score

PROTOCOL, SPLIT, SHINE = "mil-patch", "test", "f_w on positives"
TRAINING = "f_w on training positives"

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


def cell(values: list[float], digits: int = 3) -> str:
    """Mean and standard deviation over runs; a dash where a run has no such value."""
    if None in values:
        return "–"
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def scores(run: Run, data: Path) -> Mapping[str, Any]:
    """Both halves of ``mil-patch``, by name."""
    if run.data["digest"] != Dataset.open(data).digest:
        sys.exit(f"{data}: not the data set of {run.folder}")
    entry = run.entry if run.entry["protocol"] == PROTOCOL else score(run.folder, data, SPLIT, PROTOCOL)
    return entry["mil_patch"]  # type: ignore[no-any-return]


def shine(run: Run) -> float:
    """The mean of the fused map over positive patches, in the kept epoch of the deployed step."""
    kept = [epoch for epoch in run.epochs[run.step] if epoch["kept"]]
    return float(kept[-1]["seen"][SHINE])


def table(comparison: Path, data: Path) -> str:
    """Markdown: one row an arm."""
    lines = [f"| Arm | Runs | {' | '.join(COLUMNS)} | {TRAINING} |", f"| --- |{' ---: |' * (2 + len(COLUMNS))}"]
    for arm in read_json(comparison / "compare.json")["arms"]:
        runs = [read_run(comparison / "runs" / Path(run).name, SPLIT, arm["name"]) for run in arm["runs"]]
        found = [scores(run, data) for run in runs]
        cells = [cell([one[half][key] for one in found], 1 if key == "hd" else 3) for half, key in COLUMNS.values()]
        lines.append(f"| {' | '.join([arm['name'], str(len(runs)), *cells, cell([*map(shine, runs)])])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit("usage: python docs/patches.py PAGE BLOCK COMPARISON DATA")
    write(Path(sys.argv[1]), sys.argv[2], table(Path(sys.argv[3]), Path(sys.argv[4])))
