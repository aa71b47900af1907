"""Writes ``report.html``: one file that explains a run to a person, with nothing outside it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from string import Template

from eosin.core.artifact import write_text
from eosin.report import datacard, doubts, gallery, modelcard, outlines, scoring, sections, views
from eosin.report.markup import Safe, el, join, stylesheet
from eosin.report.reading import Record, read_run

_Block = tuple[str, str, Safe]

_SECTIONS: tuple[tuple[str, str, Callable[[Record], Safe]], ...] = (
    ("scores", "Scores", scoring.scores),
    ("confusion", "Confusion", scoring.confusions),
    ("outlines", "Outlines", outlines.outlines),
    ("confidence", "Confidence", outlines.calibration),
    ("gallery", "Predictions", gallery.predictions),
    ("curves", "Learning curves", sections.curves),
    ("data", "Data", datacard.data_card),
    ("model", "Model", modelcard.model_card),
    ("time", "Time", sections.timing),
    ("provenance", "Provenance", sections.provenance),
    ("recipe", "Recipe", sections.recipe),
)


def write_report(run: Path) -> Path:
    """Write the report of a run folder into it.

    Args:
        run: what ``eosin run`` made. Files may be absent; the page then says so where they would have spoken.

    Returns:
        ``run/report.html``: self-contained, images inline, no scripts.

    Raises:
        EosinError: if the folder holds no run, or one of its files is broken.
    """
    record = read_run(run)
    blocks = [(name, title, build(record)) for name, title, build in _SECTIONS]
    labels = gallery.label_steps(record)
    masks = [
        (f"masks-{i}", "Pseudo masks" + (f": {s.name}" if len(labels) > 1 else ""), gallery.pseudo_masks(record, s))
        for i, s in enumerate(labels)
    ]
    inside = views.views(record)
    seen = [
        (f"views-{i}", "Views" + (f": {name}" if len(inside) > 1 else ""), body)
        for i, (name, body) in enumerate(inside)
    ]
    _put(blocks, "curves", [*seen, *masks])
    if record.suspects:
        _put(blocks, "time", [("doubts", "Doubtful tags", doubts.doubtful_tags(record))])
    page = Template(files("eosin.report").joinpath("report.html").read_text(encoding="utf-8"))
    path = run / "report.html"
    write_text(
        path,
        page.substitute(
            title=join([f"{record.method} on {record.data_name}"]),
            style=stylesheet(),
            made_by=join([f"eosin {record.provenance.get('eosin', '')}".strip()]),
            sentence=join([sections.sentence(record)]),
            hero=sections.hero(record),
            links=join(el("a", title, href=f"#{name}") for name, title, _ in blocks),
            sections=join(_card(*block) for block in blocks),
        ),
    )
    return path


def _put(blocks: list[_Block], before: str, more: list[_Block]) -> None:
    """Put sections before the one of a name."""
    at = next(i for i, (name, *_) in enumerate(blocks) if name == before)
    blocks[at:at] = more


def _card(name: str, title: str, body: Safe) -> Safe:
    return el(
        "section", el("h2", title, id=f"{name}-title"), body, id=name, class_="card", aria_labelledby=f"{name}-title"
    )
