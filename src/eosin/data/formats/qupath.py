"""Slides and what was drawn on them in QuPath: classes of annotations become tags of the patches they cover.

Patches lie on a grid from the top left of the slide. One is taken if annotations together cover at least ``cover`` of
it. A class is *present* if its annotations cover more than ``min_fraction`` of the patch; several may be. The other
classes are *absent* if the whole patch is annotated, but for ``min_fraction``, and *unknown* if a part of it is not,
since nobody has said what is there. So a rectangle is a weak label of the patches in it, and two rectangles in one
place say that both classes are there. Where one class was ticked and others were left open, ``others=unknown`` says
that nothing is ever absent.

With ``masks`` every patch gets a mask, too: a pixel belongs to the smallest annotation over it, and where there is none
it is not scored. Tags are then cut from the masks.

Annotations that say nothing here, slides without any, and files without a slide are listed in ``left-out.txt``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from eosin.core.artifact import atomic_folder, write_text
from eosin.core.classes import Classes, Tissue
from eosin.core.errors import EosinError, WrongUse, nearest
from eosin.data.dataset import Row, write_dataset
from eosin.data.formats._common import LEFT_OUT, Names, Pattern, coloured, in_threads, patient_in, safe_id, three_ways
from eosin.data.formats._slides import OpenSlide, places, slides_below, write_patch
from eosin.slides.annotations import SUFFIXES, read_qupath
from eosin.slides.outlines import Outline
from eosin.slides.pixel_size import read_table
from eosin.slides.scaled import Scaled
from eosin.slides.slide import PixelSize, Slide

Array = np.ndarray

DESCRIPTION = "slides and annotations from QuPath (GeoJSON): tags, or masks, of the patches that are annotated"
SOURCES = ("SLIDES", "GEOJSON")
HANDED = ("open_slide",)

IGNORE = 255


class Options(BaseModel):
    """How patches are cut, what annotations say of them, and how they are split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: Names = Field(default=(), description="these classes in this order, as Tumor,Stroma; else all, by name")
    mpp: float = Field(default=0.5, gt=0, description="um per pixel of the patches")
    tile: int = Field(default=224, ge=1, description="side of a patch in pixels")
    stride: int | None = Field(default=None, ge=1, description="step between patches; the tile if not given")
    cover: float = Field(default=0.5, gt=0, le=1, description="share of a patch that annotations must cover")
    min_fraction: float = Field(default=0.05, ge=0, lt=1, description="a class is present above this share of a patch")
    others: Literal["absent", "unknown"] = Field(default="absent", description="of classes not drawn in a whole patch")
    masks: bool = Field(default=False, description="write masks, with what is outside annotations not scored")
    slide_mpp: float | None = Field(default=None, gt=0, description="um per pixel of the slides, over their files'")
    mpp_csv: Path | None = Field(default=None, description="table of the slides' um per pixel: columns wsi,mpp")
    patient: Pattern = Field(default="", description="regular expression that finds the patient in a slide's path")
    val_fraction: float = Field(default=0.0, ge=0, lt=1, description="share for validation, by patient or slide")
    test_fraction: float = Field(default=0.0, ge=0, lt=1, description="share for the test, by patient or slide")
    split: Literal["train", "val", "test"] = Field(default="train", description="of all that is not held out")
    seed: int = Field(default=0, ge=0, description="which are held out")
    licence: str = Field(default="unknown", min_length=1, description="terms of the slides")
    citation: str = Field(default="", description="what to cite")


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """A slide and what is drawn on it."""

    path: Path
    outlines: tuple[Outline, ...]
    name: str
    patient: str

    @property
    def group(self) -> str:
        """What stays together in a split: the patient, or the slide."""
        return self.patient or self.name


@dataclass(frozen=True, slots=True)
class _Patch:
    """Where a patch begins, in pixels of the asked mpp, and what is in it."""

    y: int
    x: int
    tags: tuple[int | None, ...]


def run(
    source: Path,
    annotations: Path,
    dest: Path,
    options: Options,
    progress: Callable[[int, int], None],
    open_slide: OpenSlide,
) -> None:
    """Make the data set ``dest``.

    Raises:
        EosinError: if a file cannot be read, no slide has annotations, the pixel size of a slide is not known, or
            no patch is covered.
        WrongUse: if ``classes`` names one that is not drawn, or the shares leave nothing for training.
    """
    drawn, left_out = _drawn(source, annotations, options)
    table = read_table(options.mpp_csv) if options.mpp_csv else {}
    cutter = _Cutter(options, table, _classes(drawn, options), open_slide)
    total = 2 * len(drawn)
    plans = list(in_threads(cutter.plan, drawn, lambda done, _: progress(done, total)))
    groups = [one.group for one, patches in zip(drawn, plans, strict=True) for _ in patches]
    if not groups:
        raise EosinError(f"{source}: annotations cover {options.cover:.0%} of no patch; choose a smaller tile or cover")
    dealt = three_ways(groups, options.val_fraction, options.test_fraction, options.seed)
    splits = {group: options.split if split == "train" else split for group, split in dealt.items()}
    tasks = [(splits[one.group], one, patches) for one, patches in zip(drawn, plans, strict=True) if patches]
    with atomic_folder(dest) as folder:
        written = in_threads(
            lambda task: cutter.write(folder, *task), tasks, lambda done, _: progress(total - len(tasks) + done, total)
        )
        rows = [row for part in written for row in part]
        if left_out:
            write_text(folder / LEFT_OUT, "".join(f"{line}\n" for line in left_out))
        write_dataset(
            folder,
            name=safe_id(source.stem),
            classes=cutter.classes,
            rows=sorted(rows, key=lambda row: ("train", "val", "test").index(row.split)),
            mpp=options.mpp,
            licence=options.licence,
            citation=options.citation,
            tag_rule=options.min_fraction if options.masks else None,
        )


def _drawn(source: Path, annotations: Path, options: Options) -> tuple[list[_Drawn], list[str]]:
    """Slides with their annotations, and lines about what is left out."""
    slides, files = slides_below(source), _annotation_files(annotations)
    by_name: dict[str, Path] = {}
    for file in files:
        if other := by_name.get(_stem(file)):
            raise EosinError(f"{file}: {other} is of the same slide; keep one of the two")
        by_name[_stem(file)] = file
    single, named = source.is_file() and annotations.is_file(), set(by_name)
    found: dict[str, _Drawn] = {}
    taken: dict[str, Path] = {}
    left_out: list[str] = []
    classes: set[str] = set()
    for slide in slides:
        key = _stem(files[0]) if single else slide.name if slide.name in named else slide.stem
        if other := taken.get(key):
            mend = f"name it as the whole file, as {slide.name}.geojson, or rename one of the two slides"
            raise EosinError(f"{by_name[key]}: may be of {other} or of {slide}; {mend}")
        if key not in by_name:
            left_out.append(f"{slide}: no annotations of this name")
            continue
        taken[key] = slide
        name, file = safe_id(slide.stem), by_name[key]
        if name in found:
            raise EosinError(f"{slide}: {found[name].path} has the same name; rename one of the two slides")
        read = read_qupath(file)
        classes |= {line.name for line in read.outlines}
        wanted = set(options.classes or classes)
        kept = tuple(line for line in read.outlines if line.name in wanted)
        others = Counter(f"of class {line.name}" for line in read.outlines if line.name not in wanted)
        left_out += [f"{file}: {count} {why}" for why, count in sorted({**read.skipped, **others}.items())]
        found[name] = _Drawn(slide, kept, name, patient_in(slide, source, options.patient))
    if not found:
        mend = "name them alike, as a.svs and a.geojson"
        raise EosinError(f"{annotations}: no annotations of a slide in {source}; {mend}")
    for name in options.classes:
        if name not in classes:
            raise WrongUse(f"classes: no annotation is of class {name!r}{nearest(name, sorted(classes))}")
    left_out += [f"{file}: no slide of this name" for key, file in by_name.items() if key not in taken]
    return list(found.values()), left_out


def _annotation_files(annotations: Path) -> list[Path]:
    if annotations.is_file():
        return [annotations]
    found = sorted(path for path in annotations.rglob("*") if path.name.lower().endswith(SUFFIXES))
    if not found:
        raise EosinError(f"{annotations}: no .geojson or .geojson.gz in it; export the annotations from QuPath")
    return found


def _stem(file: Path) -> str:
    """The name of an annotation file without its endings."""
    return re.sub(r"\.(geo)?json(\.gz)?$", "", file.name, flags=re.IGNORECASE)


def _classes(drawn: Sequence[_Drawn], options: Options) -> Classes:
    """The classes in the colours of QuPath, or in ours where these do not tell all of them apart."""
    colours = {line.name: line.colour for one in reversed(drawn) for line in reversed(one.outlines)}
    if not colours:
        raise EosinError(
            f"{drawn[0].path}: no annotation has a class, nor on other slides; give them classes in QuPath"
        )
    names = options.classes or tuple(sorted(colours))
    given = [colour for name in names if (colour := colours[name]) is not None]
    if len(set(given)) < len(names):
        return coloured(names, IGNORE)
    tissues = [Tissue(name=name, colour=colour) for name, colour in zip(names, given, strict=True)]
    return Classes(tissues=tuple(tissues), ignore=IGNORE)


@dataclass(frozen=True, slots=True)
class _Cutter:
    """Cuts slides into patches; the same at planning and at writing."""

    options: Options
    table: Mapping[str, float]
    classes: Classes
    open_slide: OpenSlide

    def plan(self, one: _Drawn) -> list[_Patch]:
        """The patches of a slide that are taken; no pixel is read."""
        patches = []
        with self.open_slide(one.path) as slide:
            view = self._view(slide)
            boxes = _boxes(one, view.scale)
            for y, x in places(view, self.options.tile, self.options.stride or self.options.tile):
                near = _near(one, boxes, y, x, self.options.tile)
                if near and (tags := self._tags(near, y, x, view.scale)) is not None:
                    patches.append(_Patch(y, x, tags))
        return patches

    def write(self, folder: Path, split: str, one: _Drawn, patches: Sequence[_Patch]) -> list[Row]:
        """Write the patches of a slide; return their rows."""
        rows, tile = [], self.options.tile
        with self.open_slide(one.path) as slide:
            view = self._view(slide)
            boxes = _boxes(one, view.scale)
            for patch in patches:
                near = _near(one, boxes, patch.y, patch.x, tile)
                mask = self._mask(near, patch.y, patch.x, view.scale) if self.options.masks else None
                name = f"{one.name}_{patch.y:06d}_{patch.x:06d}"
                row = Row(
                    id=name,
                    split=split,
                    image=f"{split}/images/{name}.png",
                    mask="" if mask is None else f"{split}/masks/{name}.png",
                    patient=one.patient,
                    tags=patch.tags,
                    slide=one.name,
                    origin=one.path.name,
                )
                write_patch(folder, row, view.read(patch.y, patch.x, tile, tile), mask, self.classes)
                rows.append(row)
        return rows

    def _view(self, slide: Slide) -> Scaled:
        """The slide at the asked mpp."""
        known = self.options.slide_mpp or self.table.get(slide.path.name) or self.table.get(slide.path.stem)
        size = PixelSize(known, "option") if known else slide.pixel_size
        if size is None:
            mend = "give --set slide_mpp=X, or --set mpp_csv=FILE with columns wsi,mpp"
            raise EosinError(f"{slide.path}: how large its pixels are is not known ({slide.unsized}); {mend}")
        return Scaled(slide, self.options.mpp, size)

    def _tags(self, near: Sequence[Outline], y: int, x: int, scale: float) -> tuple[int | None, ...] | None:
        """What annotations say of a patch, or None if they cover too little of it; the rule stands at the top."""
        tile, options = self.options.tile, self.options
        if options.masks:
            mask = self._mask(near, y, x, scale)
            layers = np.stack([mask == k for k in range(len(self.classes))])
        else:
            layers = np.zeros((len(self.classes), tile, tile), np.bool_)
            for line in near:
                layers[self.classes.names.index(line.name)] |= line.pixels(y, x, tile, tile, scale)
        covered = layers.any(0).mean()
        if covered < options.cover:
            return None
        whole = covered >= 1 - options.min_fraction and options.others == "absent"
        present = layers.mean((1, 2)) > options.min_fraction
        return tuple(1 if there else 0 if whole else None for there in present)

    def _mask(self, near: Sequence[Outline], y: int, x: int, scale: float) -> Array:
        """Class indices: annotations are painted from the largest to the smallest; under none is not scored."""
        tile = self.options.tile
        mask = np.full((tile, tile), self.classes.ignore, np.uint8)
        for line in sorted(near, key=lambda line: -line.area):
            mask[line.pixels(y, x, tile, tile, scale)] = self.classes.names.index(line.name)
        return mask


def _boxes(one: _Drawn, scale: float) -> Array:
    """The boxes of the outlines, float64 ``[N, 4]``: left, top, right, bottom in pixels of the patches."""
    return np.array([line.box for line in one.outlines], np.float64).reshape(-1, 4) / scale


def _near(one: _Drawn, boxes: Array, y: int, x: int, tile: int) -> list[Outline]:
    """The outlines whose boxes meet a patch."""
    meets = (boxes[:, 0] < x + tile) & (boxes[:, 1] < y + tile) & (boxes[:, 2] > x) & (boxes[:, 3] > y)
    return [one.outlines[k] for k in np.flatnonzero(meets)]
