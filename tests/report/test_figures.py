"""Curves and pictures."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from eosin.report.figures import SIDE, Line, chart, fitted, tinted
from eosin.report.reading import read_journal
from report.fake_run import CLASSES


def paths(svg: str) -> list[str]:
    return re.findall(r'<path d="([^"]*)"', svg)


def test_higher_values_are_drawn_higher_and_later_ones_further_right() -> None:
    svg = chart("x", [Line("a", [(0, 0.1), (1, 0.5), (2, 0.9)])], kept=1, unit=True)
    points = [tuple(map(float, p.split())) for p in re.split("[ML]", paths(svg)[0])[1:]]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
    assert "0.500 kept, 0.900 last" in svg
    assert 'class="kept"' in svg


def test_values_that_are_not_finite_leave_gaps() -> None:
    svg = chart("x", [Line("a", [(0, 1.0), (1, math.nan), (2, 1.0), (3, 2.0), (4, math.inf)])], kept=None, unit=False)
    assert re.sub(r"[\d. ]", "", paths(svg)[0]) == "MML"


def test_sparse_points_are_joined() -> None:
    svg = chart("x", [Line("a", [(0, 1.0), (5, 0.5), (10, 0.2)])], kept=None, unit=False)
    assert re.sub(r"[\d. ]", "", paths(svg)[0]) == "MLL"


def test_wide_spreads_are_drawn_in_decades() -> None:
    svg = chart("x", [Line("a", [(0, 1.0)]), Line("b", [(0, 0.003)])], kept=None, unit=False)
    assert "(decades)" in svg and ">0.001<" in svg
    assert "(decades)" not in chart("x", [Line("a", [(0, 1.0)]), Line("b", [(0, 0.0)])], kept=None, unit=False)


def test_every_tick_and_point_is_inside_the_drawing() -> None:
    for values in ([0.0], [5e-9, 7e-9], [-3.0, 120.0], [1e6, 2e6], [0.3, 0.3], [999.9]):
        svg = chart("x", [Line("a", list(enumerate(values)))], kept=None, unit=False)
        numbers = [float(y) for y in re.findall(r' (?:cy|y1)="([-\d.]+)"', svg)]
        assert numbers and all(0 <= y <= 220 for y in numbers), (values, numbers)


def test_pictures_have_one_size() -> None:
    rgb = np.zeros((30, 60, 3), np.uint8)
    assert fitted(rgb).shape == (SIDE // 2, SIDE, 3)
    assert fitted(np.zeros((2000, 1000, 3), np.uint8)).shape == (SIDE, SIDE // 2, 3)
    mask = np.zeros((30, 60), np.uint8)
    mask[:, 30:] = 255
    drawn = tinted(rgb, mask, CLASSES)
    assert drawn.shape == (SIDE // 2, SIDE, 3)
    assert drawn[:, : SIDE // 2].any() and not drawn[:, SIDE // 2 :].any()


def test_journal_forgets_what_was_done_again_and_what_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    told = [("a", 0, 1), ("a", 1, 2), ("a", 2, 3), ("b", 0, 4), ("a", 1, 5)]
    lines = [f'{{"step": "{step}", "epoch": {epoch}, "mark": {mark}}}\n' for step, epoch, mark in told]
    path.write_text("".join(lines) + '{"step": "a", "ep')
    journal = read_journal(path)
    assert [e["mark"] for e in journal["a"]] == [1, 5]
    assert [e["mark"] for e in journal["b"]] == [4]
    assert read_journal(tmp_path / "none.jsonl") == {}
