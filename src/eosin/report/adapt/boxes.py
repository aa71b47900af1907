"""The box plot of a study: shares of the target's items by methods, a panel for each direction, as one SVG.

It stands in the page, where it takes the page's colours, and alone, where it has its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from eosin.report.adapt.form import Adaptation, Direction, Stage
from eosin.report.compare.forest import ticks_of
from eosin.report.compare.form import Arm
from eosin.report.markup import Safe, el, number

_WIDTH, _PANEL, _LEFT, _RIGHT, _TOP, _BOTTOM, _KEY = 760, 300, 52, 12, 40, 48, 34
_WIDEST, _FILLED = 30.0, 0.74  # of a box in pixels; of a group, the share that its boxes fill
_COLOURS = 8  # line colours in the style sheet
_STYLE = """
.boxes { display: block; width: 100%; height: auto; }
.boxes { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.boxes text { fill: var(--soft, #5d5869); }
.boxes .title { fill: var(--ink, #1e1b26); font-size: 14px; font-weight: 600; }
.boxes .grid { stroke: var(--line, #e4dfea); stroke-width: 1; }
.boxes .box { fill: currentColor; fill-opacity: .22; stroke: currentColor; stroke-width: 1.4; }
.boxes .scratch .box { fill: none; stroke-dasharray: 3 2.4; }
.boxes .median { stroke: currentColor; stroke-width: 2.6; }
.boxes .whisker { stroke: currentColor; stroke-width: 1.4; }
.boxes .run { fill: currentColor; }
.boxes .m0 { color: var(--c0, #5c3a99); } .boxes .m1 { color: var(--c1, #c8327a); }
.boxes .m2 { color: var(--c2, #00806a); } .boxes .m3 { color: var(--c3, #b35a00); }
.boxes .m4 { color: var(--c4, #1668b8); } .boxes .m5 { color: var(--c5, #8a6d00); }
.boxes .m6 { color: var(--c6, #6b6b76); } .boxes .m7 { color: var(--c7, #a3203a); }
"""
SAID = (
    "Box: quartiles over the seeds; bar: median; whiskers: lowest and highest run; dots: single runs. Dashed boxes: "
    "trained from scratch, without the source, at the recipes' own rates. 0 %: the source's model as it is."
)


def boxes(adaptation: Adaptation) -> Safe:
    """The plot; all panels have one axis."""
    values = [value for one in adaptation.directions for _, arm in _arms(one) for value in _values(arm)]
    ticks = ticks_of(min(values, default=0.0), max(values, default=1.0))
    height = _KEY + _PANEL * len(adaptation.directions)
    parts: list[Safe] = [el("style", Safe(_STYLE)), _key(adaptation)]
    for k, direction in enumerate(adaptation.directions):
        parts.append(el("g", _panel(adaptation, direction, ticks), transform=f"translate(0 {_KEY + k * _PANEL})"))
    said = f"Mean IoU by share of the target's training items. {SAID}"
    frame = {"viewBox": f"0 0 {_WIDTH} {height}", "role": "img", "aria_label": said, "class_": "boxes"}
    return el("svg", parts, xmlns="http://www.w3.org/2000/svg", **frame)


def alone(drawn: Safe) -> str:
    """The plot as a file: with the colours of a light page, on white."""
    plain = re.sub(r"var\(--\w+, (#\w+)\)", r"\1", drawn)
    return re.sub(r"(<style>)", '<rect width="100%" height="100%" fill="#ffffff"></rect>\\1', plain, count=1) + "\n"


def _panel(adaptation: Adaptation, direction: Direction, ticks: Sequence[float]) -> list[Safe]:
    """Title, axes and the boxes of a direction, the stages from left to right."""
    found = _arms(direction)
    shares = sorted({stage.share for stage, _ in found})
    group = (_WIDTH - _LEFT - _RIGHT) / len(shares)
    most = max(sum(stage.share == share for stage, _ in found) for share in shares)
    wide = min(_WIDEST, _FILLED * group / most)
    parts = [el("text", direction.name, x=_LEFT, y=22, class_="title")]
    for tick in ticks:
        y = _y(tick, ticks)
        parts.append(el("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(el("text", f"{tick:g}", x=_LEFT - 7, y=y + 4, text_anchor="end"))
    for k, share in enumerate(shares):
        middle = _LEFT + (k + 0.5) * group
        mine = [(stage, arm) for stage, arm in found if stage.share == share]
        mine.sort(key=lambda pair: (adaptation.methods.index(pair[1].name), pair[0].scratch))
        for n, (stage, arm) in enumerate(mine):
            x = middle + (n - (len(mine) - 1) / 2) * wide
            parts.append(_box(stage, arm, adaptation.methods.index(arm.name), x, 0.8 * wide, ticks))
        label = f"{100 * share:g} %" + " alone" * all(stage.scratch for stage, _ in mine)
        parts.append(el("text", label, x=round(middle, 1), y=_PANEL - _BOTTOM + 18, text_anchor="middle"))
    what = f"share of the training items of {direction.target}"
    parts.append(el("text", what, x=(_LEFT + _WIDTH - _RIGHT) / 2, y=_PANEL - _BOTTOM + 36, text_anchor="middle"))
    parts.append(el("text", "mIoU", x=_LEFT - 7, y=22, text_anchor="end"))
    return parts


def _box(stage: Stage, arm: Arm, method: int, x: float, wide: float, ticks: Sequence[float]) -> Safe:
    """Quartiles, median, extremes and runs of one arm around ``x``."""
    values = _values(arm)
    low, first, median, third, high = (_y(float(v), ticks) for v in np.quantile(values, (0, 0.25, 0.5, 0.75, 1)))
    left, right = round(x - wide / 2, 1), round(x + wide / 2, 1)
    parts = [
        el("title", f"{arm.name}, {stage.said}: " + ", ".join(number(value) for value in values)),
        el("line", x1=round(x, 1), x2=round(x, 1), y1=low, y2=first, class_="whisker"),
        el("line", x1=round(x, 1), x2=round(x, 1), y1=third, y2=high, class_="whisker"),
        el("rect", x=left, y=third, width=round(right - left, 1), height=round(first - third, 2), class_="box"),
        el("line", x1=left, x2=right, y1=median, y2=median, class_="median"),
    ]
    parts += [el("circle", cx=round(x, 1), cy=_y(value, ticks), r=2.2, class_="run") for value in values]
    return el("g", parts, class_=f"m{method % _COLOURS}" + " scratch" * stage.scratch)


def _key(adaptation: Adaptation) -> Safe:
    """The methods and their colours in a line."""
    parts, x = [], float(_LEFT)
    for k, name in enumerate(adaptation.methods):
        parts.append(el("rect", x=x, y=12, width=14, height=12, class_=f"box m{k % _COLOURS}"))
        parts.append(el("text", name, x=x + 20, y=22))
        x += 44 + 7.2 * len(name)
    return el("g", parts)


def _arms(direction: Direction) -> list[tuple[Stage, Arm]]:
    return [(stage, arm) for stage, comparison in direction.stages for arm in comparison.arms if _values(arm)]


def _values(arm: Arm) -> list[float]:
    return [value for value in arm.miou.values if value is not None]


def _y(value: float, ticks: Sequence[float]) -> float:
    inner = _PANEL - _TOP - _BOTTOM
    return round(_TOP + inner * (1 - (value - ticks[0]) / (ticks[-1] - ticks[0])), 2)
