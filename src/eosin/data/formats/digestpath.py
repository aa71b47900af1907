"""DigestPath 2019: colon lesions, cut by random crops as IKD-MIL does.

Reads ``tissue-train-pos-v1/*.jpg`` with ``*_mask.jpg`` beside them, and ``tissue-train-neg/*.jpg``. Masks are JPEG, so
they are cut at 128. The slide is what stands in a name before ``-lv1-x-y-w-h``; all images of a slide are in one split,
where the paper deals single images.

A crop is a square of ``crop`` pixels, or of the shorter side of a smaller image, scaled to ``tile`` pixels. Positive
crops hold more than 5 % lesion and are drawn evenly from all places where that is so, ``crops`` of each image with a
mask (``test_crops`` for validation and test). Negative crops come from the images without lesions, evenly over these:
``negatives`` for each positive one in training, one for one elsewhere. No place is drawn twice, so that an image of the
size of a crop gives one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from eosin.core.artifact import atomic_folder
from eosin.core.classes import Classes, Tissue
from eosin.core.errors import EosinError
from eosin.data.dataset import Row, write_dataset
from eosin.data.formats._common import MIN_FRACTION, images_below, in_threads, present, safe_id, three_ways
from eosin.data.formats._slides import write_patch
from eosin.slides.image import read_grey, read_rgb

Array = np.ndarray

DESCRIPTION = "DigestPath 2019 colon images with JPEG masks: random crops, lesion against the rest, as IKD-MIL"

CLASSES = Classes(tissues=(Tissue(name="rest", colour=(0, 130, 200)), Tissue(name="lesion", colour=(245, 130, 48))))
CUT = 128
MPP = 0.5  # of the images, 20x; nobody says it more exactly
CITATION = (
    "Q. Da et al., DigestPath: A benchmark dataset with challenge review, Medical Image Analysis 80 (2022) 102485"
)

_SLIDE = re.compile(r"(.+?)-lv\d+(-\d+)+[a-z]?$")
_SPLITS = ("train", "val", "test")


class Options(BaseModel):
    """How crops are drawn and slides are split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop: int = Field(default=1536, ge=1, description="side of a crop in pixels of the image")
    tile: int = Field(default=256, ge=1, description="side of the scaled crop in pixels")
    crops: int = Field(default=40, ge=1, description="crops of each positive training image")
    test_crops: int = Field(default=29, ge=1, description="crops of each positive image for validation and test")
    negatives: float = Field(default=2.0, ge=0, description="negative crops for each positive one, in training")
    val_fraction: float = Field(default=0.1, ge=0, lt=1, description="share for validation, by slide")
    test_fraction: float = Field(default=0.1, ge=0, lt=1, description="share for the test, by slide")
    seed: int = Field(default=0, ge=0, description="of split and crops")


@dataclass(frozen=True, slots=True)
class _Image:
    path: Path
    mask: Path | None
    slide: str
    split: str = ""


def run(source: Path, dest: Path, options: Options, progress: Callable[[int, int], None]) -> None:
    """Make the data set ``dest``.

    Raises:
        EosinError: if images or masks are missing, cannot be read or differ in size, or no crop holds lesion.
        WrongUse: if the shares leave nothing for training.
    """
    positives, negatives = _images(source, options)
    total = len(positives) + len(negatives)
    with atomic_folder(dest) as folder:
        work = partial(_positive, folder, options)
        parts = list(in_threads(work, positives, lambda done, _: progress(done, total)))
        if not any(parts):
            raise EosinError(f"{source}: no crop holds more than {MIN_FRACTION:.0%} lesion; choose a smaller crop")
        tasks = _dealt(negatives, [row.split for rows in parts for row in rows], options)
        done_before = total - len(tasks)
        parts += in_threads(
            lambda task: _negative(folder, options, *task), tasks, lambda done, _: progress(done_before + done, total)
        )
        write_dataset(
            folder,
            name="digestpath",
            classes=CLASSES,
            rows=sorted((row for rows in parts for row in rows), key=lambda row: _SPLITS.index(row.split)),
            mpp=MPP * options.crop / options.tile,
            licence="signed agreement, no commercial use",
            citation=CITATION,
            tag_rule=MIN_FRACTION,
        )


def _images(source: Path, options: Options) -> tuple[list[_Image], list[_Image]]:
    """Positive and negative images with their splits; those of a slide are in one, whichever they are."""
    found: dict[bool, list[_Image]] = {True: [], False: []}
    files = images_below(source)
    masks = {path.with_name(path.name.replace("_mask.", ".")): path for path in files if path.stem.endswith("_mask")}
    for path in files:
        if path.stem.endswith("_mask"):
            continue
        slide = _SLIDE.fullmatch(path.stem)
        if slide is None:
            raise EosinError(f"{path}: its name does not end in -lv1-x-y-w-h; keep the names of the release")
        folders = path.relative_to(source).parts[:-1]
        positive = any("pos" in folder for folder in folders)
        if positive and path not in masks:
            raise EosinError(f"{path}: no {path.stem}_mask{path.suffix} beside it; copy it again from its source")
        if not positive and not any("neg" in folder for folder in folders):
            raise EosinError(f"{path}: in no folder tissue-train-pos or tissue-train-neg; keep those of the release")
        found[positive].append(_Image(path, masks.get(path) if positive else None, slide[1]))
    if not found[True]:
        raise EosinError(f"{source}: no images in a folder tissue-train-pos; give the folder that holds it")
    splits: dict[str, str] = {}
    for images in (found[True], found[False]):
        fresh = [image.slide for image in images if image.slide not in splits]
        splits |= three_ways(fresh, options.val_fraction, options.test_fraction, options.seed) if fresh else {}
    placed = [
        [_Image(image.path, image.mask, image.slide, splits[image.slide]) for image in images]
        for images in (found[True], found[False])
    ]
    return placed[0], placed[1]


def _dealt(images: Sequence[_Image], positives: Sequence[str], options: Options) -> list[tuple[_Image, int]]:
    """Negative images and how many crops each gives, as even as can be."""
    tasks = []
    for split in _SPLITS:
        share = options.negatives if split == "train" else 1.0
        wanted, of_split = round(share * positives.count(split)), [image for image in images if image.split == split]
        for at, image in enumerate(of_split):
            count = wanted * (at + 1) // len(of_split) - wanted * at // len(of_split)
            tasks.append((image, count))
    return [task for task in tasks if task[1]]


def _positive(folder: Path, options: Options, image: _Image) -> list[Row]:
    pixels, lesion = _read(image)
    side = min(options.crop, *lesion.shape)
    sums = cv2.integral(lesion).astype(np.int64)
    held = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    possible = np.flatnonzero(held > MIN_FRACTION * side * side)
    count = min(len(possible), options.crops if image.split == "train" else options.test_crops)
    if not count:
        return []
    drawn = possible[_random(image, options).choice(len(possible), size=count, replace=False)]
    places = [divmod(int(at), held.shape[1]) for at in drawn]
    return [_write(folder, options, image, n, pixels, lesion, *place) for n, place in enumerate(places)]


def _negative(folder: Path, options: Options, image: _Image, count: int) -> list[Row]:
    pixels, lesion = _read(image)
    down, across = (length - min(options.crop, *lesion.shape) + 1 for length in lesion.shape)
    drawn = _random(image, options).choice(down * across, size=min(count, down * across), replace=False)
    places = [divmod(int(at), across) for at in drawn]
    return [_write(folder, options, image, n, pixels, lesion, *place) for n, place in enumerate(places)]


def _random(image: _Image, options: Options) -> np.random.Generator:
    """Draws that depend on the image's name and the seed, not on what else is there."""
    return np.random.default_rng([options.seed, *image.path.name.encode()])


def _read(image: _Image) -> tuple[Array, Array]:
    """The pixels, and where there is lesion: uint8 0 or 1."""
    pixels = read_rgb(image.path)
    if image.mask is None:
        return pixels, np.zeros(pixels.shape[:2], np.uint8)
    lesion = (read_grey(image.mask) >= CUT).astype(np.uint8)
    if lesion.shape != pixels.shape[:2]:
        sizes = f"{lesion.shape[1]} x {lesion.shape[0]} px where its image has {pixels.shape[1]} x {pixels.shape[0]}"
        raise EosinError(f"{image.mask}: {sizes}; take both from the same release")
    return pixels, lesion


def _write(
    folder: Path, options: Options, image: _Image, number: int, pixels: Array, lesion: Array, y: int, x: int
) -> Row:
    side, tile = min(options.crop, *lesion.shape), options.tile
    patch = cv2.resize(pixels[y : y + side, x : x + side], (tile, tile), interpolation=cv2.INTER_AREA)
    shares = cv2.resize(lesion[y : y + side, x : x + side] * np.float32(1), (tile, tile), interpolation=cv2.INTER_AREA)
    mask = (shares >= 0.5).astype(np.uint8)
    name = f"{safe_id(image.path.stem)}_{number:03d}"
    row = Row(
        id=name,
        split=image.split,
        image=f"{image.split}/images/{name}.png",
        mask=f"{image.split}/masks/{name}.png",
        tags=present(mask, len(CLASSES), MIN_FRACTION),
        slide=safe_id(image.slide),
        parent=safe_id(image.path.stem),
        origin=image.path.name,
    )
    write_patch(folder, row, np.asarray(patch, np.uint8), mask, CLASSES)
    return row
