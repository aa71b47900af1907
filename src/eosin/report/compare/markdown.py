"""A comparison as GitHub Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from eosin.report.compare import words
from eosin.report.compare.form import Comparison
from eosin.report.compare.tables import Cell, Row, Table, all_tables

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~$&])")
_ADDRESS = re.compile(r"(https?://[^\s|<>]+)")


def markdown(comparison: Comparison) -> str:
    """The whole comparison: failures, findings, tables, origin, footnotes."""
    parts = [f"# {escaped(words.title(comparison))}"]
    if comparison.failures:
        parts += [f"**Not made: {words.plural(len(comparison.failures), 'run')}**", bullets(comparison.failures)]
    if warning := words.truth_note(comparison):
        parts.append(f"**{escaped(warning)}**")
    parts.append(bullets([words.sentence(comparison, arm) for arm in words.ordered(comparison)]))
    for table in all_tables(comparison):
        parts += [f"## {escaped(table.title)}", table_text(table), bullets(table.notes)]
    parts += ["## Origin", bullets([f"{name}: {value}" for name, value in words.facts(comparison)[:-1]])]
    parts += ["Made by", code(comparison.command)]
    if comparison.footnotes:
        numbered = "\n".join(f"{n}. {_line(note)}" for n, note in enumerate(comparison.footnotes, start=1))
        parts += ["## Footnotes", numbered]
    return "\n\n".join([*parts, "For research use only."]) + "\n"


def escaped(text: str) -> str:
    """Text that Markdown shows as it is; addresses stay links."""
    pieces = _ADDRESS.split(text)
    return "".join(piece if i % 2 else _SPECIAL.sub(r"\\\1", piece) for i, piece in enumerate(pieces))


def _line(text: str) -> str:
    return escaped(" ".join(text.split()))


def bullets(texts: Sequence[str]) -> str:
    """A list, one text a line."""
    return "\n".join(f"- {_line(text)}" for text in texts)


def code(text: str) -> str:
    """A code block whose fence is longer than any in the text."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"


def table_text(table: Table) -> str:
    """A table."""
    head = [table.first, *(column.title for column in table.columns)]
    rules = ["---", *("---" if column.text else "---:" for column in table.columns)]
    lines = [[_line(title) for title in head], rules, *(_cells(row) for row in table.rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(row: Row) -> list[str]:
    name = _line(row.name) + (f" ({_line(row.remark)})" if row.remark else "")
    marks = f"<sup>{', '.join(map(str, row.footnotes))}</sup>" if row.footnotes else ""
    return [name + marks, *(_cell(cell) for cell in row.cells)]


def _cell(cell: Cell) -> str:
    return f"**{_line(cell.text)}**" if cell.best else _line(cell.text)
