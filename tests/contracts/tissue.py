"""The drawn tissue that every method of the contract suite is run on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from eosin.core.artifact import atomic_folder
from eosin.data.dataset import Dataset, Row, write_dataset
from eosin.data.phantom import CLASSES, PhantomSpec, draw_image, tags_of
from eosin.slides.image import png_bytes, read_mask

# Coarse and well mixed, so that small patches hold several tissues: of one tissue alone there is nothing to segment.
SPEC = PhantomSpec(size=64, mpp=1.0, cooccurrence=0.8, seed=3)
STRIDE = SPEC.size // 2  # patches overlap, so that averaging their maps is put to the test
PATIENTS = {"train": (1, 2, 3, 4), "val": (11, 12), "test": (21, 22)}
UNKNOWN = {0: 1, 7: 2}  # training items and their class of unknown tag


def draw_tissue(folder: Path) -> Path:
    """36 training patches of 64 px that overlap by half, 6 patches to validate, 6 to test, one large image."""
    with atomic_folder(folder) as made:
        (made / "images").mkdir()
        (made / "masks").mkdir()
        rows: list[Row] = []
        for split, patients in PATIENTS.items():
            for patient in patients:
                rows += _patches(made, split, patient)
        rows.append(_item(made, "large", 31, 0, 0, *draw_image(SPEC, (31, 1), 96, 96)))
        for index, unknown in UNKNOWN.items():
            tags = list(rows[index].tags)
            tags[unknown] = None
            rows[index] = Row(**{**{f: getattr(rows[index], f) for f in Row.__slots__}, "tags": tags})
        write_dataset(
            made, name="phantom", classes=CLASSES, rows=rows, mpp=SPEC.mpp, licence="Apache-2.0", citation="drawn"
        )
    return folder


def _patches(folder: Path, split: str, patient: int) -> list[Row]:
    height, step = (2 * SPEC.size, STRIDE) if split == "train" else (3 * SPEC.size, SPEC.size)
    width = 2 * SPEC.size if split == "train" else SPEC.size
    image, mask = draw_image(SPEC, (patient, 1), height, width)
    places = [(y, x) for y in range(0, height - SPEC.size + 1, step) for x in range(0, width - SPEC.size + 1, step)]
    cut = [(y, x, np.s_[y : y + SPEC.size, x : x + SPEC.size]) for y, x in places]
    return [_item(folder, split, patient, y, x, image[square], mask[square]) for y, x, square in cut]


def _item(folder: Path, split: str, patient: int, y: int, x: int, image: np.ndarray, mask: np.ndarray) -> Row:
    name, parent = f"{split}{patient}-{y}-{x}", f"{split}{patient}"
    (folder / "images" / f"{name}.png").write_bytes(png_bytes(np.ascontiguousarray(image)))
    (folder / "masks" / f"{name}.png").write_bytes(png_bytes(np.ascontiguousarray(mask), CLASSES))
    return Row(
        name,
        split,
        f"images/{name}.png",
        f"masks/{name}.png",
        patient=parent,
        tags=tags_of(mask).tolist(),
        slide=parent,
        parent=parent,
        x=x,
        y=y,
        origin="drawn",
    )


def spoiled(data: Path, folder: Path) -> Path:
    """A copy of a data set whose training and test masks are noise; its text files, and so its digest, are the same."""
    with atomic_folder(folder) as made:
        shutil.copytree(data, made, dirs_exist_ok=True)
        rng = np.random.default_rng(0)
        for mask in (*truth(made, "train"), *truth(made, "test")):
            height, width = read_mask(mask).shape
            noise = rng.integers(0, len(CLASSES), (height, width), np.uint8)
            mask.write_bytes(png_bytes(noise, CLASSES))
    return folder


def truth(data: Path, split: str) -> list[Path]:
    """The files that hold the truth of a split."""
    found = Dataset.open(data).truth(split)
    assert found is not None
    return [found.path(i) for i in range(len(found))]
