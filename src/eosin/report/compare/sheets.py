"""A comparison for programs: two CSV files and one JSON file, every number as it was computed."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from eosin.report.compare import words
from eosin.report.compare.form import Arm, Comparison, Spread, Versus

_WHERE = ("dataset", "digest", "split", "protocol", "uses_truth")
_PLAIN = ("name", "method", "recipe", "settings", "step", "selection", "supervision")
_OVERALL = ("miou", "mdice", "accuracy", "fwiou")
_BY_CLASS = ("iou", "dice")
_NAMED = ("groups", "boundary", "objects", "calibration")
_VERSUS = ("difference", "p", "p_holm", "exact", "clusters", "t", "t_p", "stars", "beats")

Record = Mapping[str, object]


def arms_csv(comparison: Comparison) -> str:
    """One row per arm; scores in 0..1, the claim of its recipe in percent."""
    return csv_text(arm_records(comparison))


def runs_csv(comparison: Comparison) -> str:
    """Long form: one row per run, measure and name (a class, a group, ...); the name of an overall score is empty."""
    return csv_text(run_records(comparison))


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain JSON; what is not finite is null."""
    value: dict[str, Any] = {"schema": 1, **plain(comparison)}
    return value


def arm_records(comparison: Comparison) -> list[Record]:
    """The lines of ``arms.csv``."""
    return [{**_where(comparison), **_arm(comparison, arm)} for arm in comparison.arms]


def run_records(comparison: Comparison) -> list[Record]:
    """The lines of ``runs.csv``."""
    return [
        {**_where(comparison), "arm": arm.name, "run": label, "folder": folder, **_value(key, spread.values, i)}
        for arm in comparison.arms
        for key, spread in _spreads(arm)
        for i, (label, folder) in enumerate(zip(arm.labels, arm.runs, strict=True))
    ]


def plain(value: object) -> Any:
    """Anything of a comparison as plain JSON; what is not finite is null."""
    if is_dataclass(value) and not isinstance(value, type):
        found = {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        return found | {"beats": value.beats} if isinstance(value, Versus) else found
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def _where(comparison: Comparison) -> Record:
    return {key: getattr(comparison, key) for key in _WHERE}


def _arm(comparison: Comparison, arm: Arm) -> Record:
    record: dict[str, object] = {"arm" if key == "name" else key: getattr(arm, key) for key in _PLAIN}
    record["runs"] = len(arm.runs)
    record["headline"] = words.headline(comparison, arm)
    record["pooled"], (record["ci95_low"], record["ci95_high"]) = arm.pooled, arm.ci95
    record |= {f"pooled_iou:{name}": value for name, value in arm.pooled_iou.items()}
    for (measure, name), spread in _spreads(arm):
        key = f"{measure}:{name}" if name else measure
        record[key], record[f"{key}:sd"] = spread.mean, spread.sd
    record |= {field.name: getattr(arm.cost, field.name) for field in fields(arm.cost)}
    if (v := arm.versus) is not None:
        record |= {"baseline": comparison.baseline} | {f"versus:{key}": getattr(v, key) for key in _VERSUS}
        record["versus:ci95_low"], record["versus:ci95_high"] = v.ci95
        record["versus:gained"], record["versus:pairs"] = v.gained
    if (claim := arm.claim) is not None:
        said = {"claim:miou_percent": claim.miou, "claim:source": claim.source, "claim:protocol": claim.protocol}
        record |= said | {"claim:uses_truth": claim.uses_truth}
    return record


def _spreads(arm: Arm) -> Iterator[tuple[tuple[str, str], Spread]]:
    """Every score of an arm by its measure and name."""
    for measure in _OVERALL:
        yield (measure, ""), getattr(arm, measure)
    for measure in (*_BY_CLASS, *_NAMED):
        for name, spread in getattr(arm, measure).items():
            yield (measure, name), spread


def _value(key: tuple[str, str], values: Sequence[float | None], at: int) -> Record:
    return {"measure": key[0], "name": key[1], "value": values[at]}


def csv_text(records: Sequence[Record]) -> str:
    """A line per record below the names of all their values."""
    head = list(dict.fromkeys(key for record in records for key in record))
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, head, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in record.items()} for record in records)
    return buffer.getvalue()


def _cell(value: object) -> object:
    """Empty for what is not known; floats with every digit they have."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return repr(float(value)) if isinstance(value, float) else value
