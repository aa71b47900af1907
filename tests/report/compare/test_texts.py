"""Markdown and LaTeX: read back by small strict readers, and equal to the plain tables."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from eosin.report.compare.form import Comparison
from eosin.report.compare.latex import escaped as tex_escaped
from eosin.report.compare.latex import latex
from eosin.report.compare.markdown import escaped as md_escaped
from eosin.report.compare.markdown import markdown
from eosin.report.compare.tables import Row, all_tables
from report.compare.fake_comparison import arm, by_folds, by_seeds, comparison, with_gaps

EVIL = "a_b & 100% #1 {x} $y$ ~z^2 \\w [q] *s* `c` <i> | --- \"quoted\" 'single' µ ± − – † ↓ λ"
MADE = [by_seeds, by_folds, with_gaps]


def named(row: Row) -> str:
    marks = ",".join(map(str, row.footnotes))
    return f"{row.name}{f' ({row.remark})' if row.remark else ''}{marks}"


# --- Markdown


def from_markdown(text: str) -> str:
    """What a reader sees of inline Markdown."""
    text = re.sub(r"<sup>([\d, ]+)</sup>", lambda m: m.group(1).replace(" ", ""), text)
    text = re.sub(r"^\*\*(.*)\*\*$", r"\1", text)
    assert not re.search(r"(?<!\\)[`*<>|]", re.sub(r"\\\\", "", text)), text
    return re.sub(r"\\([\\`*_\[\]<>|~$&])", r"\1", text)


def md_tables(text: str) -> list[list[list[str]]]:
    found: list[list[list[str]]] = []
    for block in text.split("\n\n"):
        lines = block.split("\n")
        if lines[0].startswith("|"):
            cells = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
            assert all(re.fullmatch(r"---:?", c) for c in cells[1])
            assert len({len(row) for row in cells}) == 1
            found.append([[from_markdown(c) for c in row] for row in (cells[0], *cells[2:])])
    return found


@pytest.mark.parametrize("make", MADE)
def test_markdown_tables_are_the_plain_tables(make: Callable[[], Comparison]) -> None:
    made = make()
    found = md_tables(markdown(made))
    plain = all_tables(made)
    assert len(found) == len(plain)
    for table, read in zip(plain, found, strict=True):
        assert read[0] == [table.first, *(c.title for c in table.columns)]
        assert read[1:] == [[named(row), *(cell.text for cell in row.cells)] for row in table.rows]


def test_markdown_says_failures_first_and_footnotes_last() -> None:
    text = markdown(by_folds())
    assert text.index("Not made: 1 run") < text.index("## ")
    assert r"out of memory; lower fit.batch \<8\>" in text
    notes = markdown(by_seeds())
    assert "1. The class IoUs printed" in notes and "2. 8 of 9 test patients" in notes
    assert notes.rstrip().endswith("For research use only.")
    assert "```\neosin compare --methods cam,supervised" in notes
    assert "**† The protocol tissue-drop uses truth at test time" in markdown(with_gaps())


def test_markdown_shows_evil_names_as_they_are() -> None:
    made = comparison([arm(EVIL, (0.5, 0.6)), arm("b\nc", (0.5, 0.6))])
    read = md_tables(markdown(made))[0]
    assert read[1][0] == f"{EVIL} (baseline)" and read[2][0] == "b c"
    assert md_escaped("see https://example.org/a_b*c and a_b") == "see https://example.org/a_b*c and a\\_b"


# --- LaTeX: a reader that knows only the commands we may use, so that anything else is an error

SYMBOLS = {
    r"\pm": "±",
    r"\dagger": "†",
    r"\downarrow": "↓",
    r"\mu": "µ",
    r"\lambda": "λ",
    "-": "−",
    "<": "<",
    ">": ">",
    "^2": "²",
}
LETTERS = {r"\textbackslash": "\\", r"\textasciitilde": "~", r"\textasciicircum": "^", r"\textbar": "|", r"\S": "§"}


def from_latex(text: str) -> str:
    """What LaTeX would set of running text; unknown commands and bare special letters are errors."""
    assert not re.search(r"(?<!\\)[#%&_~]", text), text
    shown, at, depth = "", 0, 0
    while at < len(text):
        rest = text[at:]
        if match := re.match(r"\\[#%&_{}$]", rest):
            shown += match.group()[1]
        elif match := re.match(r"(\\[A-Za-z]+)\{\}", rest):
            shown += LETTERS[match.group(1)]
        elif match := re.match(r"\\(textbf|emph)\{", rest):
            depth += 1
        elif match := re.match(r"\$\^\{([\d,]+)\}\$", rest):
            shown += match.group(1)
        elif match := re.match(r"\$([^$]+)\$", rest):
            shown += SYMBOLS[match.group(1)]
        elif match := re.match(r"---?(?!-)", rest):
            shown += "—" if match.group() == "---" else "–"
        elif match := re.match(r"''", rest):
            shown += '"'
        elif match := re.match(r"[{}]", rest):
            depth += 1 if match.group() == "{" else -1
            assert depth >= 0
        else:
            match = re.match(r"[^\\$^]", rest)
            assert match, f"bare {rest[:20]!r}"
            assert match.group() not in "<>|", rest[:20]
            shown += match.group()
        at += match.end()
    assert depth == 0, text
    return shown


def tex_tables(text: str) -> list[tuple[str, list[list[str]], list[int]]]:
    """Columns, rows and the rows above which there is a rule."""
    found = []
    for spec, body in re.findall(r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}\n(.*?)\n\\end\{tabular\}", text, re.S):
        lines, rows, rules = body.split("\n"), [], []
        assert lines[0] == r"\toprule" and lines[-1] == r"\bottomrule"
        for line in lines[1:-1]:
            if line == r"\midrule":
                rules.append(len(rows))
                continue
            assert line.endswith(r" \\")
            cells = re.split(r"(?<!\\)&", line.removesuffix(r" \\"))
            assert len(cells) == len(spec)
            rows.append([from_latex(cell.strip()) for cell in cells])
        found.append((spec, rows, rules))
    return found


@pytest.mark.parametrize("make", MADE)
def test_latex_tables_are_the_plain_tables(make: Callable[[], Comparison]) -> None:
    made = make()
    found = tex_tables(latex(made))
    plain = all_tables(made)
    assert len(found) == len(plain)
    for table, (spec, rows, rules) in zip(plain, found, strict=True):
        assert spec == "l" + "".join("l" if c.text else "r" for c in table.columns)
        assert rows[0] == [table.first, *(c.title for c in table.columns)]
        assert rows[1:] == [[named(row), *(cell.text for cell in row.cells)] for row in table.rows]
        upper = [i for i, row in enumerate(table.rows, start=1) if row.upper]
        assert rules == ([1, upper[0]] if upper else [1])


@pytest.mark.parametrize("make", MADE)
def test_latex_is_balanced_and_needs_booktabs_alone(make: Callable[[], Comparison]) -> None:
    text = latex(make())
    body = re.sub(r"^%.*", "", text)
    assert "%" not in re.sub(r"\\%", "", body) and body.isascii()
    bare = re.sub(r"\\[\\{}$]", "", body)
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    opened = re.findall(r"\\(begin|end)\{(\w+)\}", text)
    stack: list[str] = []
    for kind, name in opened:
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert not stack and {name for _, name in opened} == {"table", "tabular"}
    known = "begin end centering scriptsize footnotesize setlength tabcolsep caption label toprule midrule bottomrule"
    known += " par smallskip raggedright noindent newline textbf emph textbackslash textasciitilde textasciicircum"
    known += " textbar pm dagger downarrow mu"
    assert set(re.findall(r"\\([A-Za-z]+)", body)) <= set(known.split())
    assert not re.search(r"\\\\\s*\[", text)
    labels = re.findall(r"\\label\{(.+?)\}", text)
    assert len(set(labels)) == len(labels)


def test_latex_shows_evil_names_as_they_are() -> None:
    assert from_latex(tex_escaped(EVIL)) == EVIL
    assert tex_escaped("eosin --out x") == "eosin -{}-out x"
    table = tex_tables(latex(comparison([arm(EVIL, (0.5,)), arm("[b]", (0.6,))])))[0]
    assert table[1][1][0] == f"{EVIL} (baseline)" and table[1][2][0] == "[b]"


def test_latex_bolds_the_best_and_says_failures_first() -> None:
    assert r"\textbf{0.562 $\pm$ 0.008}" in latex(by_seeds()) and r"\textbf{0.710" not in latex(by_seeds())
    text = latex(by_folds())
    assert text.index("Not made: 1 run") < text.index(r"\begin{table}")
    assert text.splitlines()[0].startswith("% ") and "For research use only." in text
