"""A sound data set, and every way to break it: each defect damages rows of its own, so that all can be in one."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

SIDE = 24
CLASSES = ("tumour", "stroma", "fat")
COLOURS = ((200, 40, 40), (60, 160, 80), (235, 190, 50))
TRAIN_TAGS = ((1, 0, 0), (0, 1, 0), (1, 1, 0), (0, 0, 1), (1, 0, 1))


@dataclass
class Draft:
    """A data set that is being written; ``save`` writes its two text files as they are, right or wrong."""

    folder: Path
    head: dict[str, Any]
    header: list[str]
    rows: list[dict[str, str]]
    lines: list[str] = field(default_factory=list)

    def row(self, name: str) -> dict[str, str]:
        return next(row for row in self.rows if row["id"] == name)

    def image(self, name: str) -> Path:
        return self.folder / self.row(name)["image"]

    def mask(self, name: str) -> Path:
        return self.folder / self.row(name)["mask"]

    def line(self, name: str) -> int:
        return 2 + self.rows.index(self.row(name))

    def save(self) -> Path:
        (self.folder / "dataset.yaml").write_text(yaml.safe_dump(self.head), encoding="utf-8")
        with (self.folder / "items.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(self.header)
            writer.writerows([row.get(column, "") for column in self.header] for row in self.rows)
            file.writelines(f"{line}\r\n" for line in self.lines)
        return self.folder


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)


def mask() -> np.ndarray:
    """A third of each class, and two ignored pixels."""
    values = np.repeat(np.arange(3, dtype=np.uint8), SIDE // 3)[:, None].repeat(SIDE, axis=1)
    values[0, :2] = 255
    return values


def sound(folder: Path) -> Draft:
    """40 training items with tags, 20 validation and 4 test items with masks, a patient and a slide each."""
    rows = []
    for split, count in (("train", 40), ("val", 20), ("test", 4)):
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True)
        for index in range(count):
            name = f"{split}-{index}"
            row = {"id": name, "split": split, "image": f"{split}/images/{name}.png", "patient": f"{split}-p{index}"}
            row["slide"] = f"{split}-s{index}"
            Image.fromarray(pixels(len(rows))).save(folder / row["image"])
            tags = TRAIN_TAGS[index % len(TRAIN_TAGS)] if split == "train" else (1, 1, 1)
            if split != "train":
                row["mask"] = f"{split}/masks/{name}.png"
                Image.fromarray(mask()).save(folder / row["mask"])
            rows.append({**row, **dict(zip(CLASSES, map(str, tags), strict=True))})
    head = {
        "schema": 1,
        "name": "draft",
        "classes": [{"name": n, "colour": list(c)} for n, c in zip(CLASSES, COLOURS, strict=True)],
        "ignore": 255,
        "mpp": 0.5,
        "licence": "CC0-1.0",
        "citation": "",
        "tag_rule": {"min_fraction": 0.05},
        "splits": ["train", "val", "test"],
    }
    return Draft(folder, head, ["id", "split", "image", "mask", "patient", "slide", *CLASSES], rows)


@dataclass(frozen=True)
class Defect:
    """How to break a draft, and what the one line about it must hold."""

    name: str
    apply: Callable[[Draft], None]
    says: tuple[str, ...]
    joins: bool = True  # whether it can be in one data set with all others


DEFECTS: list[Defect] = []


def defect(*says: str, joins: bool = True) -> Callable[[Callable[[Draft], None]], Callable[[Draft], None]]:
    def register(apply: Callable[[Draft], None]) -> Callable[[Draft], None]:
        DEFECTS.append(Defect(apply.__name__, apply, says, joins))
        return apply

    return register


# --- image files, training items 0..


@defect("train-0.png: not an image", "save it as")
def unreadable(draft: Draft) -> None:
    draft.image("train-0").write_bytes(b"this was a slide once")


@defect("train-1.png: the file has 0 bytes", "copy it again")
def zero_bytes(draft: Draft) -> None:
    draft.image("train-1").write_bytes(b"")


@defect("train-2.png: damaged or cut short", "copy it again")
def truncated(draft: Draft) -> None:
    file = draft.image("train-2")
    file.write_bytes(file.read_bytes()[:900])


@defect("train-3.png: no such file", "restore the file")
def missing_file(draft: Draft) -> None:
    draft.image("train-3").unlink()


@defect("train-4.png: more than 8 bits per channel", "save it with 8 bits")
def sixteen_bit(draft: Draft) -> None:
    Image.fromarray(pixels(4)[..., 0].astype(np.uint16) * 257).save(draft.image("train-4"))


@defect("train-5.png: has an alpha channel", "save it without")
def alpha(draft: Draft) -> None:
    Image.fromarray(pixels(5)).convert("RGBA").save(draft.image("train-5"))


@defect("train-6.jpg: a CMYK image", "convert it to RGB")
def cmyk(draft: Draft) -> None:
    draft.row("train-6")["image"] = "train/images/train-6.jpg"
    Image.fromarray(pixels(6)).convert("CMYK").save(draft.image("train-6"))


@defect("train-7.png: turned by EXIF (orientation 6)", "clear the tag")
def exif_rotated(draft: Draft) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels(7)).save(draft.image("train-7"), exif=exif)


@defect("train-8.png: a greyscale image", "save it as RGB")
def greyscale(draft: Draft) -> None:
    Image.fromarray(pixels(8)[..., 0]).save(draft.image("train-8"))


@defect("the same pixels in 2 items: 'train-9' (train, line 11), 'train-10' (train, line 12)", "keep one")
def duplicate_image(draft: Draft) -> None:
    draft.row("train-10")["image"] = "train/images/train-10.bmp"
    Image.open(draft.image("train-9")).save(draft.image("train-10"))  # other bytes, the same pixels


@defect("the same pixels in 2 items: 'train-11' (train, line 13), 'val-0' (val, line 42)", "keep one")
def duplicate_across_splits(draft: Draft) -> None:
    shutil.copyfile(draft.image("train-11"), draft.image("val-0"))


# --- masks, validation items 1..


@defect("val-1.png: 24 x 16 px where its image has 24 x 24", "has the size of its image")
def wrong_size(draft: Draft) -> None:
    Image.fromarray(mask()[4:20]).save(draft.mask("val-1"))


@defect("val-2.png: values 3, 7 are not 0..2 or 255 (ignore)", "map each value")
def value_out_of_range(draft: Draft) -> None:
    values = mask()
    values[5, :6] = 7
    values[6, :6] = 3
    Image.fromarray(values).save(draft.mask("val-2"))


@defect("val-3.png: palette indices 10, 20, 30 are not 0..2 or 255 (ignore)", "write the class as the index")
def palette_mask(draft: Draft) -> None:
    image = Image.fromarray(np.minimum(mask(), 2) * 10 + 10)
    palette = np.zeros((256, 3), np.uint8)
    palette[10:40:10] = COLOURS
    image.putpalette(palette.tobytes())
    image.save(draft.mask("val-3"))


@defect("val-4.png: a mask of colours", "class index per pixel")
def mask_in_colours(draft: Draft) -> None:
    Image.fromarray(np.array(COLOURS, np.uint8)[np.minimum(mask(), 2)]).save(draft.mask("val-4"))


@defect("val-5.jpg: a JPEG mask", "as PNG")
def mask_as_jpeg(draft: Draft) -> None:
    draft.row("val-5")["mask"] = "val/masks/val-5.jpg"
    Image.fromarray(mask()).save(draft.mask("val-5"))


@defect("val-6.png: the file has 0 bytes", "copy it again")
def empty_mask(draft: Draft) -> None:
    draft.mask("val-6").write_bytes(b"")


@defect(
    "items.csv: line 49: tag 'stroma' of 'val-7' is 0 but its mask has 33.33% of it (allowed: 5.00%)", "correct one"
)
def tag_denies_mask(draft: Draft) -> None:
    draft.row("val-7")["stroma"] = "0"


@defect("items.csv: line 50: tag 'stroma' of 'val-8' is 1 but its mask has none of it", "correct one")
def tag_without_pixels(draft: Draft) -> None:
    Image.fromarray(np.where(mask() == 1, 0, mask()).astype(np.uint8)).save(draft.mask("val-8"))


# --- lines of items.csv


@defect("items.csv: line 22: tag '2' of class 'tumour' must be 1, 0 or empty")
def tag_2(draft: Draft) -> None:
    draft.row("train-20")["tumour"] = "2"


@defect("items.csv: line 23: id 'train/21' must be of letters", "rename it")
def bad_id(draft: Draft) -> None:
    draft.row("train-21")["id"] = "train/21"


@defect("items.csv: line 25: id 'train-22' is already on line 24", "give each item its own")
def id_twice(draft: Draft) -> None:
    draft.rows[23]["id"] = "train-22"


@defect("items.csv: line 26: split 'tran' is not among the splits of dataset.yaml (did you mean 'train'?)")
def misspelt_split(draft: Draft) -> None:
    draft.row("train-24")["split"] = "tran"


@defect("items.csv: line 27: image '../train-25.png' leads out of the data set", "write an absolute path")
def path_leads_out(draft: Draft) -> None:
    draft.image("train-25").rename(draft.folder.parent / "train-25.png")
    draft.row("train-25")["image"] = "../train-25.png"


@defect("items.csv: line 66: 2 cells where the first line has", "add or remove commas")
def short_line(draft: Draft) -> None:
    draft.lines.append("train-99,train")


@defect("items.csv: line 28: no image", "give its path")
def no_image(draft: Draft) -> None:
    draft.row("train-26")["image"] = ""


@defect("items.csv: line 1: class column 'fat' is missing", "add it")
def missing_column(draft: Draft) -> None:
    draft.header.remove("fat")


@defect("items.csv: line 1: column 'patient' is missing", "add it", joins=False)
def missing_patient_column(draft: Draft) -> None:
    draft.header.remove("patient")


@defect("items.csv: line 1: unknown column 'slyde' (did you mean 'slide'?)", "rename or remove it")
def unknown_column(draft: Draft) -> None:
    draft.header.append("slyde")


# --- the data set as a whole


@defect("items.csv: split 'extra' has no items", "add some")
def empty_split(draft: Draft) -> None:
    draft.head["splits"] = ["train", "val", "test", "extra"]


@defect("items.csv: split 'train' has no items", joins=False)
def no_training_items(draft: Draft) -> None:
    draft.rows = [row for row in draft.rows if row["split"] != "train"]


@defect("items.csv: patient in two splits (train and val): 'train-p30' (lines 32, 53)", "into one split")
def patient_in_two_splits(draft: Draft) -> None:
    draft.row("val-11")["patient"] = "train-p30"


@defect("items.csv: slide in two splits (train and test): 'train-s31' (lines 33, 62)", "into one split")
def slide_in_two_splits(draft: Draft) -> None:
    draft.row("test-0")["slide"] = "train-s31"


@defect("items.csv: parent image in two splits (train and test): 'test-1' (lines 10, 63)", "into one split")
def patch_of_a_tested_image(draft: Draft) -> None:
    draft.header.append("parent")
    draft.row("train-8")["parent"] = "test-1"


@defect("items.csv: classes 'tumour' and 'stroma' occur together on every training item", "merge them")
def classes_together(draft: Draft) -> None:
    for row in draft.rows:
        if row["split"] == "train" and row["tumour"] in "01":
            row["stroma"] = row["tumour"]


@defect("items.csv: class 'fat' is on no training item", "add some", joins=False)
def class_never(draft: Draft) -> None:
    for row in draft.rows:
        if row["split"] == "train":
            row["fat"] = "0"
