"""Results of several runs as Markdown tables, so that no number in the documentation is typed by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import yaml

from eosin.core.artifact import read_json
from eosin.core.errors import EosinError
from eosin.core.fingerprint import digest
from eosin.report.markup import number, seconds
from eosin.report.reading import Entry, is_segmentation, mapping

_DASH = "\N{EN DASH}"
_NOTES = (
    "Mean \N{PLUS-MINUS SIGN} standard deviation over the seeds; a class column is that class's {per_class}. "
    "Wall time is that of the whole run, all steps and scoring.",
    "Generated from `scores.json` and `provenance.json`. For research use only.",
)


@dataclass(frozen=True, slots=True)
class _Scored:
    """One entry of ``scores.json`` and the provenance of its run."""

    run: Path
    entry: Entry
    provenance: Entry
    settings: str  # digest of the recipe without seed and claim

    @property
    def seed(self) -> Any:
        return self.provenance.get("seed")

    @property
    def table(self) -> tuple[object, ...]:
        """Entries with the same value can stand in one table."""
        data = mapping(self.provenance.get("dataset"))
        known = (self.entry["dataset"], data.get("digest"), data.get("licence"))
        return (*known, tuple(self.entry["classes"]), is_segmentation(self.entry))

    @property
    def row(self) -> tuple[object, ...]:
        """Entries with the same value are the same experiment with other seeds."""
        how = (self.entry["split"], self.entry["protocol"], self.entry.get("uses_truth", False))
        return (self.provenance.get("method"), self.name, self.settings, self.entry.get("step"), *how)

    @property
    def name(self) -> str:
        """The recipe's name, or the start of its digest where it has none."""
        return str(self.provenance.get("recipe") or self.settings[:8])

    def values(self) -> list[float | None]:
        """The overall score, then one per class."""
        if is_segmentation(self.entry):
            overall, by_class = self.entry["miou"], self.entry["iou"]
        else:
            overall, by_class = self.entry["tags"]["map"], self.entry["tags"]["average_precision"]
        return [overall, *(by_class.get(name) for name in self.entry["classes"])]


def results_table(runs: Sequence[Path]) -> str:
    """Tabulate the scores of runs.

    Runs that differ in nothing but the seed share a row. There is one table per data set and kind of score.

    Args:
        runs: run folders with ``scores.json``, ``provenance.json`` and ``recipe.yaml``.

    Returns:
        Markdown.

    Raises:
        EosinError: if one of these files is missing, or a seed comes twice in a row.
    """
    tables: dict[tuple[object, ...], list[_Scored]] = {}
    for run in runs:
        for scored in _read(run):
            tables.setdefault(scored.table, []).append(scored)
    return "\n\n".join(_table(entries) for entries in tables.values()) + "\n"


def _read(run: Path) -> list[_Scored]:
    recipe = run / "recipe.yaml"
    if not recipe.is_file():
        raise EosinError(f"{recipe}: no such file; give folders that `eosin run` made")
    provenance = read_json(run / "provenance.json")
    settings = {
        k: v
        for k, v in mapping(yaml.safe_load(recipe.read_text(encoding="utf-8"))).items()
        if k not in ("seed", "claim")
    }
    return [_Scored(run, entry, provenance, digest(settings)) for entry in read_json(run / "scores.json")]


def _table(entries: Sequence[_Scored]) -> str:
    first = entries[0]
    name, data_digest, licence, _, masks = first.table
    rows: dict[tuple[object, ...], list[_Scored]] = {}
    for scored in entries:
        rows.setdefault(scored.row, []).append(scored)
    settings: dict[str, set[str]] = {}
    for scored in entries:
        settings.setdefault(scored.name, set()).add(scored.settings)
    ambiguous = {name for name, digests in settings.items() if len(digests) > 1}
    head = ["Method", "Recipe", "Step", "Split", "Protocol", "mIoU" if masks else "mean AP", *first.entry["classes"]]
    head += ["Selected by", "Seeds", "Wall time", "Device", "Commit"]
    text = ["---"] * 5
    rules = [*text, *["---:"] * (1 + len(first.entry["classes"])), "---", "---", "---:", "---", "---"]
    lines = [_line(head), _line(rules), *(_line(_row(group, ambiguous)) for group in rows.values())]
    title = f"### {name}: {'masks' if masks else 'tags'}"
    source = f"Data set digest `{str(data_digest or _DASH)[:12]}`, licence: {licence or 'not written down'}."
    notes = [_NOTES[0].format(per_class="IoU" if masks else "average precision"), *_NOTES[1:]]
    if any(scored.entry.get("uses_truth") for scored in entries):
        notes.insert(1, "\N{DAGGER} The protocol uses truth at test time; not comparable with strict.")
    return "\n\n".join([title, source, "\n".join(lines), *notes])


def _row(group: Sequence[_Scored], ambiguous: set[str]) -> list[object]:
    first = group[0]
    seeds = [scored.seed for scored in group]
    for scored in group[1:]:
        if seeds.count(scored.seed) > 1:
            raise EosinError(f"{scored.run}: seed {scored.seed} of the same recipe is given twice; give each run once")
    recipe = f"{first.name} ({first.settings[:8]})" if first.name in ambiguous else first.name
    protocol = f"{first.entry['protocol']}{' †' if first.entry.get('uses_truth') else ''}"
    columns = zip(*(scored.values() for scored in group), strict=True)
    walls = [w for scored in group if isinstance(w := scored.provenance.get("wall_s"), int | float)]
    return [
        first.provenance.get("method"),
        recipe,
        first.entry.get("step"),
        first.entry["split"],
        protocol,
        *(_mean(column) for column in columns),
        _all(scored.entry.get("selection") for scored in group),
        _all(sorted(seeds, key=str)),
        seconds(fmean(walls)) if len(walls) == len(group) else _DASH,
        _all(scored.provenance.get("device") for scored in group),
        _all(str(scored.provenance.get("commit") or "unknown")[:10] for scored in group),
    ]


def _mean(values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    if len(known) < len(values):  # undefined for a seed, and so is its mean
        return _DASH
    spread = f" \N{PLUS-MINUS SIGN} {number(stdev(known))}" if len(known) > 1 else ""
    return f"{number(fmean(known))}{spread}"


def _all(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(_DASH if v is None else str(v) for v in values))


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"
