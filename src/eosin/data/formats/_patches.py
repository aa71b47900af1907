"""Images with truth on their way into a data set: kept whole, or cut into patches with tags from their masks."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from eosin.core.classes import Classes
from eosin.core.errors import EosinError
from eosin.data.contract import Objects
from eosin.data.dataset import Row
from eosin.data.formats._common import MIN_FRACTION, present
from eosin.slides.image import png_bytes, read_rgb

Array = np.ndarray

Cut = Literal["train", "all"]
"""Which images become patches: those of ``train``, or each one, which then stays whole too, for folds."""

BOTH_WAYS = "every image is here as patches and whole; make folds with eosin data split"


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An image and its truth.

    Attributes:
        name: its id when whole, and the parent of its patches.
        file: where it came from.
        pixels: uint8 ``[H, W, 3]``.
        mask: uint8 ``[H, W]``, class indices.
        patient: empty where unknown.
    """

    name: str
    file: Path
    pixels: Array
    mask: Array
    patient: str = ""

    @classmethod
    def of(cls, name: str, file: Path, mask_file: Path, mask: Array, patient: str = "") -> Picture:
        """Read the image that belongs to a mask.

        Raises:
            EosinError: if it cannot be read or has another size.
        """
        pixels = read_rgb(file)
        if pixels.shape[:2] != mask.shape:
            sizes = f"{mask.shape[1]} x {mask.shape[0]} px where its image has {pixels.shape[1]} x {pixels.shape[0]}"
            raise EosinError(f"{mask_file}: {sizes}; take both from the same release")
        return cls(name, file, pixels, mask, patient)


def grid(picture: Picture, side: int, stride: int, border: bool = True) -> list[tuple[int, int]]:
    """Where patches begin, as (y, x) in row-major order.

    Args:
        picture: the image.
        side: of a patch in pixels.
        stride: step between patches.
        border: let a last row and column meet the border; else what is left over there is not cut.

    Raises:
        EosinError: if the image is smaller than a patch.
        WrongUse: if the stride leaves gaps.
    """
    from eosin.core.tiling import origins  # needs torch: not while formats are listed

    height, width = picture.mask.shape
    if side > min(height, width):
        sizes = f"{width} x {height} px are less than a patch of {side} px"
        raise EosinError(f"{picture.file}: {sizes}; choose a smaller tile")
    ys, xs = (
        [start for start in origins(length, side, stride) if border or start % stride == 0]
        for length in (height, width)
    )
    return [(y, x) for y in ys for x in xs]


def write_patches(
    folder: Path, split: str, picture: Picture, places: Sequence[tuple[int, int]], side: int, classes: Classes
) -> list[Row]:
    """Write the patches that hold a class, with their masks.

    Returns:
        Their rows; a patch without any class, all white, is left out.
    """
    (folder / split / "images").mkdir(parents=True, exist_ok=True)
    (folder / split / "masks").mkdir(exist_ok=True)
    rows = []
    for y, x in places:
        patch = picture.mask[y : y + side, x : x + side]
        tags = present(patch, len(classes), MIN_FRACTION)
        if not any(tags):
            continue
        name = f"{picture.name}_{y:04d}_{x:04d}"
        image_name, mask_name = f"{split}/images/{name}.png", f"{split}/masks/{name}.png"
        (folder / image_name).write_bytes(png_bytes(picture.pixels[y : y + side, x : x + side]))
        (folder / mask_name).write_bytes(png_bytes(patch, classes))
        row = Row(
            id=name,
            split=split,
            image=image_name,
            mask=mask_name,
            patient=picture.patient,
            tags=tags,
            parent=picture.name,
            x=x,
            y=y,
            origin=picture.file.name,
        )
        rows.append(row)
    return rows


def write_whole(folder: Path, split: str, picture: Picture, classes: Classes) -> Row:
    """Copy a whole image and write its mask, in the classes' colours."""
    image_name, mask_name = f"{split}/images/{picture.name}{picture.file.suffix}", f"{split}/masks/{picture.name}.png"
    for name in (image_name, mask_name):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(picture.file, folder / image_name)
    (folder / mask_name).write_bytes(png_bytes(picture.mask, classes))
    return Row(
        id=picture.name,
        split=split,
        image=image_name,
        mask=mask_name,
        patient=picture.patient,
        tags=present(picture.mask, len(classes), MIN_FRACTION),
        origin=picture.file.name,
    )


def numbered(instances: Array) -> Array:
    """Number objects 1..n in raster order of their first pixels, ``[H, W]``; 0 stays outside."""
    values, first, inverse = np.unique(instances, return_index=True, return_inverse=True)
    order = np.argsort(np.where(values == 0, -1, first), kind="stable")
    numbers = np.empty(len(values), np.uint8)
    numbers[order] = np.arange(len(values)) if values[0] == 0 else np.arange(1, len(values) + 1)
    return numbers[inverse].reshape(instances.shape)


def write_objects(folder: Path, objects: Objects, name: str, instances: Array) -> None:
    """Write the numbered objects of an image with truth, where :meth:`Dataset.object_path` looks for them."""
    (folder / objects.folder).mkdir(exist_ok=True)
    (folder / objects.folder / f"{name}.png").write_bytes(png_bytes(numbered(instances)))
