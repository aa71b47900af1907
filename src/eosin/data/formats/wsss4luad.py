"""WSSS4LUAD: lung adenocarcinoma with tumour, stroma and normal tissue; the challenge's folders or the public part.

The official folders are ``1.training`` (labels in the names), ``2.validation`` and ``3.testing`` (``img``, ``mask``,
``background-mask``), or however else they are spelt. A background mask, where there is one, overrules the mask: what
is white there is not scored. Images stay where they are; masks are written.

The public part is ``test/images``, ``test/masks`` and ``test/labels.csv`` with a column ``dev_split``. The training
set of the challenge is not in it, so that tags come from masks: ``val`` of ``dev_split`` becomes the split ``test``, a
share of the others ``val``, both whole, and the rest is cut into patches. Its four training examples are left out:
they have other sizes than the patches and no masks, so that an upper bound could not be trained beside them.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from eosin.core.artifact import atomic_folder
from eosin.core.classes import Classes, Tissue
from eosin.core.errors import EosinError, WrongUse
from eosin.data.dataset import Row, write_dataset
from eosin.data.formats._common import MIN_FRACTION, held_out, in_threads
from eosin.data.formats._masks import Coding, read_coded
from eosin.data.formats._patches import BOTH_WAYS, Cut, Picture, grid, write_patches, write_whole
from eosin.data.formats._release import Release, placed_source, write_release

DESCRIPTION = "WSSS4LUAD lung adenocarcinoma: the challenge's folders, or its public part cut into tagged patches"

CLASSES = Classes(
    tissues=(
        Tissue(name="tumor", colour=(0, 64, 128)),
        Tissue(name="stroma", colour=(64, 128, 0)),
        Tissue(name="normal", colour=(243, 152, 0)),
    ),
    ignore=3,
)
CODING = Coding(CLASSES, palettes=[(*CLASSES.colours, (255, 255, 255))])
RELEASE = Release(
    name="wsss4luad",
    coding=CODING,
    mpp=None,  # 10x, about 1 um/px: nobody prints the number
    licence="released for research by the organisers of WSSS4LUAD, no licence text known: research only",
    citation=(
        "C. Han et al., WSSS4LUAD: Grand challenge on weakly-supervised tissue semantic segmentation for lung "
        "adenocarcinoma, arXiv:2204.06455 (2022); C. Han et al., Multi-layer pseudo-supervision for histopathology "
        "tissue semantic segmentation using patch-level classification labels, Medical Image Analysis 80 (2022) 102487"
    ),
    source_of=placed_source,
)
SPLITS = ("train", "val", "test", "whole")


class Options(BaseModel):
    """How the public part is cut and split; the official folders take none of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tile: int = Field(default=112, ge=16, description="side of a training patch in pixels")
    stride: int = Field(default=112, ge=1, description="step between patches; the last row and column meet the border")
    cut: Cut = Field(default="train", description="all: each image as patches and whole, for folds")
    val_fraction: float = Field(default=0.2, ge=0, lt=1, description="share of the development images, by image")
    seed: int = Field(default=0, ge=0, description="which images are held out")


def run(source: Path, dest: Path, options: Options, progress: Callable[[int, int], None]) -> None:
    """Make the data set ``dest``.

    Raises:
        EosinError: if a file is missing or damaged, a mask or a label says something else than the three classes, or
            an image is smaller than a patch.
        WrongUse: if the official folders are to be cut, or the stride leaves gaps.
    """
    table = source / "test" / "labels.csv"
    if not table.is_file():
        _refuse_options(options)
        write_release(source, dest, RELEASE, progress)
        return
    work = _public(table, options)
    with atomic_folder(dest) as folder:
        rows = [row for some in in_threads(partial(_write, folder, options), work, progress) for row in some]
        write_dataset(
            folder,
            name=RELEASE.name,
            classes=CLASSES,
            rows=sorted(rows, key=lambda row: SPLITS.index(row.split)),
            mpp=RELEASE.mpp,
            licence=RELEASE.licence,
            citation=RELEASE.citation,
            tag_rule=MIN_FRACTION,
            known={"parent_overlap": BOTH_WAYS} if options.cut == "all" else None,
        )


def _refuse_options(options: Options) -> None:
    if options.model_fields_set:
        name = min(options.model_fields_set)
        raise WrongUse(f"{name}: the challenge's folders are taken as they are, only the public part is cut; leave it")


@dataclass(frozen=True, slots=True)
class _Image:
    """An image of the public part; ``split`` is ``train`` where it is cut, ``whole`` where it is both."""

    split: str
    image: Path
    mask: Path


def _public(table: Path, options: Options) -> list[_Image]:
    """The images of the public part in the order of its table."""
    with table.open(newline="", encoding="utf-8-sig") as file:
        records = [(record.get("name") or "", record.get("dev_split")) for record in csv.DictReader(file)]
    for name, part in records:
        if part not in ("train", "val"):
            raise EosinError(f"{table}: dev_split of image {name!r} is {part!r}; it must be train or val")
    develop = [name for name, part in records if part == "train"]
    val = held_out(develop, options.val_fraction, options.seed) if options.cut == "train" else set()

    def split(name: str, part: str | None) -> str:
        if options.cut == "all":
            return "whole"
        return "test" if part == "val" else "val" if name in val else "train"

    folders = table.parent / "images", table.parent / "masks"
    return [_Image(split(*record), *(folder / f"{record[0]}.png" for folder in folders)) for record in records]


def _write(folder: Path, options: Options, source: _Image) -> list[Row]:
    """Write the patches of an image, the whole image, or both; return their rows."""
    picture = Picture.of(source.image.stem, source.image, source.mask, read_coded(source.mask, CODING))
    rows = []
    if source.split in ("train", "whole"):
        places = grid(picture, options.tile, options.stride)
        rows = write_patches(folder, "train", picture, places, options.tile, CLASSES)
    if source.split != "train":
        whole = write_whole(folder, source.split, picture, CLASSES)
        # No patient is known: as its own parent, an image is seen to be in two splits, as patches and whole.
        rows.append(replace(whole, parent=picture.name) if source.split == "whole" else whole)
    return rows
