"""The tables of a study: those of ``eosin compare``, with the rows of all stages under each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from eosin.report.adapt.form import Adaptation, Direction
from eosin.report.compare import tables, words
from eosin.report.compare.tables import Table

_NOTES = (
    "Each share is a stage of its own: what is bold is the best of it, and the baseline is that of the same share.",
    "The smaller the share, the fewer patients it is of; each seed takes its own, so the spread holds their luck too.",
)


def all_tables(adaptation: Adaptation) -> list[Table]:
    """Of each direction the scores, methods against each other, stages against the source's model, and cost."""
    first = adaptation.methods[0]
    return [table for k, one in enumerate(adaptation.directions) for table in _tables(one, first, f"-{k}")]


def findings(direction: Direction) -> list[str]:
    """What the tests of a direction say, each in a sentence."""
    return [
        f"At {stage.said}, {words.sentence(comparison, arm)}"
        for stage, comparison in direction.stages
        for arm in comparison.arms
        if arm.versus is not None
    ]


def _tables(direction: Direction, baseline: str, key: str) -> list[Table]:
    by_stage = [(stage.said, comparison) for stage, comparison in direction.stages]
    scored = _joined([(name, tables.scores(one)) for name, one in by_stage])
    made = [(f"{scored.title[0].lower()}{scored.title[1:]}", replace(scored, notes=(*scored.notes, *_NOTES)))]
    if against := [(name, table) for name, one in by_stage if (table := tables.versus(one))]:
        made.append((f"against {baseline}", _joined(against)))
    if gained := [(name, table) for name, one in direction.gains if (table := tables.versus(one))]:
        made.append(("against the source's model as it is", _joined(gained)))
    made.append(("selection and cost", _joined([(name, tables.cost(one)) for name, one in by_stage])))
    return [
        replace(table, title=f"{direction.name}: {title}", key=f"{table.key}-{n}{key}")
        for n, (title, table) in enumerate(made)
    ]


def _joined(parts: Sequence[tuple[str, Table]]) -> Table:
    """The rows of several tables of the same columns, each named by its part; notes that repeat are said once."""
    rows = tuple(replace(row, name=f"{name}: {row.name}") for name, table in parts for row in table.rows)
    notes = tuple(dict.fromkeys(note for _, table in parts for note in table.notes))
    return replace(parts[0][1], rows=rows, notes=notes)
