"""Camelyon16: metastases in lymph nodes, cut from whole slides as IKD-MIL does.

Slides are found by their names, ``normal_001.tif``, ``tumor_001.tif`` and ``test_001.tif``, in whatever folders they
lie, and so are the lesions: ``tumor_001.xml`` of ASAP, or else ``tumor_001_mask.tif`` (0, 1 tumour, 2 not scored). A
test slide without lesions is a normal one.

A patch is a square of ``window`` pixels of level 1, where a pixel is two of full resolution, scaled to ``tile`` pixels.
Patches that are white beyond ``max_white`` are left out. Positives are cut from slides with tumour; of each, at least
1 % of what is not white is tumour, and in the test no more than ``test_background`` is free of it. Negatives are cut
from normal slides, as many as there are positives, drawn by seed. Validation slides are held out of the training
slides, of either kind the same share.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from eosin.core.artifact import atomic_folder
from eosin.core.classes import Classes, Tissue
from eosin.core.errors import EosinError
from eosin.data.dataset import Row, write_dataset
from eosin.data.formats._common import Names, held_out, in_threads, present
from eosin.data.formats._slides import Map, OpenMap, OpenSlide, white_shares, write_patch
from eosin.slides.annotations import read_asap
from eosin.slides.outlines import Outline
from eosin.slides.scaled import Scaled

Array = np.ndarray

DESCRIPTION = "Camelyon16 slides with lesions in ASAP's XML or mask TIFF: tumour against the rest, as IKD-MIL"
HANDED = ("open_slide", "open_map")

CLASSES = Classes(tissues=(Tissue(name="rest", colour=(0, 130, 200)), Tissue(name="tumour", colour=(245, 130, 48))))
CITATION = (
    "B. Ehteshami Bejnordi et al., Diagnostic assessment of deep learning algorithms for detection of lymph node "
    "metastases in women with breast cancer, JAMA 318 (2017) 2199-2210"
)

MIN_TUMOUR = 0.01  # of what is not white, in a positive
COARSE = 32  # white is measured where a patch has so many pixels along a side
_NAME = re.compile(r"(normal|tumor|test)_\d+")
_HOLES = ("_2", "exclusion", "normal")  # groups that ASAP draws inside a lesion
_SPLITS = ("train", "val", "test")


class Options(BaseModel):
    """How patches are cut and chosen, and which slides validate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: int = Field(default=1280, ge=1, description="side of a patch in pixels of level 1")
    tile: int = Field(default=256, ge=1, description="side of the scaled patch in pixels")
    max_white: float = Field(default=0.8, ge=0, lt=1, description="most of a patch that may be white")
    test_background: float = Field(default=0.9, ge=0, le=1, description="most of a test positive free of tumour")
    leave_out: Names = Field(default=("test_114",), description="slides that are not taken")
    val_fraction: float = Field(default=0.2, ge=0, lt=1, description="share of the training slides for validation")
    seed: int = Field(default=0, ge=0, description="of validation slides and negatives")


@dataclass(frozen=True, slots=True)
class _Source:
    """A slide, where its lesions are told (neither: it is normal), and its split."""

    path: Path
    xml: Path | None
    mask: Path | None
    split: str

    @property
    def normal(self) -> bool:
        return self.xml is None and self.mask is None


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    """An open slide, as patches are cut from it, with its lesions."""

    view: Scaled
    coarse: Scaled
    tumour: tuple[Outline, ...]
    holes: tuple[Outline, ...]
    mask: Map | None


def run(
    source: Path,
    dest: Path,
    options: Options,
    progress: Callable[[int, int], None],
    open_slide: OpenSlide,
    open_map: OpenMap,
) -> None:
    """Make the data set ``dest``.

    Raises:
        EosinError: if a file cannot be read, a tumour slide has no lesions or no pixel size, or nothing is left.
    """
    slides = _slides(source, options)
    cutter = _Cutter(options, open_slide, open_map)
    total = 2 * len(slides)
    found = list(in_threads(cutter.candidates, slides, lambda done, _: progress(done, total)))
    chosen = _chosen(slides, found, options.seed)
    with atomic_folder(dest) as folder:
        tasks = [(one, places) for one, places in zip(slides, chosen, strict=True) if places]
        written = in_threads(
            lambda task: cutter.write(folder, *task), tasks, lambda done, _: progress(total - len(tasks) + done, total)
        )
        parts = list(written)
        if not parts:
            raise EosinError(f"{source}: no patch passes max_white={options.max_white:g}; choose a larger one")
        write_dataset(
            folder,
            name="camelyon16",
            classes=CLASSES,
            rows=sorted((row for rows, _ in parts for row in rows), key=lambda row: _SPLITS.index(row.split)),
            mpp=round(float(np.mean([mpp for _, mpp in parts])), 3),
            licence="CC0 1.0",
            citation=CITATION,
            tag_rule=0,
        )


def _slides(source: Path, options: Options) -> list[_Source]:
    """The slides by name, with their lesions and splits."""
    if not source.is_dir():
        raise EosinError(f"{source}: is no folder; give the folder that holds the slides of Camelyon16")
    tiffs = {path.stem.lower(): path for path in sorted(source.rglob("*")) if path.suffix.lower() in (".tif", ".tiff")}
    xmls = {path.stem.lower(): path for path in sorted(source.rglob("*")) if path.suffix.lower() == ".xml"}
    names = [name for name in sorted(tiffs) if _NAME.fullmatch(name) and name not in options.leave_out]
    if not any(not name.startswith("test") for name in names):
        raise EosinError(f"{source}: no slide called normal_001.tif or tumor_001.tif; give the folder that holds them")
    held: set[str] = set()
    for kind in ("normal", "tumor"):
        kinds = [name for name in names if name.startswith(kind)]
        held |= held_out(kinds, options.val_fraction, options.seed) if kinds else set()
    found = []
    for name in names:
        xml, mask = xmls.get(name), tiffs.get(f"{name}_mask")
        kind = name.partition("_")[0]
        if kind == "tumor" and xml is None and mask is None:
            raise EosinError(f"{tiffs[name]}: neither {name}.xml nor {name}_mask.tif is there; add one or leave it out")
        split = "test" if kind == "test" else "val" if name in held else "train"
        found.append(_Source(tiffs[name], *((None, None) if kind == "normal" else (xml, mask)), split))
    return found


def _chosen(
    slides: Sequence[_Source], found: Sequence[Sequence[tuple[int, int]]], seed: int
) -> list[list[tuple[int, int]]]:
    """All candidates of slides with tumour, and in each split as many of the normal ones, drawn by seed."""
    chosen: list[list[tuple[int, int]]] = [
        [] if one.normal else list(places) for one, places in zip(slides, found, strict=True)
    ]
    for split in _SPLITS:
        positives = sum(len(chosen[k]) for k, one in enumerate(slides) if one.split == split)
        negatives = [
            (k, place) for k, one in enumerate(slides) if one.split == split and one.normal for place in found[k]
        ]
        order = np.random.default_rng([seed, _SPLITS.index(split)]).permutation(len(negatives))
        for at in sorted(order[:positives]):
            k, place = negatives[at]
            chosen[k].append(place)
    return chosen


@dataclass(frozen=True, slots=True)
class _Cutter:
    """Finds and cuts patches of slides."""

    options: Options
    open_slide: OpenSlide
    open_map: OpenMap

    def candidates(self, one: _Source) -> list[tuple[int, int]]:
        """Where patches begin that may be taken, as (y, x)."""
        tile, options = self.options.tile, self.options
        with self._opened(one) as slide:
            shares = white_shares(slide.view, slide.coarse, tile, tile)
            tissue = {place: 1 - white for place, white in shares.items() if white <= options.max_white}
            if one.normal:
                return list(tissue)
            return [place for place, share in tissue.items() if self._positive(slide, place, share, one.split)]

    def _positive(self, slide: _Opened, place: tuple[int, int], tissue: float, split: str) -> bool:
        tumour = float((self._mask(slide, place) == 1).mean())
        least = max(MIN_TUMOUR * tissue, 1 - self.options.test_background if split == "test" else 0)
        return tumour > 0 and tumour >= least

    def write(self, folder: Path, one: _Source, chosen: Sequence[tuple[int, int]]) -> tuple[list[Row], float]:
        """Write patches of a slide; return their rows and their mpp."""
        rows, tile, slide_name = [], self.options.tile, one.path.stem.lower()
        with self._opened(one) as slide:
            for y, x in chosen:
                mask = self._mask(slide, (y, x))
                name = f"{slide_name}_{y:06d}_{x:06d}"
                row = Row(
                    id=name,
                    split=one.split,
                    image=f"{one.split}/images/{name}.png",
                    mask=f"{one.split}/masks/{name}.png",
                    patient=slide_name,  # a patient has one slide here
                    tags=present(mask, len(CLASSES)),
                    slide=slide_name,
                    origin=one.path.name,
                )
                write_patch(folder, row, slide.view.read(y, x, tile, tile), mask, CLASSES)
                rows.append(row)
            return rows, slide.view.mpp

    @contextmanager
    def _opened(self, one: _Source) -> Iterator[_Opened]:
        with ExitStack() as stack:
            slide = stack.enter_context(self.open_slide(one.path))
            if slide.pixel_size is None:
                raise EosinError(f"{one.path}: how large its pixels are is not known ({slide.unsized}); copy it again")
            mpp = slide.pixel_size.mpp * 2 * self.options.window / self.options.tile
            drawn = read_asap(one.xml).outlines if one.xml else ()
            holes = tuple(line for line in drawn if line.name.lower() in _HOLES)
            mask = None
            if one.xml is None and one.mask is not None:
                mask = stack.enter_context(self.open_map(one.mask))
                sizes = [(level.height, level.width) for level in (mask.levels[0], slide.levels[0])]
                if sizes[0] != sizes[1]:
                    raise EosinError(
                        f"{one.mask}: {sizes[0]} px where its slide has {sizes[1]}; take both from one release"
                    )
            yield _Opened(
                view=Scaled(slide, mpp, slide.pixel_size),
                coarse=Scaled(slide, max(1.0, self.options.tile / COARSE) * mpp, slide.pixel_size),
                tumour=tuple(line for line in drawn if line not in holes),
                holes=holes,
                mask=mask,
            )

    def _mask(self, slide: _Opened, place: tuple[int, int]) -> Array:
        """Class indices of a patch, uint8 ``[tile, tile]``."""
        tile, scale = self.options.tile, slide.view.scale
        if slide.mask is not None:
            return _decoded(slide.mask.at(*place, tile, tile, scale), slide.mask.path)
        inside = np.zeros((tile, tile), np.bool_)
        for lines, value in ((slide.tumour, True), (slide.holes, False)):
            for line in lines:
                left, top, right, bottom = (edge / scale for edge in line.box)
                if left < place[1] + tile and right > place[1] and top < place[0] + tile and bottom > place[0]:
                    inside[line.pixels(*place, tile, tile, scale)] = value
        return inside.astype(np.uint8)


def _decoded(values: Array, path: Path) -> Array:
    """The classes of a mask's values: 0 rest, 1 or 255 tumour, 2 not scored."""
    table = np.full(256, 254, np.uint8)
    table[[0, 1, 2, 255]] = 0, 1, CLASSES.ignore, 1
    classes: Array = table[values]
    if (classes == 254).any():
        raise EosinError(f"{path}: holds the value {values[classes == 254][0]}; a mask has 0, 1 and 2")
    return classes
