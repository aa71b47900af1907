"""The picture of a comparison: images from worst to best by the baseline, each with its truth and every arm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from eosin.core.artifact import read_json
from eosin.core.classes import Classes, Tissue
from eosin.core.errors import EosinError
from eosin.data.dataset import Dataset
from eosin.metrics.confusion import count_pixels
from eosin.metrics.scores import fwiou
from eosin.report.compare import words
from eosin.report.compare.form import Arm, Comparison
from eosin.report.figures import fitted, tinted
from eosin.report.markup import number
from eosin.report.reading import mapping
from eosin.slides.draw import Pixels, legend, typeface
from eosin.slides.image import read_mask, read_rgb

_GAP, _LEGEND = 12, 900
_TITLE, _TEXT = 19, 17  # letter heights in pixels
_INK, _SOFT, _BACK = (28, 27, 34), (96, 94, 106), (240, 239, 243)
_PLACES = {3: ("worst", "median", "best"), 2: ("worst", "best"), 1: ("only",)}


@dataclass(frozen=True, slots=True)
class Grid:
    """A drawn comparison.

    Attributes:
        pixels: uint8 ``[H, W, 3]``.
        said: what it shows, in a sentence or two.
        columns: how many pictures stand side by side.
    """

    pixels: Pixels
    said: str
    columns: int


@dataclass(frozen=True, slots=True)
class _Item:
    """An image of the baseline's: its files, its FwIoU, and the fold that it was tested in (0 without folds)."""

    name: str
    image: Path
    truth: Path
    fold: int
    score: float


@dataclass(frozen=True, slots=True)
class _Tile:
    """One picture of a row; ``pixels`` None where there is none."""

    title: str
    pixels: Pixels | None
    below: str


def draw_grid(comparison: Comparison, rows: int = 3) -> Grid:
    """Draw images from the worst to the best of the baseline.

    They are ordered by each image's own IoU weighted by class area (FwIoU, as the report's gallery orders them: of one
    image the mean IoU is a poor judge, since a few stray pixels of an absent class halve it), counted as ``strict``
    counts. Every arm shows its run of the lowest seed, with folds the one of these that was tested on the image.

    Args:
        comparison: whose runs and data set are still on disk.
        rows: how many images, evenly spaced in that order: three are the worst, the median and the best.

    Raises:
        EosinError: if runs, predictions, images or masks are gone, or no longer fit each other.
    """
    baseline = words.arm_named(comparison, comparison.baseline)
    found = [item for fold, run in _shown(baseline).items() for item in _items(comparison, baseline, fold, run)]
    if not found:
        where = baseline.runs[0] / "predictions" / baseline.step / comparison.split
        raise EosinError(f"{where}: no predicted mask whose image and truth are still there; run again to draw them")
    found.sort(key=lambda item: (item.score, item.name))
    classes = _classes(comparison, _dataset(baseline.runs[0]).classes.ignore)
    picked = _spread(len(found), rows)
    places = _PLACES.get(len(picked)) if rows <= len(_PLACES) else None
    lines = []
    for n, at in enumerate(picked):
        item = found[at]
        place = f"{places[n]}, {at + 1} of {len(found)}" if places else f"{at + 1} of {len(found)}"
        fold = f" (fold {item.fold})" if comparison.folds else ""
        lines.append((f"{place} by {baseline.name}: {item.name}{fold}", _tiles(comparison, item, classes)))
    shown = "the fold that tested the image" if comparison.folds else "the run"
    said = (
        f"{'; '.join(text for text, _ in lines)}. Ordered by each image's own IoU weighted by class area (FwIoU, "
        f"below each prediction; counted as strict); of every arm {shown} of the lowest seed."
    )
    return Grid(_drawn(lines, classes), said, len(lines[0][1]))


def _items(comparison: Comparison, arm: Arm, fold: int, run: Path) -> list[_Item]:
    """The images of one run that still have image, truth and prediction, with their own scores."""
    dataset = _dataset(run)
    if dataset.classes.names != comparison.classes:
        raise EosinError(f"{dataset.folder}: its classes are no longer those of {run}; restore the data set")
    files = _predicted(arm, run, comparison.split)
    truth = dataset.truth(comparison.split) if comparison.split in dataset.splits else None
    if truth is None:
        raise EosinError(f"{dataset.folder}: no masks in split {comparison.split!r}; restore the data set")
    items, found = dataset.items(comparison.split), []
    for position, at in enumerate(truth.index):
        name, image, mask = str(items.ids[at]), items.path(int(at)), truth.path(position)
        if name in files and image.exists() and mask.exists():
            score = _score(read_mask(files[name]), read_mask(mask), dataset.classes, files[name])
            found.append(_Item(name, image, mask, fold, score))
    return [item for item in found if not math.isnan(item.score)]


def _tiles(comparison: Comparison, item: _Item, classes: Classes) -> list[_Tile]:
    """Image, truth and the prediction of every arm."""
    rgb, truth = read_rgb(item.image), read_mask(item.truth)
    if truth.shape != rgb.shape[:2]:
        raise EosinError(f"{item.truth}: another size than its image; the data were changed since, so score again")
    tiles = [_Tile("image", fitted(rgb), ""), _Tile("truth", tinted(rgb, truth, classes), "")]
    for arm in words.ordered(comparison):
        file = _prediction(comparison, arm, item)
        if file is None:
            tiles.append(_Tile(arm.name, None, ""))
            continue
        mask = read_mask(file)
        score = _score(mask, truth, classes, file)
        tiles.append(_Tile(arm.name, tinted(rgb, mask, classes), f"FwIoU {number(score)}"))
    return tiles


def _prediction(comparison: Comparison, arm: Arm, item: _Item) -> Path | None:
    """The file in which an arm predicted an image, or None where it has no such run."""
    run = _shown(arm).get(item.fold)
    return None if run is None else _predicted(arm, run, comparison.split).get(item.name)


def _predicted(arm: Arm, run: Path, split: str) -> Mapping[str, Path]:
    return {path.stem: path for path in (run / "predictions" / arm.step / split).glob("*.png")}


def _shown(arm: Arm) -> dict[int, Path]:
    """The runs of the lowest seed, by fold (0 without folds)."""
    pairs = sorted(zip(arm.labels, arm.runs, strict=True), key=lambda pair: words.number_of("seed", pair[0]))
    found: dict[int, Path] = {}
    for label, run in pairs:
        found.setdefault(words.number_of("fold", label), run)
    return found


def _dataset(run: Path) -> Dataset:
    """The data set that a run says it was made from."""
    provenance = mapping(read_json(run / "provenance.json"))
    folder = mapping(provenance.get("dataset")).get("folder")
    if not folder:
        raise EosinError(f"{run / 'provenance.json'}: does not say where the data set is; run again")
    return Dataset.open(str(folder))


def _classes(comparison: Comparison, ignore: int) -> Classes:
    pairs = zip(comparison.classes, comparison.colours, strict=True)
    return Classes(tissues=tuple(Tissue(name=name, colour=colour) for name, colour in pairs), ignore=ignore)


def _score(mask: Pixels, truth: Pixels, classes: Classes, file: Path) -> float:
    if mask.shape != truth.shape:
        raise EosinError(f"{file}: another size than its truth; the data were changed since, so run or score again")
    return fwiou(count_pixels(mask, truth, len(classes), classes.ignore))


def _spread(n: int, wanted: int) -> list[int]:
    """At most ``wanted`` evenly spaced positions of ``0..n-1``, the first and the last among them."""
    return list(range(n)) if n <= wanted else [round(i * (n - 1) / max(1, wanted - 1)) for i in range(wanted)]


def _drawn(lines: Sequence[tuple[str, Sequence[_Tile]]], classes: Classes) -> Pixels:
    """Put titles, rows and legend on white."""
    tiles = lines[0][1]
    wide = max(t.pixels.shape[1] for _, row in lines for t in row if t.pixels is not None)
    width = _GAP + len(tiles) * (wide + _GAP)
    bands = [_titles([tile.title for tile in tiles], wide, width)]
    for text, row in lines:
        bands += [_caption(text, width), _row(row, wide, width)]
    key = legend(classes, min(width, _LEGEND))
    foot = np.full((key.shape[0] + _GAP, max(width, key.shape[1]), 3), 255, np.uint8)
    foot[_GAP:, : key.shape[1]] = key
    return np.concatenate([*bands, foot[:, :width]])


def _titles(titles: Sequence[str], wide: int, width: int) -> Pixels:
    font = typeface(_TITLE)
    wrapped = [_wrapped(title, font, wide) for title in titles]
    line = round(1.3 * _TITLE)
    height = max(map(len, wrapped)) * line + _GAP
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    for k, texts in enumerate(wrapped):
        for n, text in enumerate(texts):
            y = height - (len(texts) - n) * line + line / 2
            pen.text((_GAP + k * (wide + _GAP), y), text, _INK, font, anchor="lm")
    return np.asarray(image, np.uint8)


def _caption(text: str, width: int) -> Pixels:
    font = typeface(_TEXT)
    texts = _wrapped(text, font, width - 2 * _GAP)
    line = round(1.4 * _TEXT)
    image = Image.new("RGB", (width, len(texts) * line + 6), "white")
    pen = ImageDraw.Draw(image)
    pen.line((_GAP, 1, width - _GAP, 1), _BACK, 2)
    for n, said in enumerate(texts):
        pen.text((_GAP, 4 + n * line + line / 2), said, _SOFT, font, anchor="lm")
    return np.asarray(image, np.uint8)


def _row(tiles: Sequence[_Tile], wide: int, width: int) -> Pixels:
    font = typeface(_TEXT)
    high = max(t.pixels.shape[0] for t in tiles if t.pixels is not None)
    image = Image.new("RGB", (width, high + round(1.8 * _TEXT)), "white")
    pen = ImageDraw.Draw(image)
    for k, tile in enumerate(tiles):
        x = _GAP + k * (wide + _GAP)
        if tile.pixels is None:
            pen.rectangle((x, 0, x + wide - 1, high - 1), _BACK)
            pen.text((x + wide / 2, high / 2), "no prediction", _SOFT, font, anchor="mm")
        else:
            image.paste(Image.fromarray(tile.pixels), (x, 0))
        pen.text((x, high + 0.8 * _TEXT), tile.below, _INK, font, anchor="lm")
    return np.asarray(image, np.uint8)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Break a text into lines of at most ``width`` pixels: at blanks, or within a word that is longer."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        lines += [""] if lines[-1] else []
        for letter in word:
            if font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines
