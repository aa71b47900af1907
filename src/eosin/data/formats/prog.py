"""ProG, the prostate glands of the RINGS data set: images of 1500 px, cut into crops of 224 px with tags from masks.

Reads ``TRAIN`` and ``TEST``, each with ``IMAGES`` and ``MANUAL GLANDS`` of the same names (``MANUAL TUMOR`` is not
used). The gland paper counts 36,000, 8,244 and 9,756 crops: 36 of each image, 6 x 6 without overlap, and 229 of the 500
test images for validation. Which ones is not published: here they are the first by name (P2 before P10). Masks hold
0 and 1, or 0 and 255. The first field of a name as ``P15_D2_2_7_1.png`` is taken for the patient; nobody says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from eosin.core.artifact import atomic_folder
from eosin.core.errors import EosinError, WrongUse
from eosin.data.dataset import Row, write_dataset
from eosin.data.formats._common import (
    GLANDS,
    MIN_FRACTION,
    image_folder,
    images_below,
    in_threads,
    overlaps,
    partners,
    parts,
    subfolder,
)
from eosin.data.formats._masks import BINARY, BLACK_WHITE, Coding, read_coded
from eosin.data.formats._patches import Picture, grid, write_patches, write_whole

DESCRIPTION = "ProG / RINGS prostate glands: TRAIN and TEST of IMAGES and MANUAL GLANDS, cut into tagged crops"

# The colours are those in which the gland paper shows its masks.
CODING = Coding(GLANDS, palettes=[((68, 0, 83), (254, 230, 35)), BLACK_WHITE], numbers=BINARY)
MPP = 0.934
CITATION = (
    "M. Salvi et al., A hybrid deep learning approach for gland segmentation in prostate histopathological images, "
    "Artificial Intelligence in Medicine 115 (2021) 102076; data: Mendeley Data, doi:10.17632/h8bdwrtnr5.1"
)

_PATIENT = re.compile(r"(P\d+)_")


class Options(BaseModel):
    """How the images are cut and split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tile: int = Field(default=224, ge=16, description="side of a crop in pixels; crops do not overlap")
    border: bool = Field(default=False, description="add a last row and column of crops that meet the border")
    val_images: int = Field(default=229, ge=0, description="test images for validation, the first by name")
    scored: Literal["crops", "whole"] = Field(default="crops", description="what val and test consist of")


@dataclass(frozen=True, slots=True)
class _Image:
    split: str
    image: Path
    mask: Path


def run(source: Path, dest: Path, options: Options, progress: Callable[[int, int], None]) -> None:
    """Make the data set ``dest``.

    Raises:
        EosinError: if a folder or a mask is missing, a mask is not binary, or an image is smaller than a crop.
        WrongUse: if ``val_images`` leaves no test image.
    """
    folders = parts(source)
    for part in ("train", "test"):
        if part not in folders:
            raise EosinError(f"{source}: no folder {part.upper()} in it; give the folder that holds TRAIN and TEST")
    test = _part("test", folders["test"])
    if options.val_images >= len(test):
        raise WrongUse(f"val_images: {options.val_images} of the {len(test)} test images leave none for the test")
    val = [_Image("val", image.image, image.mask) for image in test[: options.val_images]]
    images = [*_part("train", folders["train"]), *val, *test[options.val_images :]]
    with atomic_folder(dest) as folder:
        rows = [row for some in in_threads(partial(_write, folder, options), images, progress) for row in some]
        write_dataset(
            folder,
            name="prog",
            classes=GLANDS,
            rows=rows,
            mpp=MPP,
            licence="CC BY 4.0, as copies of Mendeley Data record h8bdwrtnr5 quote it; look it up there",
            citation=CITATION,
            tag_rule=MIN_FRACTION,
            known=overlaps(rows, "the release's TRAIN and TEST, and the test images by name, share it"),
        )


def _part(split: str, folder: Path) -> list[_Image]:
    images, masks = image_folder(folder), subfolder(folder, "manual glands")
    if images is None or masks is None:
        raise EosinError(f"{folder}: needs subfolders IMAGES and MANUAL GLANDS; copy it again from its source")
    files = images_below(images)
    return [_Image(split, *pair) for pair in zip(files, partners(files, masks), strict=True)]


def _write(folder: Path, options: Options, source: _Image) -> list[Row]:
    found = _PATIENT.match(source.image.name)
    mask = read_coded(source.mask, CODING)
    picture = Picture.of(source.image.stem, source.image, source.mask, mask, found[1] if found else "")
    if source.split != "train" and options.scored == "whole":
        return [write_whole(folder, source.split, picture, GLANDS)]
    places = grid(picture, options.tile, options.tile, options.border)
    return write_patches(folder, source.split, picture, places, options.tile, GLANDS)
