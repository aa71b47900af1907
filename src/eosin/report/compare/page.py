"""A comparison as one HTML file with nothing outside it: forest plot, tables, pictures, origin."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from string import Template

from eosin import __version__
from eosin.core.classes import Colour
from eosin.report.compare import words
from eosin.report.compare.forest import forest
from eosin.report.compare.form import Comparison
from eosin.report.compare.grid import Grid
from eosin.report.compare.tables import Cell, Column, Row, Table, all_tables
from eosin.report.markup import Safe, absent, el, join, note, pairs, picture, stylesheet, swatch, table

_PER_COLUMN = 165  # a picture narrower than this many CSS pixels shows nothing; the grid then scrolls sideways


def html(comparison: Comparison, grid: Grid | str) -> str:
    """The page.

    Args:
        comparison: what to show.
        grid: the pictures, or the sentence that says why there are none.
    """
    blocks = [("intervals", "Mean IoU", Safe(_legend(comparison) + forest(comparison) + _findings(comparison)))]
    blocks += [(t.key, t.title, drawn(t, comparison.colours)) for t in all_tables(comparison)]
    blocks.append(("pictures", "Pictures", _pictures(comparison, grid)))
    blocks.append(("origin", "Origin", _origin(comparison)))
    if comparison.footnotes:
        blocks.append(("footnotes", "Footnotes", _footnotes(comparison)))
    return page(words.title(comparison), _lead(comparison), failures(comparison.failures, comparison), blocks)


def page(title: str, lead: str, told: Safe, blocks: Sequence[tuple[str, str, Safe]]) -> str:
    """A page of sections.

    Args:
        title: of the page.
        lead: a sentence below it.
        told: what must not be missed, above all else.
        blocks: anchor, heading and content of each section.
    """
    template = Template(files("eosin.report.compare").joinpath("compare.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=join([title]),
        style=stylesheet(),
        made_by=join([f"eosin {__version__}"]),
        lead=join([lead]),
        failures=told,
        links=join(el("a", _short(title), href=f"#{key}") for key, title, _ in blocks),
        sections=join(_card(*block) for block in blocks),
    )


def _lead(comparison: Comparison) -> str:
    c = comparison
    arms, folds = words.plural(len(c.arms), "arm"), f" in {c.folds} folds" if c.folds else ""
    images = words.plural(c.images, "image")
    return f"{arms} on {images} of {c.dataset} ({c.split}, {c.protocol}){folds}. For research use only."


def failures(failed: Sequence[str], comparison: Comparison) -> Safe:
    """The runs that failed, and a warning where the protocol of a comparison uses truth at test time."""
    parts = []
    if failed:
        told = el("b", f"Not made: {words.plural(len(failed), 'run')}")
        lines = el("ul", [el("li", line) for line in failed], class_="failed")
        parts.append(el("div", told, lines, class_="note"))
    if warning := words.truth_note(comparison):
        parts.append(note(warning))
    return Safe("".join(parts))


def _findings(comparison: Comparison) -> Safe:
    lines = [el("li", words.sentence(comparison, arm)) for arm in words.ordered(comparison)]
    return el("ul", lines, class_="findings")


def _legend(comparison: Comparison) -> Safe:
    pairs = zip(comparison.classes, comparison.colours, strict=True)
    return el("p", [swatch(colour, name) for name, colour in pairs], class_="legend")


def drawn(made: Table, colours: Sequence[Colour]) -> Safe:
    """A table; ``colours`` are those of the classes."""
    head = [made.first, *(_head(colours, column) for column in made.columns)]
    rows = [[_name(row), *map(_cell, row.cells, made.columns)] for row in made.rows]
    first, *others = made.notes  # the heading says the title already
    return Safe(table(first, head, rows) + el("ul", [el("li", line) for line in others], class_="notes"))


def _head(colours: Sequence[Colour], column: Column) -> object:
    if column.text:
        return el("span", column.title, class_="long")
    if column.tissue is None:
        return column.title
    return swatch(colours[column.tissue], column.title)


def _name(row: Row) -> Safe:
    kind = "arm" + " upper" * row.upper + " main" * row.baseline
    marks = el("sup", ",".join(map(str, row.footnotes))) if row.footnotes else None
    return el("span", row.name, marks, el("small", row.remark) if row.remark else None, class_=kind)


def _cell(cell: Cell, column: Column) -> object:
    if column.text:
        return el("span", cell.text, class_="long")
    mean, mark, sd = cell.text.partition(f" {words.PLUS_MINUS} ")
    below = el("small", f"{words.PLUS_MINUS} {sd}") if mark else None
    return (el("b", mean, class_="best") if cell.best else mean, below)


def _pictures(comparison: Comparison, grid: Grid | str) -> Safe:
    if isinstance(grid, str):
        return absent(f"No pictures could be drawn: {grid}")
    width = f"min-width:{_PER_COLUMN * grid.columns}px"
    inner = el("div", picture(grid.pixels, grid.said, ""), style=width)
    box = el("div", inner, class_="shot", tabindex=0, role="region", aria_label="Pictures (scrolls)")
    return Safe(el("p", grid.said, class_="soft") + box)


def _origin(comparison: Comparison) -> Safe:
    known = words.facts(comparison)
    command = el("pre", el("code", known[-1][1]))
    runs = el("ul", [el("li", arm.name, ": ", _folders(arm.runs)) for arm in comparison.arms], class_="notes")
    return Safe(pairs(known[:-1]) + el("h3", "Command") + command + el("h3", "Runs") + runs)


def _folders(runs: tuple[object, ...]) -> list[Safe]:
    return [el("code", f"{run} ") for run in runs]


def _footnotes(comparison: Comparison) -> Safe:
    return el("ol", [el("li", line) for line in comparison.footnotes], class_="notes")


def _short(title: str) -> str:
    return title.partition(",")[0]


def _card(key: str, title: str, body: Safe) -> Safe:
    return el(
        "section", el("h2", title, id=f"{key}-title"), body, id=key, class_="card", aria_labelledby=f"{key}-title"
    )
