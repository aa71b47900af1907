"""The reliability diagram as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

from eosin.report.markup import Safe, count, el, number, percent
from eosin.report.reading import Entry

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP = 440, 356, 46, 10, 10
_PLOT, _GAP, _COUNTS = 250, 10, 40  # heights: the diagram, the space below it, and the bars of pixels
_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def diagram(title: str, bins: Sequence[Entry]) -> Safe:
    """Accuracy over confidence, one bar a bin, and below it how many of the pixels each bin holds.

    Args:
        title: what is drawn.
        bins: as in ``scores.json``: ``from``, ``to``, ``confidence``, ``accuracy`` (all in 0..1) and ``pixels``; a bin
            without pixels has no confidence.
    """
    filled = [one for one in bins if one.get("pixels")]
    whole = sum(one["pixels"] for one in filled)
    most = max((one["pixels"] for one in filled), default=1)
    parts: list[Safe] = []
    for value in _TICKS:
        x, y = _x(value), _y(value)
        parts.append(el("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(el("text", f"{value:g}", x=_LEFT - 6, y=y + 4, text_anchor="end"))
        parts.append(el("text", f"{value:g}", x=x, y=_floor() + 16, text_anchor="middle"))
    parts += [_bin(one, one["pixels"] / whole, one["pixels"] / most) for one in filled]
    parts.append(el("line", x1=_x(0), x2=_x(1), y1=_y(0), y2=_y(1), class_="ideal"))
    parts.append(el("text", "share of pixels", x=_LEFT + 4, y=_TOP + _PLOT + _GAP + 12))
    parts.append(el("text", "confidence", x=_x(0.5), y=_HEIGHT - 4, text_anchor="middle"))
    told = "; ".join(f"{number(one['confidence'], 2)} sure, {number(one['accuracy'], 2)} right" for one in filled)
    drawing = el("svg", parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=f"{title}: {told}")
    key = [
        el("li", el("i", class_="bar", aria_hidden="true"), "right"),
        el("li", el("i", class_="over", aria_hidden="true"), "sure, but wrong"),
        el("li", el("i", class_="under", aria_hidden="true"), "right, but less sure"),
        el("li", el("i", class_="diagonal", aria_hidden="true"), "as sure as right"),
    ]
    caption = el("figcaption", el("b", title), ": accuracy by confidence")
    return el("figure", caption, drawing, el("ul", key, class_="key"), class_="chart reliability")


def _bin(one: Entry, share: float, height: float) -> Safe:
    """The bar of a bin, the gap between what it says and what is right, and its share of the pixels."""
    confidence, accuracy = float(one["confidence"]), float(one["accuracy"])
    place = {"x": round(_x(one["from"]) + 1, 1), "width": round(_x(one["to"]) - _x(one["from"]) - 2, 1)}
    low, high = sorted((_y(confidence), _y(accuracy)), reverse=True)
    kind = "over" if confidence > accuracy else "under"
    words = f"{number(confidence)} sure, {number(accuracy)} right; {percent(share)} of pixels ({count(one['pixels'])})"
    amount = round(_COUNTS * height, 1)
    bars = [
        el("rect", **place, y=low, height=round(_y(0) - low, 1), class_="bar"),
        el("rect", **place, y=high, height=round(low - high, 1), class_=kind),
        el("rect", **place, y=round(_floor() - amount, 1), height=amount, class_="amount"),
    ]
    return el("g", el("title", words), bars)


def _x(value: float) -> float:
    return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * value, 1)


def _y(value: float) -> float:
    return round(_TOP + _PLOT * (1 - value), 1)


def _floor() -> int:
    """Where the bars of pixels stand."""
    return _TOP + _PLOT + _GAP + _COUNTS
