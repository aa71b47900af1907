"""GlaS (Warwick-QU): colon glands, cut into patches with tags from the masks, as OEEM does.

Reads the official files (``train_1.bmp``, ``train_1_anno.bmp``, ``Grade.csv``) and the folder form
(``labels.csv``, ``train/images/train_1.jpg``, ``train/masks/train_1.png``). The official masks number the glands; a
pixel of any gland is class 1, all else class 0. Training images become patches with one tag per class that covers more
than 5 % of the patch; validation images are whole and of patients that no training patch is of. The official test
images stay whole: the split ``test`` is test A, ``testb`` is test B where the source has it.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from eosin.core.artifact import atomic_folder
from eosin.core.classes import Classes, Tissue
from eosin.core.errors import EosinError, WrongUse
from eosin.data.dataset import Row, write_dataset
from eosin.data.formats._common import Names, held_out, in_threads, natural
from eosin.slides.image import png_bytes, read_mask, read_rgb

DESCRIPTION = "GlaS colon glands: official .bmp files, or folders of images and masks; cut into tagged patches"

CLASSES = Classes(tissues=(Tissue(name="rest", colour=(0, 130, 200)), Tissue(name="gland", colour=(245, 130, 48))))
MPP = 0.62005
MIN_FRACTION = 0.05
LICENCE = "GlaS contest terms: research only, no commercial use, cite both papers"
CITATION = (
    "K. Sirinukunwattana et al., Gland segmentation in colon histology images: The GlaS challenge contest, Medical "
    "Image Analysis 35 (2017) 489-502; K. Sirinukunwattana, D. R. J. Snead, N. M. Rajpoot, A stochastic polygons "
    "model for glandular structures in colon histology images, IEEE Transactions on Medical Imaging 34 (2015)"
)

# The official parts, as the files name them, and the splits they become; some of ``train`` goes to ``val``.
PARTS = {"train": "train", "testA": "test", "testB": "testb"}

Array = np.ndarray


class Options(BaseModel):
    """How GlaS is cut and split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tile: int = Field(default=112, ge=16, description="side of a training patch in pixels")
    stride: int = Field(default=56, ge=1, description="step between patches; the last row and column meet the border")
    val_fraction: float = Field(default=0.2, ge=0, lt=1, description="share of the training images, by patient")
    val_patients: Names = Field(default=(), description="these patients instead of a share, as 1,5,13")
    seed: int = Field(default=0, ge=0, description="which patients are held out")


@dataclass(frozen=True, slots=True)
class _Image:
    """One official image."""

    name: str
    split: str
    patient: str
    image: Path
    mask: Path


def run(source: Path, dest: Path, options: Options, progress: Callable[[int, int], None]) -> None:
    """Make the data set ``dest``.

    Raises:
        EosinError: if a file is missing or damaged, or an image is smaller than a patch.
        WrongUse: if ``val_patients`` names a patient without training images, or the stride leaves gaps.
    """
    images = sorted(_images(source), key=lambda image: natural(Path(image.name)))
    val = _validation(images, options)
    with atomic_folder(dest) as folder:
        for split in {"val", *(image.split for image in images)}:
            for kind in ("images", "masks"):
                (folder / split / kind).mkdir(parents=True)
        rows = [row for some in in_threads(partial(_write, folder, val, options), images, progress) for row in some]
        write_dataset(
            folder,
            name="glas",
            classes=CLASSES,
            rows=rows,
            mpp=MPP,
            licence=LICENCE,
            citation=CITATION,
            tag_rule=MIN_FRACTION,
            known={"patient_overlap": "official split"} if _overlap(images) else None,
        )


def _images(source: Path) -> list[_Image]:
    """List the images of either form."""
    labels = source / "labels.csv"
    if labels.is_file():
        return [_of_folder(labels, record) for record in _records(labels, ("name", "split", "patient"))]
    tables = [source / "Grade.csv", *sorted(source.glob("*/Grade.csv"))]
    grades = next((table for table in tables if table.is_file()), None)
    if grades is None:
        raise EosinError(f"{source}: neither Grade.csv nor labels.csv in it; give the folder of the GlaS files")
    return [_official(grades, record) for record in _records(grades, ("name", "patient ID"))]


def _records(table: Path, needed: tuple[str, ...]) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8-sig") as file:
        lines = [[cell.strip() for cell in line] for line in csv.reader(file) if line]
    header = lines[0] if lines else []
    for column in needed:
        if column not in header:
            raise EosinError(f"{table}: line 1: column {column!r} is missing; take the table that came with the data")
    return [dict(zip(header, line, strict=False)) for line in lines[1:] if any(line)]


def _split(table: Path, name: str, part: str) -> str:
    if part not in PARTS:
        raise EosinError(f"{table}: {name!r} is in {part!r}, which is none of {', '.join(PARTS)}; correct the line")
    return PARTS[part]


def _of_folder(table: Path, record: dict[str, str]) -> _Image:
    name, part = record["name"], table.parent / record["split"]
    files = [part / "images" / f"{name}{suffix}" for suffix in (".jpg", ".png", ".bmp")]
    image = next((file for file in files if file.is_file()), files[0])
    split = _split(table, name, record["split"])
    return _Image(name, split, record["patient"], image, part / "masks" / f"{name}.png")


def _official(table: Path, record: dict[str, str]) -> _Image:
    name = record["name"]
    files = table.parent / f"{name}.bmp", table.parent / f"{name}_anno.bmp"
    return _Image(name, _split(table, name, name.partition("_")[0]), record["patient ID"], *files)


def _validation(images: list[_Image], options: Options) -> set[str]:
    """The patients whose training images are held out."""
    patients = [image.patient for image in images if image.split == "train"]
    for patient in options.val_patients:
        if patient not in patients:
            known = ", ".join(sorted(set(patients), key=lambda name: natural(Path(name))))
            raise WrongUse(f"val_patients: no training image is of patient {patient!r} (there are: {known})")
    return set(options.val_patients) or held_out(patients, options.val_fraction, options.seed)


def _overlap(images: list[_Image]) -> bool:
    """Whether a patient is in two official parts."""
    return len({(image.patient, image.split) for image in images}) > len({image.patient for image in images})


def _write(folder: Path, val: set[str], options: Options, source: _Image) -> list[Row]:
    """Write the patches of a training image, or one whole image; return their rows."""
    pixels, mask = read_rgb(source.image), (read_mask(source.mask) > 0).astype(np.uint8)
    if pixels.shape[:2] != mask.shape:
        sizes = f"{mask.shape[1]} x {mask.shape[0]} px where its image has {pixels.shape[1]} x {pixels.shape[0]}"
        raise EosinError(f"{source.mask}: {sizes}; take both from the same release")
    if source.split == "train" and source.patient not in val:
        return _cut(folder, options, source, pixels, mask)
    split = "val" if source.split == "train" else source.split
    image_name = f"{split}/images/{source.name}{source.image.suffix}"
    shutil.copyfile(source.image, folder / image_name)
    mask_name = f"{split}/masks/{source.name}.png"
    (folder / mask_name).write_bytes(png_bytes(mask, CLASSES))
    row = Row(
        id=source.name,
        split=split,
        image=image_name,
        mask=mask_name,
        patient=source.patient,
        tags=_tags(mask),
        origin=source.image.name,
    )
    return [row]


def _cut(folder: Path, options: Options, source: _Image, pixels: Array, mask: Array) -> list[Row]:
    from eosin.core.tiling import origins  # needs torch: not while formats are listed

    side = options.tile
    if side > min(mask.shape):
        sizes = f"{mask.shape[1]} x {mask.shape[0]} px are less than a patch of {side} px"
        raise EosinError(f"{source.image}: {sizes}; choose a smaller tile")
    rows = []
    for y in origins(mask.shape[0], side, options.stride):
        for x in origins(mask.shape[1], side, options.stride):
            name = f"{source.name}_{y:04d}_{x:04d}"
            patch = mask[y : y + side, x : x + side]
            image_name, mask_name = f"train/images/{name}.png", f"train/masks/{name}.png"
            (folder / image_name).write_bytes(png_bytes(pixels[y : y + side, x : x + side]))
            (folder / mask_name).write_bytes(png_bytes(patch, CLASSES))
            row = Row(
                id=name,
                split="train",
                image=image_name,
                mask=mask_name,
                patient=source.patient,
                tags=_tags(patch),
                parent=source.name,
                x=x,
                y=y,
                origin=source.image.name,
            )
            rows.append(row)
    return rows


def _tags(mask: Array) -> tuple[int, ...]:
    shares = np.bincount(mask.ravel(), minlength=len(CLASSES)) / mask.size
    return tuple(int(share > MIN_FRACTION) for share in shares)
