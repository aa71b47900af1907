"""The reliability diagram."""

from __future__ import annotations

import re

from eosin.report.reliability import diagram


def one(k: int, confidence: float | None, accuracy: float | None, pixels: int) -> dict[str, float | None]:
    return {"from": k / 15, "to": (k + 1) / 15, "confidence": confidence, "accuracy": accuracy, "pixels": pixels}


def rects(svg: str, kind: str) -> list[dict[str, float]]:
    found = re.findall(rf'<rect ([^>]*) class="{kind}"', svg)
    return [
        {name: float(value) for name, value in re.findall(r'(\w+)="([-\d.]+)"', attributes)} for attributes in found
    ]


def test_bars_end_where_accuracy_and_confidence_are() -> None:
    svg = diagram("x", [one(7, None, None, 0), one(13, 0.9, 0.5, 300), one(14, 0.95, 1.0, 100)])
    height = 250
    bars = rects(svg, "bar")
    assert [round(bar["height"] / height, 2) for bar in bars] == [0.5, 0.95]
    assert round(rects(svg, "over")[0]["height"] / height, 2) == 0.4, "0.9 sure, 0.5 right"
    assert round(rects(svg, "under")[0]["height"] / height, 2) == 0.05, "0.95 sure, all right"
    for bar, gap in zip(bars, rects(svg, "over") + rects(svg, "under"), strict=True):
        assert abs(gap["y"] + gap["height"] - bar["y"]) < 0.11, "one stands on the other"
    amounts = [bar["height"] for bar in rects(svg, "amount")]
    assert abs(amounts[0] / amounts[1] - 3) < 0.1
    assert "0.900 sure, 0.500 right; 75 % of pixels (300)" in svg


def test_bins_follow_the_axis_and_empty_ones_are_left_out() -> None:
    svg = diagram("x", [one(k, (k + 0.5) / 15, 0.5, 0 if k == 3 else 10) for k in range(15)])
    bars = rects(svg, "bar")
    lefts = [bar["x"] for bar in bars]
    assert len(bars) == 14 and lefts == sorted(lefts)
    assert all(bar["x"] >= 46 and bar["x"] + bar["width"] <= 430 for bar in bars)


def test_no_pixel_at_all() -> None:
    svg = diagram("x", [one(k, None, None, 0) for k in range(15)])
    assert "<rect" not in svg and 'class="ideal"' in svg
