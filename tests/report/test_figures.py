"""Curves and pictures."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from eosin.report.figures import SIDE, Line, chart, charts, fitted, tinted
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
    assert re.sub(r"[\d. ]", "", paths(svg)[0]) == "MhML", "a point between gaps is a stroke of no length"


def test_sparse_points_are_joined() -> None:
    svg = chart("x", [Line("a", [(0, 1.0), (5, 0.5), (10, 0.2)])], kept=None, unit=False)
    assert re.sub(r"[\d. ]", "", paths(svg)[0]) == "MLL"


def test_wide_spreads_are_drawn_in_decades() -> None:
    svg = chart("x", [Line("a", [(0, 1.0)]), Line("b", [(0, 0.003)])], kept=None, unit=False)
    assert "(decades)" in svg and ">0.001<" in svg
    assert "(decades)" not in chart("x", [Line("a", [(0, 1.0)]), Line("b", [(0, 0.0)])], kept=None, unit=False)


def test_a_line_that_never_was_a_number_stands_in_the_key() -> None:
    svg = chart("x", [Line("a", [(0, 1.0)]), Line("lost", [(0, math.inf), (1, math.nan)])], kept=None, unit=False)
    assert paths(svg)[1] == "" and "lost<b>\N{EN DASH}</b>" in svg


def test_many_lines_are_all_drawn_in_colours_of_their_own() -> None:
    for amount in (1, 8, 9, 16, 29):
        lines = [Line(f"term {k}", [(0, 1.0 + k), (1, 2.0)]) for k in range(amount)]
        for unit in (False, True):
            drawn = charts("Losses", lines, kept=None, unit=unit)
            assert sum(len(paths(svg)) for svg in drawn) == amount and len(drawn) == -(-amount // 8)
            for svg in drawn:
                styles = re.findall(r'class="line (c\d)"', svg)
                assert len(set(styles)) == len(styles)
            assert all(any(f"{line.name}<b>" in svg for svg in drawn) for line in lines)
    assert not charts("Losses", [], kept=None, unit=False)


def test_no_line_is_flattened_by_a_larger_one() -> None:
    """Where a 0 forbids decades, lines of other sizes get axes of their own."""
    large, small = Line("large", [(0, 0.0), (1, 90.0)]), Line("small", [(0, 0.01), (1, 0.02)])
    drawn = charts("Losses", [small, large, Line("none", [(0, 0.0), (1, 0.0)])], kept=None, unit=False)
    assert ["large" in svg for svg in drawn] == [True, False]
    assert "small<b>0.020</b>" in drawn[1] and "none" in drawn[0] and "(1 of 2)" in drawn[0]
    heights = [float(p.split()[1]) for p in re.split("[ML]", paths(drawn[1])[0])[1:]]
    assert max(heights) - min(heights) > 50, "half of its axis"
    assert len(charts("Losses", [small, Line("large", [(0, 80.0), (1, 90.0)])], kept=None, unit=False)) == 1


def test_small_values_keep_their_digits() -> None:
    svg = chart("x", [Line("a", [(0, 0.00075), (1, 0.00052)])], kept=0, unit=False)
    assert "0.00075 kept, 0.00052 last" in svg


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


def test_overlays_have_edges_in_the_colours_of_both_sides() -> None:
    rgb = np.full((320, 320, 3), 128, np.uint8)
    mask = np.full((320, 320), 1, np.uint8)
    mask[:, 160:] = 2
    drawn = tinted(rgb, mask, CLASSES)
    row = [tuple(map(int, colour)) for colour in drawn[100]]
    assert row[159] == CLASSES.colours[1] and row[160] == CLASSES.colours[2]
    assert row[100] not in CLASSES.colours, "away from the edge the tissue shines through"


def test_journal_forgets_what_was_done_again_and_what_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    told = [("a", 0, 1), ("a", 1, 2), ("a", 2, 3), ("b", 0, 4), ("a", 1, 5)]
    lines = [f'{{"step": "{step}", "epoch": {epoch}, "mark": {mark}}}\n' for step, epoch, mark in told]
    path.write_text("".join(lines) + '{"step": "a", "ep')
    journal = read_journal(path)
    assert [e["mark"] for e in journal["a"]] == [1, 5]
    assert [e["mark"] for e in journal["b"]] == [4]
    assert read_journal(tmp_path / "none.jsonl") == {}
