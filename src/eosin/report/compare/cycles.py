"""The best score of each cycle of methods that train a step in rounds, over the epochs: a curve for each arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from statistics import fmean, stdev

from eosin.recipe import family
from eosin.report.compare.form import Comparison
from eosin.report.reading import Entry, read_journal

NAME = "ikd-curves.png"  # Figs. 5 to 8 of IKD-MIL (He et al. 2024) have this form
_COLOURS = ("#1f6fb2", "#c8472e", "#2e8b57", "#8a5fb0", "#b8860b", "#5b6770", "#d0568f", "#1a9aa0")


@dataclass(frozen=True, slots=True)
class Curve:
    """An arm.

    Attributes:
        name: of the arm.
        epochs: that are over at the end of each cycle; the first one is the teacher's.
        scores: of each cycle, the best validation score of each run.
    """

    name: str
    epochs: tuple[int, ...]
    scores: tuple[tuple[float, ...], ...]


def cycles(journal: Mapping[str, Sequence[Entry]]) -> list[tuple[int, float]]:
    """The cycles of a run: epochs so far, and the best validation score among those of the cycle alone.

    Args:
        journal: the epochs of each step, in the order of training.

    Returns:
        The step that was trained first, then each round of the step that was trained in rounds; nothing where there is
        no such step, or an epoch of a cycle was never scored.
    """
    repeated = {family(step) for step in journal if family(step) != step and family(step) in journal}
    if not repeated:
        return []
    first = next(iter(journal))
    found, over = [], 0
    for step, lines in journal.items():
        if step == first or family(step) in repeated:
            scores = [next(iter(line["val"].values())) for line in lines if line.get("val")]
            if not scores:
                return []
            over += len(lines)
            found.append((over, max(scores)))
    return found


def curves(comparison: Comparison) -> list[Curve]:
    """The curves of those arms whose runs were all trained in as many cycles of as many epochs."""
    found = []
    for arm in comparison.arms:
        runs = [cycles(read_journal(run / "journal.jsonl")) for run in arm.runs]
        epochs = {tuple(over for over, _ in run) for run in runs}
        if len(epochs) == 1 and (over := epochs.pop()):
            found.append(Curve(arm.name, over, tuple(zip(*([score for _, score in run] for run in runs), strict=True))))
    return found


def draw_cycles(found: Sequence[Curve]) -> bytes:
    """A PNG: means over the runs with bars of one standard deviation, and a dashed line at each teacher's score."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, curve in enumerate(found):
        colour = _COLOURS[number % len(_COLOURS)]
        means = [fmean(scores) for scores in curve.scores]
        spread = [stdev(scores) if len(scores) > 1 else 0.0 for scores in curve.scores]
        axes.errorbar(curve.epochs, means, spread, color=colour, marker="o", markersize=4, capsize=3, label=curve.name)
        axes.axhline(means[0], color=colour, linestyle="--", linewidth=0.9)
    runs = max(len(curve.scores[0]) for curve in found)
    axes.set_xlabel("epoch")
    axes.set_ylabel("best validation score of the cycle")
    axes.set_title(f"mean and standard deviation over {runs} runs; dashed: the teacher", fontsize=9)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
    content = BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
