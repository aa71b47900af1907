"""Pictures of items: predictions from worst to best beside the truth, and pseudo masks of training patches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from eosin.core.classes import Classes
from eosin.core.errors import EosinError
from eosin.data.dataset import Dataset, Items
from eosin.metrics.confusion import count_pixels
from eosin.metrics.scores import fwiou
from eosin.report.figures import fitted, tinted
from eosin.report.markup import Safe, absent, el, note, number, percent, picture, swatch
from eosin.report.reading import Record, Step, is_segmentation, mapping
from eosin.slides.draw import Pixels
from eosin.slides.image import read_mask, read_rgb

_SHOWN, _SHOWN_PSEUDO = 12, 6
_PICTURES, _PSEUDO = 96, 12  # with many steps fewer items are shown, which bounds the size of the page
_ABREAST = 6  # pictures in one line of a wide page
_DAGGER = el("abbr", "\N{DAGGER}", title="uses truth at test time")


@dataclass(frozen=True, slots=True)
class Item:
    """A scored item: its position in the split, its files, and its own FwIoU (NaN without truth).

    Of one image the mean IoU is a poor judge: a few stray pixels of an absent class halve it. Weighted by class area it
    agrees with the eye.
    """

    index: int
    name: str
    image: Path
    prediction: Path
    truth: Path | None = None
    score: float = math.nan


@dataclass(frozen=True, slots=True)
class Column:
    """What one step made of a split: ``folder`` holds a mask per item, ``what`` names it in the picture's words."""

    folder: Path
    what: str
    caption: str
    uses_truth: bool = False

    def file(self, item: str) -> Path:
        """The mask of an item."""
        return self.folder / f"{item}.png"


@dataclass(frozen=True, slots=True)
class Shown:
    """What a report can show of the headline's split.

    Attributes:
        split: its name.
        dataset: the data set.
        items: of the split.
        found: the predicted items that are still there: the worst first, or by name where there is no truth.
        columns: the masks that steps made of them.
        judged: whether there is truth.
    """

    split: str
    dataset: Dataset
    items: Items
    found: Sequence[Item]
    columns: Sequence[Column]
    judged: bool


def shown(record: Record) -> Shown | Safe:
    """The predicted items of the headline's split, or the sentence that says why there are none."""
    entry, dataset = record.headline, record.dataset
    if entry is None:
        return absent("No scores.json, so nothing was predicted for a scored split.")
    split = str(entry["split"])
    where = f"predictions/{entry.get('step')}/{split}"
    files = {p.stem: p for p in (record.folder / where).glob("*.png")}
    if not files:
        return absent(f"The run holds no predicted masks ({where} is absent or empty).")
    if dataset is None or split not in dataset.splits:
        return absent(f"{len(files)} predicted masks lie in {where}, but the images they belong to are out of reach.")
    if list(entry["classes"]) != list(dataset.classes.names):
        return absent(f"The classes of {dataset.folder} are no longer those of this run, so nothing is drawn.")
    items, judged = dataset.items(split), is_segmentation(entry)
    found = _scored(dataset, split, items, files) if judged else _unscored(items, files)
    if not found:
        return absent(f"None of the {len(files)} predictions in {where} belongs to an item that is still there.")
    return Shown(split, dataset, items, found, _columns(record, str(entry.get("step")), split), judged)


def predictions(record: Record) -> Safe:
    """Up to twelve items of the headline's split, evenly spaced from the worst to the best by their own FwIoU."""
    seen = shown(record)
    if isinstance(seen, Safe):
        return seen
    columns = seen.columns
    picked = _spread(len(seen.found), min(_SHOWN, max(2, _PICTURES // (len(columns) + 2))))
    rows = [row(seen, i) for i in picked]
    said = f"{len(picked)} of {len(seen.found)} items of {seen.split}, evenly spaced "
    if seen.judged:
        said += "from the worst to the best by each item's own IoU, weighted by class area (FwIoU)."
    else:
        said += "by name. There is no truth to judge them by."
    parts = [el("p", said, class_="soft"), legend_of(seen.dataset.classes)]
    parts.append(el("div", rows, class_="gallery wide" if len(columns) + 1 + seen.judged > 3 else "gallery"))
    return Safe("".join(parts) + tags_note(columns))


def tags_note(columns: Sequence[Column]) -> Safe:
    """A remark where masks are shown that nobody could draw at test time; else nothing."""
    if not any(column.uses_truth for column in columns):
        return Safe("")
    return note(_DAGGER, " drawn with the tags of these very images, which nobody has at test time.")


def _columns(record: Record, final: str, split: str) -> list[Column]:
    """The masks that steps made of a split, in the order of the steps, those of the final one last."""
    columns = []
    marked = {str(e.get("step")) for e in record.scores if e.get("uses_truth") and e["split"] == split}

    def column(step: str, what: str, caption: str) -> Column:
        folder, touched = record.folder / "predictions" / step / split, step in marked
        return Column(folder, what, el("span", caption, " ", _DAGGER) if touched else caption, touched)

    for step in record.steps:
        folder = record.folder / "predictions" / step.name / split
        if step.name == final or not any(folder.glob("*.png")):
            continue
        if step.kind == "label":
            caption = el("span", "pseudo mask ", _DAGGER, " (by the image's tags)")
            columns.append(Column(folder, f"Pseudo mask ({step.name})", caption, uses_truth=True))
        elif step.kind == "fit":
            columns.append(column(step.name, f"CAM ({step.name})", f"CAM ({step.name})"))
        else:
            columns.append(column(step.name, f"Prediction ({step.name})", f"prediction ({step.name})"))
    return [*columns, column(final, "Prediction", "prediction")]


def pseudo_masks(record: Record, step: Step) -> Safe:
    """A few training patches with the masks that a label step drew, from tags alone."""
    files, dataset = step.masks, record.dataset
    if dataset is None or "train" not in dataset.splits:
        return absent(f"{len(files)} masks lie in steps/{step.name}/masks, but their images are out of reach.")
    items = dataset.items("train")
    place = {str(name): i for i, name in enumerate(items.ids)}
    files = [f for f in files if f.stem in place and items.path(place[f.stem]).exists()]
    rows = []
    shown = min(_SHOWN_PSEUDO, max(2, _PSEUDO // len(label_steps(record))))
    for file in (files[i] for i in _spread(len(files), shown)):
        index = place[file.stem]
        rgb = read_rgb(items.path(index))
        pictures = [
            picture(fitted(rgb), f"Training patch {file.stem}", "image"),
            _masked(rgb, file, f"Pseudo mask of {file.stem}", "pseudo mask", dataset.classes),
        ]
        text = (el("code", file.stem), el("span", f"tags: {_tags(items, index, dataset.classes)}"))
        row = el("div", pictures, class_="row", style=f"--n:{len(pictures)}")
        rows.append(el("article", row, el("p", text), class_="item"))
    said = f"{len(rows)} of {len(files)} training patches, evenly spaced by name; what is not tinted is not trained on."
    if pixels := mapping(step.notes.get("pixels")):
        ignored = int(step.notes.get("ignored", 0))
        whole = max(1, sum(pixels.values()) + ignored)
        said += f" All masks together: {', '.join(f'{n} {percent(p / whole)}' for n, p in pixels.items())}"
        said += f", not trained on {percent(ignored / whole)}."
    return Safe(el("p", said, class_="soft") + legend_of(dataset.classes) + el("div", rows, class_="gallery"))


def _scored(dataset: Dataset, split: str, items: Items, files: Mapping[str, Path]) -> list[Item]:
    """The predicted items whose image and mask are still there, worst first."""
    truth = dataset.truth(split)
    masks = {} if truth is None else {int(i): truth.path(j) for j, i in enumerate(truth.index)}
    found = []
    for item in _unscored(items, files):
        mask = masks.get(item.index)
        if mask is not None and mask.exists():
            score = _own_score(item.prediction, mask, dataset.classes)
            found.append(replace(item, truth=mask, score=score))
    return sorted((item for item in found if not math.isnan(item.score)), key=lambda item: (item.score, item.name))


def _unscored(items: Items, files: Mapping[str, Path]) -> list[Item]:
    """The predicted items whose image is still there, in the order of the data set."""
    named = enumerate(map(str, items.ids))
    return [Item(i, name, items.path(i), files[name]) for i, name in named if name in files and items.path(i).exists()]


def _own_score(prediction: Path, truth: Path, classes: Classes) -> float:
    """FwIoU of one image; a predicted value that is no class is a wrong one, as where a protocol keeps background."""
    predicted, true = read_mask(prediction), read_mask(truth)
    _check_size(prediction, predicted, "truth", true.shape)
    kept = true != classes.ignore
    return fwiou(count_pixels(np.minimum(predicted, len(classes))[kept], true[kept], len(classes) + 1))


def row(seen: Shown, at: int, more: Sequence[Safe] = ()) -> Safe:
    """One item: its image, truth and masks, ``more`` below them, and what is known of it."""
    item, items, classes = seen.found[at], seen.items, seen.dataset.classes
    rgb = read_rgb(item.image)
    pictures = [picture(fitted(rgb), f"Image {item.name}", "image")]
    text = []
    if item.truth is not None:
        pictures.append(_masked(rgb, item.truth, f"Truth of {item.name}", "truth", classes))
        text += [el("b", f"FwIoU {number(item.score)}"), el("span", f"{at + 1} of {len(seen.found)}")]
    for column in seen.columns:
        file = column.file(item.name)
        if file.exists():
            pictures.append(_masked(rgb, file, f"{column.what} of {item.name}", column.caption, classes))
    text.append(el("code", item.name))
    if patient := str(items.patients[item.index]):
        text.append(el("span", f"patient {patient}"))
    text.append(el("span", f"tags: {_tags(items, item.index, classes)}"))
    return el("article", line_of(pictures), *more, el("p", text), class_="item")


def line_of(pictures: Sequence[Safe], abreast: int = 0) -> Safe:
    """Pictures beside each other, at most six in a line; ``abreast`` leaves room for more of them than there are."""
    return el("div", pictures, class_="row", style=f"--n:{min(max(len(pictures), abreast), _ABREAST)}")


def _masked(rgb: Pixels, file: Path, what: str, caption: object, classes: Classes) -> Safe:
    """The overlay of a mask file, described by its shares."""
    mask = read_mask(file)
    _check_size(file, mask, "image", rgb.shape[:2])
    shares = np.bincount(mask.ravel(), minlength=256) / mask.size
    parts = [f"{name} {percent(shares[k])}" for k, name in enumerate(classes.names) if shares[k] > 0]
    return picture(tinted(rgb, mask, classes), f"{what}: {', '.join(parts) or 'no class'}", caption)


def _check_size(file: Path, mask: Pixels, other: str, size: Sequence[int]) -> None:
    """Stop at masks that no longer fit.

    Raises:
        EosinError: if the mask has another size.
    """
    if mask.shape != tuple(size):
        sizes = f"{mask.shape[1]} x {mask.shape[0]} px, but its {other} {size[1]} x {size[0]} px"
        raise EosinError(f"{file}: {sizes}; the data were changed since, so run or score again")


def legend_of(classes: Classes) -> Safe:
    """The classes and their colours."""
    return el("p", [swatch(t.colour, t.name) for t in classes], class_="legend")


def _tags(items: Items, index: int, classes: Classes) -> str:
    """The names of the tags that are present, and of those that are unknown with a question mark."""
    row = items.tags[index]
    named = [n if row[k] == 1 else f"{n}?" for k, n in enumerate(classes.names) if row[k] == 1 or np.isnan(row[k])]
    return ", ".join(named) or "none"


def _spread(n: int, wanted: int) -> Sequence[int]:
    """At most ``wanted`` evenly spaced positions of ``0..n-1``, the first and the last among them."""
    return range(n) if n <= wanted else [round(i * (n - 1) / (wanted - 1)) for i in range(wanted)]


def label_steps(record: Record) -> list[Step]:
    """The steps that drew masks."""
    return [step for step in record.steps if step.masks]
