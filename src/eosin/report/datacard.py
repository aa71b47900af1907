"""The data section: what the model learned from and was judged on, and what of it is shared or goes together."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from eosin.data.dataset import Dataset, Items
from eosin.report.markup import Safe, absent, count, el, note, pairs, percent, swatch, table
from eosin.report.reading import Record

_TRAIN = "train"
_NAMED = 12  # shared patients written out
_SHARED = (("patient", "patients"), ("slide", "slides"), ("parent image", "parents"))


def data_card(record: Record) -> Safe:
    """The data set's own words, its splits, what they share, and which tags go together."""
    dataset, said = record.dataset, record.data
    rows: list[tuple[object, object]] = [("name", record.data_name)]
    if record.fold:
        rows.append(("cross-validation", record.fold))
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
    return Safe(remark + pairs(rows) + _splits(dataset) + _overlaps(dataset) + _together(dataset))


def _swatches(record: Record) -> Safe | str:
    return el("span", [swatch(c, n) for n, c in record.tissues], class_="legend") if record.tissues else "unknown"


def _splits(dataset: Dataset) -> Safe:
    head: list[object] = ["Split", "Images", "Patients", "Slides", "With mask"]
    splits = {split: dataset.items(split) for split in dataset.splits}
    rows = []
    for split, items in splits.items():
        truth = dataset.truth(split)
        row: list[object] = [split, count(len(items))]
        for column in ("patients", "slides"):
            names = {name: _named(one, column) for name, one in splits.items()}
            row.append((count(len(names[split]) or None), _also(names, split)))
        row.append(count(len(truth or ())))
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


def _named(items: Items, column: str) -> set[str]:
    return set(map(str, getattr(items, column))) - {""}


def _also(names: Mapping[str, set[str]], split: str) -> list[Safe]:
    """How many names of a split stand in each other one, too."""
    shared = {other: len(names[split] & names[other]) for other in names if other != split}
    return [el("small", f"{n} also in {other}", class_="shared") for other, n in shared.items() if n]


def _overlaps(dataset: Dataset) -> Safe:
    """A note on every pair of splits that share patients, slides or parent images, and whether that was declared."""
    notes = []
    for what, column in _SHARED:
        names = {split: _named(dataset.items(split), column) for split in dataset.splits}
        pairs_of = ((a, b, names[a] & names[b]) for a, b in combinations(names, 2))
        found = [(a, b, sorted(both, key=lambda name: (len(name), name))) for a, b, both in pairs_of if both]
        if not found:
            continue
        key = f"{what.split()[0]}_overlap"
        why = dataset.known.get(key)
        said = "; ".join(f"{a} and {b} share {count(len(both))} ({_some(both)})" for a, b, both in found)
        declared = f"Declared as known: {why}." if why else "This is not declared as known: scores may flatter."
        notes.append(note(el("b", f"The same {what}s in two splits: "), f"{said}. {declared}"))
    if notes:
        return Safe("".join(notes))
    nameless = [split for split in dataset.splits if (dataset.items(split).patients == "").any()]
    if not nameless:
        return el("p", "No patient is in two splits.", class_="soft")
    known = any(_named(dataset.items(split), "patients") for split in dataset.splits)
    why = f"Not every item of {' and '.join(nameless)} names its patient" if known else "Patients are not known"
    return el("p", f"{why}, so it cannot be said whether two splits share one.", class_="soft")


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _together(dataset: Dataset) -> Safe:
    """How often each class is tagged together with each other one in the training split."""
    if _TRAIN not in dataset.splits:
        return absent("There is no training split, so nothing is said of tags that go together.")
    if len(dataset.classes) < 2:
        return Safe("")
    tags = dataset.items(_TRAIN).tags
    present, known = (tags == 1).astype(np.int64), (~np.isnan(tags)).astype(np.int64)
    both, judged = present.T @ present, present.T @ known  # [K, K]; row tagged, and of these column known
    titles = [swatch(t.colour, t.name) for t in dataset.classes]
    rows: list[list[object]] = []
    for i, title in enumerate(titles):
        cells: list[object] = [title]
        for j in range(len(titles)):
            # On the diagonal every image that is tagged has the class: its share of all images says more.
            whole = int(known[:, i].sum()) if i == j else int(judged[i, j])
            share = both[i, j] / whole if whole else 0.0
            said = percent(share) if whole else "\N{EN DASH}"
            kind = "pair own" if i == j else "pair"
            cells.append(
                el("span", said, el("small", count(int(both[i, j]))), class_=kind, style=f"--share:{share:.3f}")
            )
        rows.append(cells)
    caption = (
        f"Tags that go together in {_TRAIN}: of the images tagged with the class of a row, the share (and number) that "
        "is tagged with the class of a column, too; framed on the diagonal, the share of all images that has the class"
    )
    said = (
        "Where a class hardly ever comes without another one, image labels alone cannot teach a model to tell the two "
        "apart."
    )
    heat = table(caption, ["Tagged \N{RIGHTWARDS ARROW} also", *titles], rows, class_="heat")
    return Safe(heat + el("p", said, class_="soft"))
