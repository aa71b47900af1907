"""Drawings of the report: learning curves as inline SVG that follow the page's colours, and small pictures of items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from eosin.core.classes import Classes
from eosin.report.markup import Safe, el, number
from eosin.slides.draw import Pixels, overlay

SIDE = 320  # pixels of a picture's longest side: sharp at the size shown, and small enough for fifty in one file
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 440, 220, 46, 10, 12, 30
_COLOURS = 8  # line colours in the style sheet, and so the lines of one chart
_DECADES_APART = 50.0  # a linear axis flattens what is smaller than its maximum by this factor
_DOTS = 60  # with more points than this, dots would hide the line


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: its name and its ``(epoch, value)`` points; a value that is not finite leaves a gap."""

    name: str
    points: Sequence[tuple[int, float]]


def charts(title: str, lines: Sequence[Line], *, kept: int | None, unit: bool) -> list[Safe]:
    """As many charts as it takes to see every line: at most eight in each, and none flattened by a larger one.

    Args:
        title: what is drawn.
        lines: each with a point; none is left out.
        kept: as in :func:`chart`.
        unit: as in :func:`chart`.
    """
    groups = [lines] if unit or _decades(lines) else _by_size(lines)
    parts = [group[i : i + _COLOURS] for group in groups for i in range(0, len(group), _COLOURS)]
    counted = [f" ({i} of {len(parts)})" if len(parts) > 1 else "" for i in range(1, len(parts) + 1)]
    return [chart(title + at, part, kept=kept, unit=unit) for at, part in zip(counted, parts, strict=True)]


def _by_size(lines: Sequence[Line]) -> list[list[Line]]:
    """Lines that one linear axis can show, the largest first; lines that are 0 throughout fit with any."""
    sizes = [max((abs(v) for v in _finite([line])), default=0.0) for line in lines]
    groups: list[list[Line]] = []
    left = list(range(len(lines)))
    while left:
        top = max(sizes[i] for i in left)
        fit = [i for i in left if sizes[i] == 0 or sizes[i] * _DECADES_APART >= top]
        groups.append([lines[i] for i in fit])
        left = [i for i in left if i not in fit]
    return groups


def _finite(lines: Sequence[Line]) -> list[float]:
    return [v for line in lines for _, v in line.points if math.isfinite(v)]


def _decades(lines: Sequence[Line]) -> bool:
    """Whether a logarithmic axis is needed and possible."""
    finite = _finite(lines)
    return bool(finite) and min(finite) > 0 and max(finite) > _DECADES_APART * min(finite)


def chart(title: str, lines: Sequence[Line], *, kept: int | None, unit: bool) -> Safe:
    """Curves over epochs with a key that gives the last value, and the kept epoch's where one is marked.

    Args:
        title: what is drawn.
        lines: one to eight, each with a point; one without a finite value stands in the key alone.
        kept: the epoch that was kept, marked by a rule.
        unit: scores in 0..1 are drawn on that range; other values on their own, in decades if they spread widely.
    """
    log = not unit and _decades(lines)
    ticks = _ticks(_finite(lines), unit=unit, log=log)
    epochs = [e for line in lines for e, _ in line.points]
    first, last = min(epochs), max(epochs)
    low, high = (math.log10(v) if log else v for v in (ticks[0], ticks[-1]))

    def at(epoch: float, value: float) -> tuple[float, float]:
        height = ((math.log10(value) if log else value) - low) / ((high - low) or 1)
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * (0.5 if first == last else (epoch - first) / (last - first))
        return round(x, 1), round(_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * height, 1)

    parts = [_tick(at(first, v)[1], v) for v in ticks]
    parts += [_text(*at(e, ticks[0]), str(e + 1), "middle", 16) for e in _epoch_ticks(first, last)]
    if kept is not None:
        x = at(kept, ticks[0])[0]
        parts.append(el("line", x1=x, x2=x, y1=_TOP, y2=_HEIGHT - _BOTTOM, class_="kept"))
    for k, line in enumerate(lines):
        parts.append(_curve(line, k, [(e, v, *at(e, v)) for e, v in line.points if _drawable(v, log)]))
    label = f"{title}: " + "; ".join(f"{line.name} ends at {_brief(line.points[-1][1])}" for line in lines)
    drawing = el("svg", parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=label)
    caption = el("figcaption", el("b", title), " by epoch", " (decades)" if log else "")
    return el("figure", caption, drawing, _key(lines, kept), class_="chart")


def _drawable(value: float, log: bool) -> bool:
    return math.isfinite(value) and (value > 0 or not log)


def _curve(line: Line, k: int, points: Sequence[tuple[int, float, float, float]]) -> Safe:
    """One path, broken where epochs were left out by a value that is not finite, and its dots."""
    drawn = {epoch for epoch, *_ in points}
    told = [epoch for epoch, _ in line.points]
    after = dict(pairwise(told))
    before = {epoch: earlier for earlier, epoch in after.items()}
    steps = []
    for epoch, _, x, y in points:
        if before.get(epoch) in drawn:
            steps.append(f"L{x} {y}")
        else:  # a path of no length still shows its round cap, so that a point between two gaps is seen
            steps.append(f"M{x} {y}" + ("" if after.get(epoch) in drawn else "h0"))
    dots = [] if len(points) > _DOTS else points
    marks = [
        el("g", el("title", f"{line.name}, epoch {e + 1}: {v:.4g}"), el("circle", cx=x, cy=y, r=2.4))
        for e, v, x, y in dots
    ]
    return el("g", el("path", d="".join(steps)), marks, class_=f"line c{k}")


def _key(lines: Sequence[Line], kept: int | None) -> Safe:
    entries = []
    for k, line in enumerate(lines):
        value = _brief(line.points[-1][1])
        if kept is not None:
            at_kept = dict(line.points).get(kept, math.nan)
            value = f"{_brief(at_kept)} kept" if kept == line.points[-1][0] else f"{_brief(at_kept)} kept, {value} last"
        entries.append(el("li", el("i", class_=f"c{k}", aria_hidden="true"), line.name, el("b", value)))
    return el("ul", entries, class_="key")


def _brief(value: float) -> str:
    """A value in three digits; a small one, as loss terms are, without its leading zeros cutting them off."""
    return f"{value:.2g}" if 0 < abs(value) < 0.01 else number(value)


def _tick(y: float, value: float) -> Safe:
    grid = el("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid")
    return Safe(grid + _text(_LEFT - 6, y, f"{value:g}", "end", 4))


def _text(x: float, y: float, text: str, anchor: str, down: int) -> Safe:
    return el("text", text, x=x, y=y + down, text_anchor=anchor)


def _ticks(values: Sequence[float], *, unit: bool, log: bool) -> list[float]:
    """Round numbers that enclose the values: four to seven, or decades."""
    if unit or not values:
        return [0, 0.2, 0.4, 0.6, 0.8, 1]
    low, high = min(values), max(values)
    if log:
        return [10.0**k for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    low = min(low, 0.0)
    rough = ((high - low) or 1) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    size = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))
    start, stop = math.floor(low / size), math.ceil((high or 1) / size - 1e-9)
    return [round(k * size, 10) for k in range(start, max(stop, start + 1) + 1)]


def _epoch_ticks(first: int, last: int) -> list[int]:
    gap = max(1, math.ceil((last - first) / 8))
    return [*range(first, last - gap // 2, gap), last] if last > first else [first]


def fitted(rgb: Pixels) -> Pixels:
    """Scale uint8 ``[H, W, 3]`` to a longest side of ``SIDE`` pixels."""
    size, shrink = _size(rgb.shape[:2])
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC), np.uint8)


def tinted(rgb: Pixels, mask: Pixels, classes: Classes) -> Pixels:
    """The overlay of a uint8 ``[H, W]`` mask at picture size, so that edges stay thin on small patches."""
    size, _ = _size(mask.shape)
    return overlay(fitted(rgb), np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8), classes)


def _size(shape: Sequence[int]) -> tuple[tuple[int, int], bool]:
    scale = SIDE / max(shape)
    return (max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))), scale < 1
