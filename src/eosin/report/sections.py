"""The sections of the report, each a function from what was read to HTML; a section says plainly what is absent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from eosin.core.classes import Colour
from eosin.data.dataset import Dataset
from eosin.report.figures import Line, chart
from eosin.report.markup import Safe, absent, count, el, fill, note, number, pairs, percent, seconds, swatch, table
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
        below = f"95 % interval {said}" if (said := interval(entry)) else "no interval could be computed"
    else:
        tags = mapping(entry.get("tags"))
        title, value, what = "mean average precision of tags", tags.get("map"), "average precision"
        by_class = mapping(tags.get("average_precision"))
        below = f"exact match of all tags {number(tags.get('exact_match'))}"
    facts = f"step {entry.get('step')} on {count(entry.get('n_images'))} images of {entry['split']}"
    big = el("div", el("b", number(value, 2)), el("span", title), el("small", below), el("small", facts), class_="big")
    rows = [
        el("li", el("span", name), el("i", _bar(score, record.colour(name))), el("b", number(score)))
        for name, score in by_class.items()
    ]
    bars = el("div", el("p", f"{what} per class", class_="soft"), el("ul", rows, class_="bars"))
    return el("div", big, bars, class_="hero")


def _bar(score: object, colour: Colour) -> Safe:
    width = f"{100 * score:.1f}%" if isinstance(score, int | float) else "0"
    return el("i", style=f"width:{width};{fill(colour)}")


def data_card(record: Record) -> Safe:
    """What the model learned from and was judged on."""
    dataset, said = record.dataset, record.data
    rows: list[tuple[object, object]] = [("name", record.data_name)]
    if dataset is None:
        rows += [(key, said.get(key) or "not written down") for key in ("licence", "citation", "folder", "digest")]
        rows.append(("classes", _swatches(record)))
        remark = note(record.dataset_note, " Images, patients and tag counts are therefore not known here.")
        return Safe(remark + pairs(rows))
    rule = "given with the data"
    if dataset.tag_rule is not None:
        rule = f"cut from masks: present above {100 * dataset.tag_rule:g} % of pixels"
    rows += [
        ("licence", dataset.licence),
        ("citation", dataset.citation or "none given"),
        ("classes", _swatches(record)),
        ("pixel size", "unknown" if dataset.mpp is None else f"{dataset.mpp:g} \N{MICRO SIGN}m"),
        ("tags", rule),
        *((f"known: {key.replace('_', ' ')}", why) for key, why in dataset.known.items()),
        ("folder", el("code", dataset.folder)),
        ("digest", el("code", dataset.digest)),
    ]
    remark = note(record.dataset_note) if record.dataset_note else Safe("")
    return Safe(remark + pairs(rows) + _splits(dataset))


def _swatches(record: Record) -> Safe | str:
    return el("span", [swatch(c, n) for n, c in record.tissues], class_="legend") if record.tissues else "unknown"


def _splits(dataset: Dataset) -> Safe:
    head: list[object] = ["Split", "Images", "Patients", "Slides", "With mask"]
    rows = []
    for split in dataset.splits:
        items, truth = dataset.items(split), dataset.truth(split)
        names = [len(set(column) - {""}) for column in (items.patients, items.slides)]
        row: list[object] = [split, count(len(items)), *(count(n or None) for n in names), count(len(truth or ()))]
        present, unknown = (items.tags == 1).sum(0), np.isnan(items.tags).sum(0)
        for k in range(len(dataset.classes)):
            told = len(items) - int(unknown[k])
            share = el("small", percent(present[k] / told)) if told else None
            doubt = el("small", f"{count(int(unknown[k]))} unknown") if unknown[k] else None
            row.append((count(int(present[k])), share, doubt))
        rows.append(row)
    head += [swatch(t.colour, t.name) for t in dataset.classes]
    caption = (
        "Images per split, and in how many of them each class is tagged present (share of those where it is known)"
    )
    return table(caption, head, rows)


def curves(record: Record) -> Safe:
    """Every loss term and validation score of every trained step."""
    panels = []
    for step in record.steps:
        if not step.epochs:
            continue
        kept = [int(e["epoch"]) for e in step.epochs if e.get("kept")]
        losses = _lines(step, "losses")
        scores = _lines(step, "val")
        unit = all(0 <= v <= 1 for line in scores for _, v in line.points if math.isfinite(v))
        drawn = [chart("Loss terms", losses, kept=None, unit=False)] if losses else []
        drawn += [chart("Validation scores", scores, kept=kept[-1] if kept else None, unit=unit)] if scores else []
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
    points: dict[str, list[tuple[int, float]]] = {}
    for epoch in step.epochs:
        for name, value in _flat(mapping(epoch.get(key))):
            points.setdefault(name, []).append((int(epoch["epoch"]), value))
    return [Line(name, values) for name, values in points.items() if any(math.isfinite(v) for _, v in values)]


def _flat(values: Mapping[str, object], above: str = "") -> list[tuple[str, float]]:
    """Numbers of a nested mapping, named by their keys; None is not a number."""
    found: list[tuple[str, float]] = []
    for key, value in values.items():
        name = f"{above} {_NAMES.get(key, key)}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            found += _flat(value, name)
        elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            found.append((name, math.nan if value is None else float(value)))
    return found


def timing(record: Record) -> Safe:
    """Wall and CPU time of every step."""
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
    return table("Time per step; the whole run also loads, scores and exports", head, rows, class_="total", text=2)


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
            rows.append((f"{key[:-2]} time", seconds(value)))
        else:
            rows.append((name, "not known" if value is None or value == "" else value))
    return rows


def recipe(record: Record) -> Safe:
    """The resolved recipe, word for word."""
    if not record.recipe:
        return absent("recipe.yaml is absent.")
    return el("pre", el("code", record.recipe.rstrip()), tabindex=0, role="region", aria_label="recipe.yaml")
