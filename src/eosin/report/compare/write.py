"""Writes a comparison in every format, each file whole or not at all."""

from __future__ import annotations

from pathlib import Path

from eosin.core.artifact import atomic_file, write_bytes, write_json, write_text
from eosin.core.errors import EosinError
from eosin.report.compare.cycles import NAME, curves, draw_cycles
from eosin.report.compare.form import Comparison
from eosin.report.compare.grid import Grid, draw_grid
from eosin.report.compare.latex import latex
from eosin.report.compare.markdown import markdown
from eosin.report.compare.page import html
from eosin.report.compare.sheets import arms_csv, as_json, runs_csv
from eosin.slides.image import png_bytes


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write tables, pictures and page.

    Args:
        comparison: what to write.
        folder: is made where it is absent; files of an earlier comparison are replaced.

    Returns:
        The files: ``compare.json``, ``arms.csv``, ``runs.csv``, ``compare.md``, ``compare.tex``, ``compare.png`` where
        the pictures can still be drawn, ``ikd-curves.png`` where arms were trained in rounds, ``compare.html`` (which
        says so where pictures cannot be drawn).
    """
    paths = [folder / "compare.json"]
    write_json(paths[0], as_json(comparison))
    texts = {
        "arms.csv": arms_csv(comparison),
        "runs.csv": runs_csv(comparison),
        "compare.md": markdown(comparison),
        "compare.tex": latex(comparison),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
        paths.append(folder / name)
    picture, grid = folder / "compare.png", _grid(comparison)
    if isinstance(grid, Grid):
        with atomic_file(picture) as temporary:
            temporary.write_bytes(png_bytes(grid.pixels))
        paths.append(picture)
    else:
        picture.unlink(missing_ok=True)  # one of an earlier comparison would show other runs
    rounds, lines = folder / NAME, curves(comparison)
    if lines:
        write_bytes(rounds, draw_cycles(lines))
        paths.append(rounds)
    else:
        rounds.unlink(missing_ok=True)
    page = folder / "compare.html"
    write_text(page, html(comparison, grid))
    return [*paths, page]


def _grid(comparison: Comparison) -> Grid | str:
    """The pictures, or why there are none: tables stay true when the files behind them are gone."""
    try:
        return draw_grid(comparison)
    except EosinError as error:
        return str(error)
