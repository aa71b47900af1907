"""Writes a study of adaptation in every format, each file whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eosin.core.artifact import write_json, write_text
from eosin.report.adapt.boxes import SAID, alone, boxes
from eosin.report.adapt.form import Adaptation, Direction, Stage
from eosin.report.adapt.tables import all_tables, findings
from eosin.report.compare import page as pages
from eosin.report.compare import words
from eosin.report.compare.form import Comparison
from eosin.report.compare.markdown import bullets, code, escaped, table_text
from eosin.report.compare.sheets import Record, arm_records, csv_text, plain, run_records
from eosin.report.markup import Safe, el, pairs

PICTURE = "adapt.svg"
_LEAST = 560  # pixels of the plot's width below which its letters could not be read; it then scrolls sideways


def write_adaptation(adaptation: Adaptation, folder: Path) -> list[Path]:
    """Write tables, plot and page.

    Args:
        adaptation: what to write.
        folder: is made where it is absent; files of an earlier study are replaced.

    Returns:
        The files: ``adapt.json``, ``adapt.csv`` (a line per direction, stage and method), ``adapt_runs.csv`` (a line
        per run and score), ``adapt.md``, ``adapt.svg`` and ``adapt.html``.
    """
    write_json(folder / "adapt.json", as_json(adaptation))
    texts = {
        "adapt.csv": csv_text([{**at, **record} for at, one in _parts(adaptation) for record in arm_records(one)]),
        "adapt_runs.csv": csv_text([{**at, **record} for at, one in _parts(adaptation) for record in run_records(one)]),
        "adapt.md": markdown(adaptation),
        PICTURE: alone(boxes(adaptation)),
        "adapt.html": html(adaptation),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / "adapt.json", *(folder / name for name in texts)]


def as_json(adaptation: Adaptation) -> dict[str, Any]:
    """The study as plain JSON; what is not finite is null."""
    value: dict[str, Any] = {"schema": 1, **plain(adaptation)}
    return value


def markdown(adaptation: Adaptation) -> str:
    """Plot, findings, tables and origin for a text."""
    parts = [f"# {escaped(_title(adaptation))}", escaped(_lead(adaptation))]
    if adaptation.failures:
        parts += [f"**Not made: {words.plural(len(adaptation.failures), 'run')}**", bullets(adaptation.failures)]
    if warning := words.truth_note(adaptation.any):
        parts.append(f"**{escaped(warning)}**")
    parts += [f"![Mean IoU by share of the target's training items]({PICTURE})", escaped(SAID)]
    for direction in adaptation.directions:
        if found := findings(direction):
            parts += [f"## {escaped(direction.name)}", bullets(found)]
    for table in all_tables(adaptation):
        parts += [f"## {escaped(table.title)}", table_text(table), bullets(table.notes)]
    parts += ["## Origin", bullets([f"{name}: {value}" for name, value in _facts(adaptation)])]
    parts += ["Made by", code(adaptation.command)]
    return "\n\n".join([*parts, "For research use only."]) + "\n"


def html(adaptation: Adaptation) -> str:
    """The page: one file with nothing outside it."""
    wide = el("div", boxes(adaptation), style=f"min-width:{_LEAST}px")
    box = el("div", wide, class_="shot", tabindex=0, role="region", aria_label="Box plot (scrolls)")
    plot = el("figure", box, el("figcaption", SAID))
    blocks = [("plot", "Mean IoU", Safe(plot + "".join(_findings(one) for one in adaptation.directions)))]
    blocks += [(t.key, t.title, pages.drawn(t, adaptation.colours)) for t in all_tables(adaptation)]
    blocks.append(("origin", "Origin", _origin(adaptation)))
    told = pages.failures(adaptation.failures, adaptation.any)
    return pages.page(_title(adaptation), f"{_lead(adaptation)} For research use only.", told, blocks)


def _parts(adaptation: Adaptation) -> Iterator[tuple[Record, Comparison]]:
    """Every comparison of methods, and where it stands."""
    for direction in adaptation.directions:
        for stage, comparison in direction.stages:
            yield _where(direction, stage), comparison


def _where(direction: Direction, stage: Stage) -> Record:
    begun = "nothing" if stage.scratch else direction.source
    return {"source": direction.source, "target": direction.target, "share": stage.share, "begun_with": begun}


def _title(adaptation: Adaptation) -> str:
    first = adaptation.directions[0]
    return f"{' and '.join(adaptation.methods)}, adapted between {first.source} and {first.target}"


def _lead(adaptation: Adaptation) -> str:
    one = adaptation.any
    return (
        "Trained on one data set, trained on with a share of the other's training items, scored on that one's split "
        f"{one.split} (protocol {one.protocol}). The second training has the recipes' learning rates times "
        f"{adaptation.rate:g}, and one of its epochs is kept as in the first: by what the column Selected by says, of "
        "the other data."
    )


def _facts(adaptation: Adaptation) -> list[tuple[str, str]]:
    found = []
    for direction in adaptation.directions:
        one = direction.stages[0][1]
        scored = f"{words.plural(one.images, 'image')} of {one.split}, intervals and tests by {one.clustered_by}"
        found.append(
            (f"Target {direction.target}", f"{one.dataset}, digest {one.digest[:12]}; {scored}; {one.licence}")
        )
    notes = dict.fromkeys(note for _, one in _parts(adaptation) for note in one.footnotes)
    devices = dict.fromkeys(one.device for _, one in _parts(adaptation))
    commits = dict.fromkeys(commit for _, one in _parts(adaptation) for commit in one.commits)
    found += [("Baseline", adaptation.methods[0]), ("Device", ", ".join(devices)), ("Source", ", ".join(commits))]
    return [*found, *(("Note", note) for note in notes)]


def _origin(adaptation: Adaptation) -> Safe:
    command = el("pre", el("code", adaptation.command))
    return Safe(pairs(_facts(adaptation)) + el("h3", "Command") + command)


def _findings(direction: Direction) -> Safe:
    found = findings(direction)
    lines = el("ul", [el("li", line) for line in found], class_="findings")
    return Safe(el("h3", direction.name) + lines) if found else Safe("")
