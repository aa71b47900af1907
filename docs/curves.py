"""Draw how finished runs learnt: mIoU on the validation split by epoch of the step that was trained last.

    python docs/curves.py docs/pictures/one-stage-curves.png "cam=runs/cam" "pdseg, 24 epochs=runs/pdseg-24"

Runs that share a name share a colour, one line each.
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure

from eosin.report.reading import read_journal

WIDTH, HEIGHT = 6.4, 3.4  # inches


def learnt(run: Path) -> list[tuple[int, float]]:
    """Epoch, counted from 1, and mIoU on validation masks of the step that was trained last."""
    step, epochs = list(read_journal(run / "journal.jsonl").items())[-1]
    points = [(epoch["epoch"] + 1, epoch["val"]["miou"]) for epoch in epochs if epoch.get("val")]
    return points or sys.exit(f"{run}: no epoch of {step} was judged by masks")


def draw(target: Path, named: list[tuple[str, Path]]) -> None:
    """One line a run."""
    figure = Figure((WIDTH, HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    colours = {name: f"C{i}" for i, name in enumerate(dict.fromkeys(name for name, _ in named))}
    unnamed = dict(colours)
    for name, run in named:
        points = learnt(run)
        axes.plot(*zip(*points, strict=True), color=colours[name], label=name if unnamed.pop(name, None) else None)
    axes.set_xlabel("epoch")
    axes.set_ylabel("mIoU, validation")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(target, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    if len(sys.argv) < 3 or not all("=" in argument for argument in sys.argv[2:]):
        sys.exit("usage: python docs/curves.py PICTURE.png NAME=RUN...")
    split = [argument.split("=", 1) for argument in sys.argv[2:]]
    draw(Path(sys.argv[1]), [(name, Path(run)) for name, run in split])
