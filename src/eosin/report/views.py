"""Views: what the learners of a run showed of their inside, drawn beside image, truth and predictions.

Nothing here knows a method: the maps are named arrays in ``views/<step>/<split>``, as ``Learner.views`` offered them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosin.core.classes import Classes, Colour
from eosin.report.figures import fitted, tinted
from eosin.report.gallery import Item, Shown, legend_of, line_of, row, shown, tags_note
from eosin.report.markup import Safe, absent, el, number, picture, table
from eosin.report.prototypes import Looks, looks_at
from eosin.report.reading import Record
from eosin.slides.draw import Pixels
from eosin.slides.image import read_mask, read_rgb

_RED, _BLUE, _INK = (186, 32, 44), (28, 84, 190), (92, 58, 153)

Maps = Mapping[str, NDArray[Any]]


def views(record: Record) -> list[tuple[str, Safe]]:
    """Each step that has views of the headline's split, and what they look like, in the order of the steps."""
    if record.headline is None:
        return []
    split = str(record.headline["split"])
    files = {step.name: _files(record, step.name, split) for step in record.steps}
    if not any(files.values()):
        return []
    seen = shown(record)
    return [(step, _drawn(step, found, seen)) for step, found in files.items() if found]


def _drawn(step: str, files: Mapping[str, Path], seen: Shown | Safe) -> Safe:
    """A line of pictures for each class, and one for the views that are of no class, item by item."""
    if isinstance(seen, Safe):
        return seen
    maps = {item.name: _read(files[item.name]) for item in seen.found if item.name in files}
    if not maps:
        return absent(f"None of the items in views/{step}/{seen.split} is still there.")
    signed = _signed(maps.values())
    rows = [
        row(seen, at, _lines(item, maps[item.name], seen.dataset.classes, signed))
        for at, item in sorted(enumerate(seen.found), key=lambda one: one[1].index)
        if item.name in maps
    ]
    said = (
        f"What {step} shows of its inside, in {len(rows)} items of {seen.split}, the same for every run on these data. "
        "A map with values below 0 is drawn around 0: blue below, red above, white at 0; others from white at 0 to "
        "full colour. The number below a map is where its colour is full: the largest of all classes in this item."
    )
    parts = [el("p", said, class_="soft"), legend_of(seen.dataset.classes), el("div", rows, class_="gallery wide")]
    return Safe("".join(parts) + _prototypes(maps, seen) + tags_note(seen.columns))


def _prototypes(maps: Mapping[str, Maps], seen: Shown) -> str:
    """A table of what prototypes look at in the items with truth; nothing where a learner has none."""
    found: dict[int, list[Looks]] = {}
    for item in seen.found:
        if item.truth is not None and item.name in maps:
            for k, one in looks_at(maps[item.name], read_mask(item.truth)).items():
                found.setdefault(k, []).append(one)
    if not found:
        return ""
    head = ("Class", "Images", "Covered by any", "Covered by each", "Mean IoU of two")
    rows = []
    for k, many in sorted(found.items()):
        means = (float(np.mean(each)) for each in zip(*map(astuple, many), strict=True))
        rows.append((seen.dataset.classes.names[k], len(many), *map(number, means)))
    said = (
        "What the prototypes of a class look at, where it is: the share of its pixels at which a map, at least one or "
        "on average, is in the upper half of its range, and how much two of these halves overlap in the whole image."
    )
    return table("Prototypes", head, rows) + el("p", said, class_="soft")


def _files(record: Record, step: str, split: str) -> dict[str, Path]:
    return {path.stem: path for path in sorted((record.folder / "views" / step / split).glob("*.npz"))}


def _read(file: Path) -> dict[str, NDArray[Any]]:
    with np.load(file) as kept:
        return {name: kept[name] for name in kept.files}


def _signed(items: Iterable[Maps]) -> set[str]:
    """The views with a value below 0 in any item: all items of a view are drawn alike."""
    return {name for maps in items for name, view in maps.items() if view.ndim == 3 and float(view.min()) < 0}


def _lines(item: Item, maps: Maps, classes: Classes, signed: set[str]) -> list[Safe]:
    """A class below the other, views side by side; then those of no class."""
    by_class = {view: found for view, found in maps.items() if found.ndim == 3 and len(found) > 1}
    lines = [
        [_map(item.name, view, found, k, view in signed, classes) for view, found in by_class.items()]
        for k in range(len(classes))
    ]
    rgb = read_rgb(item.image)
    lines.append(
        [
            _indices(item.name, view, found, rgb, classes)
            if found.ndim == 2
            else _map(item.name, view, found, None, view in signed, classes)
            for view, found in maps.items()
            if view not in by_class
        ]
    )
    most = max(map(len, lines))
    return [line_of(line, most) for line in lines if line]


def _map(name: str, view: str, maps: NDArray[Any], k: int | None, signed: bool, classes: Classes) -> Safe:
    """One float map of an item: of class ``k``, or of none."""
    values = np.asarray(maps[k or 0], np.float32)
    most = float(np.abs(maps).max())
    colour: Colour = _INK if k is None else classes.colours[k]
    of = view if k is None else f"{view}: {classes.names[k]}"
    told = f"View {of} of {name}: from {number(float(values.min()))} to {number(float(values.max()))}"
    limit = ("\N{PLUS-MINUS SIGN}" if signed else "") + f"{most:.3g}"
    return picture(fitted(shaded(values, most, colour, signed)), told, (of, " ", el("small", limit)))


def _indices(name: str, view: str, mask: NDArray[Any], rgb: Pixels, classes: Classes) -> Safe:
    """One map of class indices over its item."""
    small = fitted(rgb)
    height, width = small.shape[:2]
    rows = (np.arange(height) * mask.shape[0]) // height
    columns = (np.arange(width) * mask.shape[1]) // width
    drawn = tinted(small, np.asarray(mask[rows[:, None], columns], np.uint8), classes)
    return picture(drawn, f"View {view} of {name}", view)


def shaded(values: NDArray[np.float32], most: float, colour: Colour, signed: bool) -> Pixels:
    """Colour a map.

    Args:
        values: float ``[H, W]``.
        most: the absolute value at which the colour is full; 0 gives white.
        colour: of values above 0 where the map is not signed.
        signed: blue below 0 and red above instead.

    Returns:
        uint8 ``[H, W, 3]``, white where the value is 0.
    """
    share = np.clip(values / most if most else np.zeros_like(values), -1, 1)[..., None]
    above, below = np.array(_RED if signed else colour), np.array(_BLUE)
    full = np.where(share < 0, below, above)
    return np.asarray(np.round(255 + np.abs(share) * (full - 255)), np.uint8)
