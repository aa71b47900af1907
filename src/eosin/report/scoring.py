"""The scores of a run as tables: masks, tags, and what was confused with what."""

from __future__ import annotations

import numpy as np

from eosin.report.markup import Safe, absent, count, el, note, number, percent, span, swatch, table
from eosin.report.reading import Entry, Record, chosen, interval, is_segmentation, mapping

_BACKGROUND = (235, 235, 240)

_EXPLAINED = (
    ("strict", "one confusion matrix over all pixels of the split; truth never touches a prediction."),
    ("interval", "95 %, from drawing patients (or images, where patients are not known) with replacement."),
    (
        "selected by",
        "what chose the kept epoch: validation masks, or validation tags alone; else it is the last epoch.",
    ),
)


def scores(record: Record) -> Safe:
    """All entries of scores.json, those against masks and those against tags."""
    if not record.scores:
        return absent("scores.json is absent or empty: this run was not scored.")
    drawn = [e for e in record.scores if is_segmentation(e)]
    tagged = [e for e in record.scores if mapping(e.get("tags"))]
    patches = [e for e in record.scores if mapping(e.get("mil_patch"))]
    parts = (
        [_masks(record, drawn)] if drawn else [absent("No split with masks was scored, so outlines were not judged.")]
    )
    parts += [_patches(record, patches)] if patches else []
    parts += [_tags(record, tagged)] if tagged else []
    if any(e.get("uses_truth") for e in drawn):
        parts.append(note(f"\N{DAGGER} {_uses_truth(record, drawn)}"))
    known = record.dataset.known if record.dataset else {}
    parts += [note(f"Known of these data: {key.replace('_', ' ')}: {why}.") for key, why in known.items()]
    terms = [el("div", el("dt", term), el("dd", meaning)) for term, meaning in _EXPLAINED]
    parts.append(el("details", el("summary", "How to read this"), el("dl", terms, class_="pairs")))
    return Safe("".join(parts))


def _uses_truth(record: Record, entries: list[Entry]) -> str:
    """What the dagger means: a protocol that looks at truth, or masks drawn with the scored images' own tags."""
    labels = {step.name for step in record.steps if step.kind == "label"}
    marked = [e for e in entries if e.get("uses_truth")]
    said = []
    if any(e.get("step") not in labels for e in marked):
        said.append("This protocol uses truth at test time. It is not comparable with strict scores.")
    if any(e.get("step") in labels for e in marked):
        said.append(
            "Pseudo masks are drawn with the tags of the very images that are scored: they say how good the training "
            "masks are, and cannot be compared with predictions."
        )
    return " ".join(said)


def _masks(record: Record, entries: list[Entry]) -> Safe:
    head: list[object] = ["Step", "Split", "mIoU", "Mean Dice", "Accuracy", "FwIoU"]
    names = [str(name) for name in entries[0]["classes"]]
    head += [swatch(record.colour(name), name) for name in names]
    rows = []
    for entry in entries:
        between = el("small", said) if (said := span(interval(entry))) else None
        how = el("small", entry["protocol"], mark(entry), ", ", chosen(entry))
        row: list[object] = [(marked(record, entry), how), _split(entry)]
        row.append((el("b", number(entry.get("miou"))), between))
        row += [number(entry.get(key)) for key in ("mdice", "accuracy", "fwiou")]
        for name in names:
            ends = el("small", said) if (said := span(interval(entry, name))) else None
            dice = el("small", f"Dice {number(mapping(entry.get('dice')).get(name))}")
            row.append((number(mapping(entry.get("iou")).get(name)), ends, dice))
        rows.append(row)
    return table(
        "Scores against masks; per class IoU, its 95 % interval where one is known, and Dice", head, rows, text=2
    )


def _tags(record: Record, entries: list[Entry]) -> Safe:
    head: list[object] = ["Step", "Split", "Mean AP", "Exact match"]
    names = [str(name) for name in entries[0]["classes"]]
    head += [swatch(record.colour(name), name) for name in names]
    rows = []
    for entry in entries:
        tags = mapping(entry.get("tags"))
        precision = mapping(tags.get("average_precision"))
        how = el("small", chosen(entry))
        row: list[object] = [(marked(record, entry), how), _split(entry)]
        row += [el("b", number(tags.get("map"))), number(tags.get("exact_match"))]
        rows.append(row + [number(precision.get(name)) for name in names])
    return table("Scores against tags; average precision per class", head, rows, text=2)


def _patches(record: Record, entries: list[Entry]) -> Safe:
    """What the released code of IKD-MIL prints, never without what it hides."""
    head: list[object] = ["Step", "Split"]
    head += [(name, el("small", "as released")) for name in ("F1", "IoU", "HD")]
    head += [(name, el("small", "positive patches")) for name in ("F1", "IoU", "HD", "HD95")]
    head += [("Specificity", el("small", "negative patches")), "Patches"]
    rows: list[list[object]] = []
    for entry in entries:
        released, honest = (mapping(mapping(entry["mil_patch"]).get(key)) for key in ("released", "honest"))
        row: list[object] = [(marked(record, entry), el("small", entry["protocol"], mark(entry))), _split(entry)]
        row += [number(released.get("f1")), number(released.get("iou")), number(released.get("hd"), 1)]
        row += [number(honest.get("f1")), number(honest.get("iou"))]
        row += [number(honest.get("hd"), 1), number(honest.get("hd95"), 1), number(honest.get("specificity"))]
        kinds = f"{count(honest.get('positives'))} positive, {count(honest.get('negatives'))} negative"
        empty = el("small", f"{count(honest.get('empty'))} positive without a prediction")
        rows.append([*row, (kinds, empty)])
    caption = (
        "Scores of patches: as the released code of IKD-MIL counts them (negative patches judged by their own class, "
        "an HD from one contour vertex), and what that hides; distances in px"
    )
    return table(caption, head, rows, text=2)


def mark(entry: Entry) -> Safe | None:
    """The dagger of a score for which truth was used at test time."""
    return el("abbr", " \N{DAGGER}", title="uses truth at test time") if entry.get("uses_truth") else None


def marked(record: Record, entry: Entry) -> Safe:
    """The step's name; the style sheet tints the row of the headline."""
    return el("span", entry.get("step"), class_="main" if entry is record.headline else None)


def _split(entry: Entry) -> Safe:
    return el("span", entry["split"], el("small", f"{count(entry.get('n_images'))} images"))


def confusions(record: Record) -> Safe:
    """Row-normalised confusion matrices, the headline's open and the others folded."""
    drawn = [e for e in record.scores if is_segmentation(e)]
    if not drawn:
        return absent("Without masks there is no confusion matrix.")
    main = record.headline
    first = [e for e in drawn if e is main]
    others = [e for e in drawn if e is not main]
    parts = [_confusion(record, e) for e in first]
    parts += [el("details", el("summary", which(e)), _confusion(record, e)) for e in others]
    return Safe("".join(parts))


def which(entry: Entry) -> str:
    """What an entry of scores.json is the score of, in words."""
    dagger = " \N{DAGGER}" if entry.get("uses_truth") else ""
    return f"{entry.get('step')} on {entry['split']}, {entry['protocol']}{dagger}"


def _confusion(record: Record, entry: Entry) -> Safe:
    matrix = np.asarray(entry["confusion"], np.int64)
    names = [str(name) for name in entry["classes"]]
    titles = [swatch(record.colour(name), name) for name in names]
    if len(matrix) > len(names):  # a protocol that counts what is no tissue keeps it last
        titles.append(swatch(_BACKGROUND, "background"))
    rows: list[list[object]] = []
    for i, title in enumerate(titles):
        whole = int(matrix[i].sum())
        cells: list[object] = [title]
        for j, pixels in enumerate(map(int, matrix[i])):
            share = pixels / whole if whole else 0.0
            said = percent(share) if whole else "\N{EN DASH}"
            kind = "hit" if i == j else "miss"
            cells.append(el("span", said, el("small", count(pixels)), class_=kind, style=f"--share:{share:.3f}"))
        rows.append([*cells, count(whole)])
    caption = f"{which(entry)}: share of each true class (row) that was predicted as each class (column), and pixels"
    return table(
        caption, ["Truth \N{RIGHTWARDS ARROW} predicted", *titles, "All pixels"], rows, class_="heat confusion"
    )
