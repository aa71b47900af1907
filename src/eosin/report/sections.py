"""The sections of the report, each a function from what was read to HTML; a section says plainly what is absent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from eosin.core.classes import Colour
from eosin.metrics.protocols import PROTOCOLS
from eosin.report.figures import Line, charts
from eosin.report.markup import Safe, absent, count, el, fill, number, pairs, seconds, span, table
from eosin.report.reading import Record, Step, chosen, interval, is_segmentation, mapping

_SELECTION = {
    "masks": "the epoch was chosen by validation masks",
    "tags": "the epoch was chosen by validation tags alone",
    "last": "the last epoch, nothing was chosen",
}
_NAMES = {"miou": "mIoU", "iou": "IoU", "tag_map": "tag mAP", "mdice": "mean Dice", "fwiou": "FwIoU"}


def sentence(record: Record) -> str:
    """The result in one sentence."""
    entry = record.headline
    who = f"{record.method} on {record.data_name}"
    if entry is None:
        return f"{who}: no score was written."
    by = chosen(entry)
    if not is_segmentation(entry):
        value = number(mapping(entry.get("tags")).get("map"), 2)
        found = f"{who}: {value} mean average precision of tags ({entry['split']}, {by})"
        return f"{found}; there are no masks, so nothing is known of its outlines."
    marks = ", uses truth at test time" if entry.get("uses_truth") else ""
    return f"{who}: {number(entry.get('miou'), 2)} mIoU ({entry['split']}, {entry['protocol']}, {by}{marks})."


def hero(record: Record) -> Safe:
    """The headline's number with its interval, and a bar per class."""
    entry = record.headline
    if entry is None:
        return absent("scores.json is absent or empty: this run was not scored.")
    if is_segmentation(entry):
        title, value, by_class, what = "mIoU", entry.get("miou"), mapping(entry.get("iou")), "IoU"
        below = f"95 % interval {said}" if (said := span(interval(entry))) else "no interval could be computed"
    else:
        tags = mapping(entry.get("tags"))
        title, value, what = "mean average precision of tags", tags.get("map"), "average precision"
        by_class = mapping(tags.get("average_precision"))
        below = f"exact match of all tags {number(tags.get('exact_match'))}"
    facts = f"step {entry.get('step')} on {count(entry.get('n_images'))} images of {entry['split']}"
    facts += f", {record.fold}" if record.fold else ""
    facts += ", uses truth at test time" if entry.get("uses_truth") else ""
    big = el("div", el("b", number(value, 2)), el("span", title), el("small", below), el("small", facts), class_="big")
    ends = {name: interval(entry, name) for name in by_class}
    rows = [
        el(
            "li",
            el("span", name),
            el("i", _bar(score, record.colour(name)), _whisker(ends[name])),
            el("b", number(score)),
            el("small", span(ends[name]) or ""),
        )
        for name, score in by_class.items()
    ]
    said = f"{what} per class" + (", and its 95 % interval" if any(ends.values()) else "")
    bars = el("div", el("p", said, class_="soft"), el("ul", rows, class_="bars"))
    return el("div", big, bars, class_="hero")


def _bar(score: object, colour: Colour) -> Safe:
    width = f"{100 * score:.1f}%" if isinstance(score, int | float) else "0"
    return el("i", style=f"width:{width};{fill(colour)}")


def _whisker(ends: tuple[float, float] | None) -> Safe | None:
    if ends is None:
        return None
    low, high = ends
    return el("em", style=f"left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%")


def curves(record: Record) -> Safe:
    """Every loss term and validation score of every trained step."""
    panels, judged = [], "Validation scores"
    if (rule := PROTOCOLS.get(str(record.settings.get("protocol")))) is not None and rule.uses_truth:
        judged += " (by a protocol that uses truth at test time)"
    for step in record.steps:
        if not step.epochs:
            continue
        kept = [int(e["epoch"]) for e in step.epochs if e.get("kept")]
        losses = _lines(step, "losses")
        scores = _lines(step, "val")
        unit = all(0 <= v <= 1 for line in scores for _, v in line.points if math.isfinite(v))
        drawn = charts("Loss terms", losses, kept=None, unit=False)
        drawn += charts(judged, scores, kept=kept[-1] if kept else None, unit=unit)
        if not scores:
            drawn.append(absent("No validation score was taken in this step."))
        told = el("p", _training(step, kept), class_="soft")
        panels.append(el("section", el("h3", step.name), told, el("div", drawn, class_="charts")))
    if not panels:
        return absent("journal.jsonl is absent or empty: no step was trained, or its journal was removed.")
    return Safe("".join(panels))


def _training(step: Step, kept: Sequence[int]) -> str:
    last = step.epochs[-1]
    planned = last.get("epochs", len(step.epochs))
    text = f"{int(last['epoch']) + 1} of {planned} epochs"
    text += f"; epoch {kept[-1] + 1} was kept" if kept else ""
    return text + (f" ({_SELECTION.get(str(last['selection']), last['selection'])})." if "selection" in last else ".")


def _lines(step: Step, key: str) -> list[Line]:
    """One line per name that was ever told; one that never was a finite number is listed without a curve."""
    points: dict[str, list[tuple[int, float]]] = {}
    told: set[str] = set()
    for epoch in step.epochs:
        for name, value in _flat(mapping(epoch.get(key))):
            points.setdefault(name, []).append((int(epoch["epoch"]), math.nan if value is None else value))
            if value is not None:
                told.add(name)
    return [Line(name, values) for name, values in points.items() if name in told]


def _flat(values: Mapping[str, object], above: str = "") -> list[tuple[str, float | None]]:
    """Numbers of a nested mapping, named by their keys; None is what could not be known."""
    found: list[tuple[str, float | None]] = []
    for key, value in values.items():
        name = f"{above} {_NAMES.get(key, key)}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            found += _flat(value, name)
        elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            found.append((name, None if value is None else float(value)))
    return found


def timing(record: Record) -> Safe:
    """Wall and CPU time of every step, and what else the run used up."""
    if not record.steps:
        return absent("Neither journal.jsonl nor steps/ is there, so the time per step is not known.")
    rows: list[list[object]] = []
    for step in record.steps:
        told = [e["seconds"] for e in step.epochs if isinstance(e.get("seconds"), int | float)]
        wall = step.notes.get("wall_s", sum(told) if told else None)
        rates = sorted(e["images_per_s"] for e in step.epochs if isinstance(e.get("images_per_s"), int | float))
        rate = number(rates[len(rates) // 2], 0) if rates else number(None)
        cpu = step.notes.get("cpu_s")
        rows.append([step.name, step.kind, len(step.epochs) or "\N{EN DASH}", rate, seconds(wall), seconds(cpu)])
    whole = record.provenance
    rows.append(["whole run", "", "", "", seconds(whole.get("wall_s")), seconds(whole.get("cpu_s"))])
    head = ["Step", "Kind", "Epochs", "Images / s (median)", "Wall time", "CPU time"]
    used: list[tuple[object, object]] = []
    if isinstance(memory := whole.get("peak_memory_mb"), int | float):
        used.append(("peak memory", f"{memory:,.0f} MB"))
    if isinstance(energy := whole.get("energy_j"), int | float):
        said = f"{energy:,.0f} J ({energy / 3.6e6:.3f} kWh), read from the processors' own counters"
        used.append(("energy", f"{said}: everything that ran on this machine meanwhile is in it."))
    caption = "Time per step; the whole run also loads, scores and exports"
    return Safe(table(caption, head, rows, class_="total", text=2) + (pairs(used) if used else ""))


def provenance(record: Record) -> Safe:
    """Everything that provenance.json says."""
    if not record.provenance:
        return absent("provenance.json is absent: versions, device, seed and digests of this run are not known.")
    return pairs(_entries(record.provenance))


def _entries(values: Mapping[str, object], above: str = "") -> list[tuple[object, object]]:
    rows: list[tuple[object, object]] = []
    for key, value in values.items():
        name = f"{above} {key}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            rows += _entries(value, name)
        elif key in ("wall_s", "cpu_s"):
            rows.append((f"{name[:-2]} time", seconds(value)))
        else:
            rows.append((name, "not known" if value is None or value == "" else value))
    return rows


def recipe(record: Record) -> Safe:
    """The resolved recipe, word for word."""
    if not record.recipe:
        return absent("recipe.yaml is absent.")
    return el("pre", el("code", record.recipe.rstrip()), tabindex=0, role="region", aria_label="recipe.yaml")
