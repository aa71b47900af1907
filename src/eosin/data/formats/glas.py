"""GlaS (Warwick-QU): colon glands, cut into patches with tags from the masks, as OEEM does.

Reads the official files (``train_1.bmp``, ``train_1_anno.bmp``, ``Grade.csv``) and the folder form
(``labels.csv``, ``train/images/train_1.jpg``, ``train/masks/train_1.png``). The official masks number the glands; a
pixel of any gland is class 1, all else class 0. Training images become patches with one tag per class that covers more
than 5 % of the patch; validation images are whole and of patients that no training patch is of. The official test
images stay whole: the split ``test`` is test A, ``testb`` is test B where the source has it. The images of one grade,
benign or malignant, can be made a data set of their own.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from eosin.core.artifact import atomic_folder
from eosin.core.errors import EosinError, WrongUse
from eosin.data.contract import Objects
from eosin.data.dataset import Row, write_dataset
from eosin.data.formats._common import GLANDS, MIN_FRACTION, Names, held_out, in_threads, natural
from eosin.data.formats._masks import BLACK_WHITE, Coding, read_coded
from eosin.data.formats._patches import BOTH_WAYS, Cut, Picture, grid, write_objects, write_patches, write_whole
from eosin.slides.image import read_mask

DESCRIPTION = "GlaS colon glands: official .bmp files, or folders of images and masks; cut into tagged patches"

MPP = 0.62005
OBJECTS = Objects(tissue="gland", folder="objects")
# Every number above 0 is a gland; the colours are those of OEEM, which others swap.
CODING = Coding(
    classes=GLANDS,
    palettes=(((64, 128, 0), (0, 64, 128)), BLACK_WHITE),
    numbers=({value: min(value, 1) for value in range(256)},),
)
LICENCE = "GlaS contest terms: research only, no commercial use, cite both papers"
CITATION = (
    "K. Sirinukunwattana et al., Gland segmentation in colon histology images: The GlaS challenge contest, Medical "
    "Image Analysis 35 (2017) 489-502; K. Sirinukunwattana, D. R. J. Snead, N. M. Rajpoot, A stochastic polygons "
    "model for glandular structures in colon histology images, IEEE Transactions on Medical Imaging 34 (2015)"
)

# The official parts, as the files name them, and the splits they become; some of ``train`` goes to ``val``.
PARTS = {"train": "train", "testA": "test", "testB": "testb"}
OFFICIAL_GRADE, GRADE_COLUMN = "grade (GlaS)", "grade_glas"  # of Grade.csv and labels.csv: benign or malignant

Array = np.ndarray


class Options(BaseModel):
    """How GlaS is cut and split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tile: int = Field(default=112, ge=16, description="side of a training patch in pixels")
    stride: int = Field(default=56, ge=1, description="step between patches; the last row and column meet the border")
    cut: Cut = Field(default="train", description="all: each image as patches and whole, for folds")
    val_fraction: float = Field(default=0.2, ge=0, lt=1, description="share of the training images, by patient")
    val_patients: Names = Field(default=(), description="these patients instead of a share, as 1,5,13")
    seed: int = Field(default=0, ge=0, description="which patients are held out")
    grade: Literal["all", "benign", "malignant"] = Field(default="all", description="the images of this grade alone")


@dataclass(frozen=True, slots=True)
class _Image:
    """One official image."""

    name: str
    split: str
    patient: str
    image: Path
    mask: Path
    instances: Path | None
    grade: str


def run(source: Path, dest: Path, options: Options, progress: Callable[[int, int], None]) -> None:
    """Make the data set ``dest``.

    Raises:
        EosinError: if a file is missing or damaged, an image is smaller than a patch, or a grade is asked for and the
            table has none.
        WrongUse: if ``val_patients`` names a patient without training images, or the stride leaves gaps.
    """
    found = sorted(_images(source, options.grade != "all"), key=lambda image: natural(Path(image.name)))
    images = [image for image in found if options.grade in ("all", image.grade)]
    val = _validation(images, options)
    with atomic_folder(dest) as folder:
        rows = [row for some in in_threads(partial(_write, folder, val, options), images, progress) for row in some]
        write_dataset(
            folder,
            name="glas" if options.grade == "all" else f"glas-{options.grade}",
            classes=GLANDS,
            rows=rows,
            mpp=MPP,
            licence=LICENCE,
            citation=CITATION,
            tag_rule=MIN_FRACTION,
            known=_known(images, options),
            objects=OBJECTS if (folder / OBJECTS.folder).is_dir() else None,
        )


def _images(source: Path, graded: bool) -> list[_Image]:
    """List the images of either form; ``graded`` wants the table to say their grades."""
    labels = source / "labels.csv"
    if labels.is_file():
        needed = ("name", "split", "patient", *([GRADE_COLUMN] * graded))
        return [_of_folder(labels, record) for record in _records(labels, needed)]
    tables = [source / "Grade.csv", *sorted(source.glob("*/Grade.csv"))]
    grades = next((table for table in tables if table.is_file()), None)
    if grades is None:
        raise EosinError(f"{source}: neither Grade.csv nor labels.csv in it; give the folder of the GlaS files")
    needed = ("name", "patient ID", *([OFFICIAL_GRADE] * graded))
    return [_official(grades, record) for record in _records(grades, needed)]


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
    mask, numbers = part / "masks" / f"{name}.png", part / "instances"
    instances = numbers / mask.name if numbers.is_dir() else None
    return _Image(name, split, record["patient"], image, mask, instances, record.get(GRADE_COLUMN, ""))


def _official(table: Path, record: dict[str, str]) -> _Image:
    name = record["name"]
    image, numbers = table.parent / f"{name}.bmp", table.parent / f"{name}_anno.bmp"
    split, grade = _split(table, name, name.partition("_")[0]), record.get(OFFICIAL_GRADE, "")
    return _Image(name, split, record["patient ID"], image, numbers, numbers, grade)


def _validation(images: list[_Image], options: Options) -> set[str]:
    """The patients whose training images are held out."""
    if options.cut == "all":
        if options.val_patients:
            raise WrongUse("val_patients: nothing is held out with cut=all; leave it out, make folds with data split")
        return set()
    patients = [image.patient for image in images if image.split == "train"]
    for patient in options.val_patients:
        if patient not in patients:
            known = ", ".join(sorted(set(patients), key=lambda name: natural(Path(name))))
            raise WrongUse(f"val_patients: no training image is of patient {patient!r} (there are: {known})")
    return set(options.val_patients) or held_out(patients, options.val_fraction, options.seed)


def _known(images: list[_Image], options: Options) -> dict[str, str]:
    """What is true of the official split, or of images that are there both ways."""
    if options.cut == "all":
        return {"patient_overlap": BOTH_WAYS}
    overlap = len({(image.patient, image.split) for image in images}) > len({image.patient for image in images})
    return {"patient_overlap": "official split"} if overlap else {}


def _write(folder: Path, val: set[str], options: Options, source: _Image) -> list[Row]:
    """Write the patches of a training image, or one whole image, or both; return their rows."""
    picture = Picture.of(source.name, source.image, source.mask, read_coded(source.mask, CODING), source.patient)
    patched = options.cut == "all" or (source.split == "train" and source.patient not in val)
    rows = []
    if patched:
        places = grid(picture, options.tile, options.stride)
        rows = write_patches(folder, "train", picture, places, options.tile, GLANDS)
    if options.cut == "all" or not patched:
        split = "whole" if options.cut == "all" else "val" if source.split == "train" else source.split
        rows.append(write_whole(folder, split, picture, GLANDS))
        if source.instances is not None:
            write_objects(folder, OBJECTS, source.name, _instances(source.instances, picture))
    return rows


def _instances(file: Path, picture: Picture) -> Array:
    """The numbers of the glands, which must be where the mask has gland."""
    instances = read_mask(file)
    if instances.shape != picture.mask.shape or ((instances > 0) != (picture.mask > 0)).any():
        raise EosinError(f"{file}: its glands are not those of the mask; take both from the same release")
    return instances
