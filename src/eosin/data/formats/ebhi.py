"""EBHI-Seg: colon biopsies of 224 px in six folders of diagnoses; every gland outline becomes gland, all else rest.

Reads ``Normal``, ``Polyp``, ``Low-grade IN``, ``High-grade IN``, ``Serrated adenoma`` and ``Adenocarcinoma``, each with
``image/*.png`` and ``label/*.png`` (0 and 255). Images stay where they are, masks are written with class indices.
Tags are cut from the masks. No split is published: the images are dealt 7:1:2 by seed, those of one case together. The
case is the first field of a name as ``GT2012149-2-400-001.png``; it is taken for the patient, though nobody says so.

Images without a label and labels without an image are left out and listed in ``left-out.txt`` of the data set.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from eosin.core.artifact import atomic_folder, write_text
from eosin.core.errors import EosinError, WrongUse, nearest
from eosin.data.dataset import Row, write_dataset
from eosin.data.formats._common import (
    GLANDS,
    LEFT_OUT,
    MIN_FRACTION,
    Names,
    image_folder,
    images_below,
    in_threads,
    mask_folder,
    present,
    safe_id,
    subfolder,
    three_ways,
)
from eosin.data.formats._masks import BINARY, BLACK_WHITE, Coding, read_coded
from eosin.slides.image import image_size, png_bytes

DESCRIPTION = "EBHI-Seg colon biopsies: six folders of image and label, glands against the rest"

FOLDERS = ("Normal", "Polyp", "Low-grade IN", "High-grade IN", "Serrated adenoma", "Adenocarcinoma")
CODING = Coding(GLANDS, palettes=[BLACK_WHITE], numbers=BINARY)
CITATION = (
    "L. Shi et al., EBHI-Seg: A novel enteroscope biopsy histopathological hematoxylin and eosin image dataset for "
    "image segmentation tasks, Frontiers in Medicine 10 (2023) 1114673"
)

_CASE = re.compile(r"(.+)-\d+-\d+-\d+$")
_SPLITS = ("train", "val", "test")


class Options(BaseModel):
    """Which images are taken and how they are split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folders: Names = Field(default=(), description="these folders alone, as Polyp,Low-grade IN,Serrated adenoma")
    val_fraction: float = Field(default=0.1, ge=0, lt=1, description="share for validation, by case")
    test_fraction: float = Field(default=0.2, ge=0, lt=1, description="share for the test, by case")
    seed: int = Field(default=0, ge=0, description="of the split")


@dataclass(frozen=True, slots=True)
class _Pair:
    name: str
    image: Path
    mask: Path
    case: str


def run(source: Path, dest: Path, options: Options, progress: Callable[[int, int], None]) -> None:
    """Make the data set ``dest``.

    Raises:
        EosinError: if a folder is missing, or a label is not binary or has another size than its image.
        WrongUse: if ``folders`` names another folder, or the shares leave nothing for training.
    """
    pairs, alone = _pairs(source, options)
    splits = _splits(pairs, options)
    with atomic_folder(dest) as folder:
        rows = list(in_threads(partial(_row, folder, splits), pairs, progress))
        if alone:
            write_text(folder / LEFT_OUT, "".join(f"{path}\n" for path in alone))
        write_dataset(
            folder,
            name="ebhi",
            classes=GLANDS,
            rows=sorted(rows, key=lambda row: _SPLITS.index(row.split)),
            mpp=None,
            licence="CC BY 4.0",
            citation=CITATION,
            tag_rule=MIN_FRACTION,
        )


def _pairs(source: Path, options: Options) -> tuple[list[_Pair], list[Path]]:
    """Images with their labels, and the files that have no partner."""
    for name in options.folders:
        if name not in FOLDERS:
            raise WrongUse(f"folders: EBHI-Seg has no {name!r}{nearest(name, list(FOLDERS))}")
    if not source.is_dir():
        raise EosinError(f"{source}: is no folder; give the folder that holds the six of EBHI-Seg")
    root = source
    if subfolder(source, *_spelt(FOLDERS)) is None:
        root = subfolder(source, "ebhi seg") or source
    pairs: list[_Pair] = []
    alone: list[Path] = []
    for name in options.folders or FOLDERS:
        folder = subfolder(root, *_spelt([name]))
        if folder is None:
            raise EosinError(f"{root}: no folder {name!r} in it; give the folder that holds the six of EBHI-Seg")
        images, masks = image_folder(folder), mask_folder(folder)
        if images is None or masks is None:
            raise EosinError(f"{folder}: needs subfolders image and label; copy it again from its source")
        labels = {path.stem: path for path in images_below(masks)}
        for image in images_below(images):
            mask = labels.pop(image.stem, None)
            if mask is None:
                alone.append(image)
                continue
            found = _CASE.match(image.stem)
            pairs.append(_Pair(safe_id(f"{name}_{image.stem}"), image, mask, found[1] if found else ""))
        alone += labels.values()
    return pairs, alone


def _spelt(names: Sequence[str]) -> list[str]:
    """Folder names as :func:`subfolder` compares them."""
    return [name.lower().replace("-", " ") for name in names]


def _splits(pairs: Sequence[_Pair], options: Options) -> dict[str, str]:
    """The split of each item; all images of a case are in one."""
    groups = [pair.case or pair.name for pair in pairs]
    place = three_ways(groups, options.val_fraction, options.test_fraction, options.seed)
    return {pair.name: place[group] for pair, group in zip(pairs, groups, strict=True)}


def _row(folder: Path, splits: dict[str, str], pair: _Pair) -> Row:
    mask, size = read_coded(pair.mask, CODING), image_size(pair.image)
    if mask.shape != size:
        sizes = f"{mask.shape[1]} x {mask.shape[0]} px where its image has {size[1]} x {size[0]}"
        raise EosinError(f"{pair.mask}: {sizes}; take both from the same release")
    split = splits[pair.name]
    name = f"{split}/masks/{pair.name}.png"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(png_bytes(mask, GLANDS))
    return Row(
        id=pair.name,
        split=split,
        image=str(pair.image),
        mask=name,
        patient=pair.case,
        tags=present(mask, len(GLANDS), MIN_FRACTION),
        origin=pair.image.name,
    )
