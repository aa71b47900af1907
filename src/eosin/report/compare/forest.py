"""The forest plot: each arm's mean IoU, its interval and its runs on one axis, as SVG that follows the page's width.

Positions are shares of the width, so that letters and strokes keep their size from a telephone to a desk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from eosin.report.compare import words
from eosin.report.compare.form import Arm, Comparison
from eosin.report.compare.words import DASH
from eosin.report.markup import Safe, absent, el, number

_STEPS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
_INTERVALS = 6  # at most so many between ticks: seven labels fit a telephone


def forest(comparison: Comparison) -> Safe:
    """A line per arm, weak methods first; the dashed rule is the baseline."""
    arms = words.ordered(comparison)
    known = [value for arm in arms for value in _values(comparison, arm)]
    if not known:
        return absent("No arm has a mean IoU.")
    ticks = ticks_of(min(known), max(known))
    at = words.headline(comparison, words.arm_named(comparison, comparison.baseline))
    rule = [] if at is None else [_rule(_place(at, ticks), "at")]
    rows = [_row(comparison, arm, ticks, rule) for arm in arms]
    labels = [el("text", f"{t:g}", x=_place(t, ticks), y=14, text_anchor="middle") for t in ticks]
    axis = el("li", el("span"), el("svg", labels, aria_hidden="true"), el("b"), class_="axis", aria_hidden="true")
    what = "mIoU of the pooled confusion" if comparison.folds else "mean mIoU over the seeds"
    rings = f"rings: single {words.run_word(comparison)}s; " if any(len(arm.runs) > 1 for arm in arms) else ""
    said = f"Point: {what}; bar: its 95 % interval; {rings}dashed: {comparison.baseline}."
    return Safe(el("ul", rows, axis, class_="forest") + el("p", el("small", said)))


def _values(comparison: Comparison, arm: Arm) -> list[float]:
    found = (words.headline(comparison, arm), *arm.ci95, *arm.miou.values)
    return [value for value in found if value is not None]


def _row(comparison: Comparison, arm: Arm, ticks: Sequence[float], rule: Sequence[Safe]) -> Safe:
    value, (low, high) = words.headline(comparison, arm), arm.ci95
    parts = [_rule(_place(tick, ticks), "grid") for tick in ticks] + list(rule)
    if low is not None and high is not None:
        ends = {"x1": _place(low, ticks), "x2": _place(high, ticks)}
        parts.append(el("line", **ends, y1="50%", y2="50%", class_="whisker"))
    for label, run in zip(arm.labels, arm.miou.values, strict=True):
        if run is not None and len(arm.runs) > 1:
            tip = el("title", f"{label}: {number(run)}")
            parts.append(el("g", tip, el("circle", cx=_place(run, ticks), cy="50%", r=3.2, class_="one")))
    if value is not None:
        parts.append(el("circle", cx=_place(value, ticks), cy="50%", r=5.5, class_="point"))
    between = words.interval(arm.ci95)
    told = f"{arm.name}: {number(value)}" + ("" if between == DASH else f", 95 % interval {between}")
    bound = arm.supervision == "truth"
    svg = el("svg", parts, role="img", aria_label=told, class_="bound" if bound else "weak")
    name = el("span", arm.name, el("small", "upper bound, trained on truth") if bound else None)
    return el("li", name, svg, el("b", number(value), el("small", between)))


def _rule(x: str, kind: str) -> Safe:
    return el("line", x1=x, x2=x, y1=0, y2="100%", class_=kind)


def ticks_of(low: float, high: float) -> list[float]:
    """Round numbers that enclose the values, at most seven."""
    step = next((s for s in _STEPS if _count(low, high, s) <= _INTERVALS), _STEPS[-1])
    first = math.floor(low / step + 1e-9)
    return [round((first + k) * step, 6) for k in range(max(1, _count(low, high, step)) + 1)]


def _count(low: float, high: float, step: float) -> int:
    return math.ceil(high / step - 1e-9) - math.floor(low / step + 1e-9)


def _place(value: float, ticks: Sequence[float]) -> str:
    """A share of the width, with room for half a label at both ends."""
    return f"{4 + 92 * (value - ticks[0]) / (ticks[-1] - ticks[0]):.2f}%"
