"""A comparison as LaTeX tables that need ``booktabs`` and nothing else, to be input into a document."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from eosin.report.compare import words
from eosin.report.compare.form import Comparison
from eosin.report.compare.tables import Cell, Row, Table, all_tables

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": r"\textbar{}",
    '"': "''",
    "[": "{[}",  # after a row's end a bare one would be taken for an optional argument
    "]": "{]}",
    "*": "{*}",  # likewise
    words.DASH: "--",
    "\N{EM DASH}": "---",
    words.MINUS: "$-$",
    words.PLUS_MINUS: r"$\pm$",
    words.DAGGER: r"$\dagger$",
    "\N{DOWNWARDS ARROW}": r"$\downarrow$",
    "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{MICRO SIGN}": r"$\mu$",
    "\N{GREEK SMALL LETTER MU}": r"$\mu$",
    "\N{GREEK SMALL LETTER LAMDA}": r"$\lambda$",
    "\N{GREEK SMALL LETTER ALPHA}": r"$\alpha$",
    "\N{GREEK SMALL LETTER BETA}": r"$\beta$",
    "\N{GREEK SMALL LETTER GAMMA}": r"$\gamma$",
    "\N{GREEK SMALL LETTER TAU}": r"$\tau$",
    "\N{LESS-THAN OR EQUAL TO}": r"$\leq$",
    "\N{GREATER-THAN OR EQUAL TO}": r"$\geq$",
    "\N{ALMOST EQUAL TO}": r"$\approx$",
    "\N{MIDDLE DOT}": r"$\cdot$",
    "\N{SUPERSCRIPT TWO}": "$^2$",
    "\N{SECTION SIGN}": r"\S{}",
}
_HYPHENS = re.compile("(--+)")
_QUOTES = str.maketrans({"\N{LEFT SINGLE QUOTATION MARK}": "`", "\N{RIGHT SINGLE QUOTATION MARK}": "'"})


def latex(comparison: Comparison) -> str:
    """The whole comparison as floats and paragraphs, without a preamble."""
    parts = [f"% {' '.join(words.title(comparison).split())}; needs \\usepackage{{booktabs}}; for research use only"]
    if comparison.failures:
        told = [f"Not made: {words.plural(len(comparison.failures), 'run')}.", *comparison.failures]
        parts.append(_paragraph(told, bold=1))
    parts += [_table(comparison, table) for table in all_tables(comparison)]
    parts.append(_paragraph([f"{name}: {value}." for name, value in words.facts(comparison)]))
    if comparison.footnotes:
        parts.append(_paragraph([f"({n}) {note}" for n, note in enumerate(comparison.footnotes, start=1)]))
    return "\n\n".join([*parts, _paragraph(["For research use only."])]) + "\n"


def escaped(text: str) -> str:
    """Text that LaTeX sets as it is; two hyphens stay two."""
    plain = " ".join(text.split()).translate(_QUOTES)
    pieces = (_apart(piece) if piece.startswith("--") else _plain(piece) for piece in _HYPHENS.split(plain))
    return "".join(pieces)


def _plain(text: str) -> str:
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def _apart(hyphens: str) -> str:
    """Hyphens that are not to become a dash."""
    return "{}".join(hyphens)


def _paragraph(texts: Sequence[str], bold: int = 0) -> str:
    """Lines of small print, the first ``bold`` of them bold."""
    said = [rf"\textbf{{{escaped(text)}}}" if i < bold else escaped(text) for i, text in enumerate(texts)]
    return "{\\footnotesize\\raggedright\\noindent\n" + "\\newline\n".join(said) + "\\par}"


def _table(comparison: Comparison, table: Table) -> str:
    sides = "l" + "".join("l" if column.text else "r" for column in table.columns)
    lower = [row for row in table.rows if not row.upper]
    upper = [row for row in table.rows if row.upper]
    lines = [
        r"\begin{table}[htbp]",
        r"\centering\scriptsize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{escaped(f'{comparison.dataset}: {table.title}')}}}",
        rf"\label{{tab:eosin-{table.key}}}",
        rf"\begin{{tabular}}{{@{{}}{sides}@{{}}}}",
        r"\toprule",
        _line([escaped(table.first), *(escaped(column.title) for column in table.columns)]),
    ]
    for rows in (lower, upper):
        if rows:
            lines += [r"\midrule", *(_line(_cells(row)) for row in rows)]
    lines += [r"\bottomrule", r"\end{tabular}", r"\par\smallskip", _paragraph(table.notes), r"\end{table}"]
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cells(row: Row) -> list[str]:
    name = escaped(row.name)
    if row.remark:
        name += rf" \emph{{({escaped(row.remark)})}}"
    if row.footnotes:
        name += f"$^{{{','.join(map(str, row.footnotes))}}}$"
    return [name, *(_cell(cell) for cell in row.cells)]


def _cell(cell: Cell) -> str:
    return rf"\textbf{{{escaped(cell.text)}}}" if cell.best else escaped(cell.text)
