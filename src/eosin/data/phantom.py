"""Drawn H&E tissue with exact masks: the embedded data of ``eosin demo`` and of every test.

Tumour in nests and glands, stroma, lymphocyte aggregates and necrosis are drawn patient by patient: each patient has
its own stains, grade and mixture of tissues, each slide of a patient is one field, and patches are cut from fields
side by side. The mask is the map that the tissue was drawn from, so it is exact at every pixel. Where there is no
tissue (the empty slide beyond its edge) the mask is 255 and not scored; lumens of glands belong to the tumour,
vessels to the stroma, and single cells that stray into another tissue do not change its class.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from eosin.core.artifact import atomic_folder
from eosin.core.classes import Classes, Tissue
from eosin.core.errors import EosinError
from eosin.data.dataset import Row, write_dataset
from eosin.data.phantom_draw import draw_field
from eosin.data.phantom_look import Bytes, Look, draw_look
from eosin.slides.image import png_bytes

CLASSES = Classes(
    tissues=(
        Tissue(name="tumour", colour=(200, 40, 40)),
        Tissue(name="stroma", colour=(60, 165, 120)),
        Tissue(name="lymphocytes", colour=(50, 80, 200)),
        Tissue(name="necrosis", colour=(235, 190, 50)),
    )
)
REST = Tissue(name="rest", colour=(190, 190, 190))
DRAWN_MPP = 0.5
MIN_FRACTION = 0.05
# Measured: with pieces of so many um, this share of patches of 128 px at 0.5 um per pixel carries several tags.
_PIECES = ((0.3, 0.45, 0.65, 0.8, 0.95), (380.0, 225.0, 142.0, 96.0, 50.0))
_APART = 1_000_000  # between the seeds of two splits
_WORTH_PROCESSES = 8_000_000  # pixels; below, starting processes takes longer than drawing
USUAL = (0.40, 0.36, 0.24)  # tumour, stroma, lymphocytes: shares of what necrosis leaves


REVISION = 1
"""Raised by hand when the drawing changes, so that a folder of older pixels is not taken for it."""


class PhantomSpec(BaseModel):
    """What to draw.

    Attributes:
        patches: training patches.
        val: validation patches.
        test: test patches.
        large: large labelled images.
        size: side of a patch in pixels.
        large_size: side of a large image in pixels.
        patients: about so many share the patches; no patient is in two splits. Each large image has its own.
        cooccurrence: how often classes come together: the share of patches with several tags at the usual size and mpp.
        rarity: share of the rare class, necrosis, in the tissue.
        stain: strength of the variation of staining between patients; 0 = none, 1 = one good laboratory, 2 = several.
        laboratory: whose dyes all patients are stained with; the tissue of a seed is the same in each.
        tag_noise: share of training patches with one tag flipped.
        mpp: um per pixel. Tissue is drawn at 0.5 and resampled: the same seed at another mpp is the same tissue.
        positive: tell this tissue from all others: the two classes are then ``rest`` and it; empty for all four.
        seed: changes everything.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    patches: int = Field(default=2000, ge=1)
    val: int = Field(default=200, ge=0)
    test: int = Field(default=200, ge=0)
    large: int = Field(default=4, ge=0)
    size: int = Field(default=128, ge=16, le=1024)
    large_size: int = Field(default=512, ge=64, le=4096)
    patients: int = Field(default=96, ge=3)
    cooccurrence: float = Field(default=0.65, ge=0.3, le=0.95)
    rarity: float = Field(default=0.15, ge=0, lt=1)
    stain: float = Field(default=1.0, ge=0, le=3)
    laboratory: int = Field(default=0, ge=0)
    tag_noise: float = Field(default=0.0, ge=0, le=1)
    mpp: float = Field(default=0.5, ge=0.2, le=2)
    positive: Literal["", "tumour", "stroma", "lymphocytes", "necrosis"] = ""
    seed: int = Field(default=0, ge=0)

    @property
    def cell(self) -> float:
        """Typical diameter of a piece of tissue in um, which decides how often classes come together."""
        return float(np.interp(self.cooccurrence, *_PIECES))

    @property
    def classes(self) -> Classes:
        """What is told apart."""
        if not self.positive:
            return CLASSES
        return Classes(tissues=(REST, CLASSES.tissues[CLASSES.names.index(self.positive)]))

    def told(self, mask: Bytes) -> Bytes:
        """A mask of the four tissues by the indices of ``classes``; 255 stays."""
        if not self.positive:
            return mask
        index = CLASSES.names.index(self.positive)
        return np.where(mask == 255, mask, mask == index).astype(np.uint8)

    @property
    def shares(self) -> NDArray[np.float64]:
        """The usual share of each class in the tissue."""
        return np.array([*(s * (1 - self.rarity) for s in USUAL), self.rarity])


def look_of(spec: PhantomSpec, patient: int) -> Look:
    """How tissue and laboratory of a patient look."""
    return draw_look(np.random.default_rng([spec.seed, patient]), spec.stain, spec.shares, spec.laboratory)


def draw_image(
    spec: PhantomSpec, seed: int | tuple[int, ...], height: int, width: int, edge: bool = True
) -> tuple[Bytes, Bytes]:
    """Draw one image of any size: uint8 ``[H, W, 3]`` RGB and its mask uint8 ``[H, W]``, 0..3 or 255.

    ``seed`` is the patient, or the patient and its slide: slides of one patient share stains, grade and mixture.
    Half of the images show the empty slide at one side; without ``edge`` none does.
    Takes about 100 bytes of memory for every pixel that is drawn (at 0.5 um per pixel).
    """
    patient, *slide = seed if isinstance(seed, tuple) else (seed,)
    look = look_of(spec, patient)
    rng = np.random.default_rng([spec.seed, patient, 1, *slide])
    zoom = spec.mpp / DRAWN_MPP
    rows, columns = math.ceil(height * zoom), math.ceil(width * zoom)
    drawn, drawn_mask = draw_field(rng, rows, columns, look, spec.cell / DRAWN_MPP, edge)
    smooth = cv2.INTER_AREA if zoom > 1 else cv2.INTER_CUBIC  # resizing to the same size copies
    rgb = np.asarray(cv2.resize(drawn, (width, height), interpolation=smooth), np.float32)
    mask = cv2.resize(drawn_mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    rgb += 2.2 * rng.standard_normal(rgb.shape, dtype=np.float32)  # noise of the sensor
    return np.clip(np.round(rgb), 0, 255).astype(np.uint8), np.asarray(mask, np.uint8)


def tags_of(mask: Bytes) -> NDArray[np.float32]:
    """Tags of a mask, ``[4]``: 1 where a class covers more than 5 % of the pixels."""
    shares = np.bincount(mask.ravel(), minlength=256)[: len(CLASSES)] / mask.size
    return (shares > MIN_FRACTION).astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Job:
    """All images of one patient: ``count`` squares of ``size`` pixels; ``seed`` tells patients of all splits apart."""

    split: str
    patient: str
    seed: int
    count: int
    size: int


def draw_dataset(folder: Path, spec: PhantomSpec, progress: Callable[[int, int], None] | None = None) -> None:
    """Draw a data set: splits ``train``, ``val``, ``test`` (patches) and ``large``, every item with tags and mask.

    The same ``spec`` gives the same pixels, however many processes draw them. Masks of the training split are the
    truth for supervised upper bounds; the weak view of the data has no path to them.

    Args:
        folder: must not exist yet.
        spec: what to draw.
        progress: called with the number of images done and of all.

    Raises:
        EosinError: if ``folder`` exists.
    """
    if folder.exists():
        raise EosinError(f"{folder}: already exists; choose another folder")
    jobs = _jobs(spec)
    total = sum(job.count for job in jobs)
    with atomic_folder(folder) as made, ExitStack() as stack:
        for kind in ("images", "masks"):
            (made / kind).mkdir()
        work = partial(_draw_patient, made, spec)
        results: Iterable[list[Row]]
        if sum(job.count * job.size**2 for job in jobs) < _WORTH_PROCESSES:
            results = map(work, jobs)
        else:
            # Spawned, not forked: the caller may hold threads of torch, which do not survive a fork.
            pool = ProcessPoolExecutor(min(4, os.cpu_count() or 1), get_context("spawn"), cv2.setNumThreads, (1,))
            results = stack.enter_context(pool).map(work, jobs)
        rows: list[Row] = []
        for drawn in results:
            rows += drawn
            if progress is not None:
                progress(len(rows), total)
        write_dataset(
            made,
            name="phantom",
            classes=spec.classes,
            rows=_flip_tags(rows, spec),
            mpp=spec.mpp,
            licence="Apache-2.0 (drawn by eosin)",
            citation=f"eosin phantom: drawn tissue, not of any patient{_look_told(spec)}",
            tag_rule=MIN_FRACTION,
            known={"tags_contradict": f"tag_noise = {spec.tag_noise:g} was asked for"} if spec.tag_noise else None,
        )


def _look_told(spec: PhantomSpec) -> str:
    """What of a spec is in the pixels alone, where it is not as usual: a data set's digest is of its tables."""
    told = spec.model_dump(include={"laboratory", "stain"}, exclude_defaults=True)
    return "".join(f"; {key} {value:g}" for key, value in told.items())


def _jobs(spec: PhantomSpec) -> list[_Job]:
    """Share the patients out to the splits by their number of patches; each split has its own, seeded apart."""
    patches = {"train": spec.patches, "val": spec.val, "test": spec.test}
    jobs = []
    for number, (split, count) in enumerate(patches.items()):
        patients = min(count, max(1, round(spec.patients * count / sum(patches.values()))))
        for i in range(patients):
            mine = (i + 1) * count // patients - i * count // patients
            jobs.append(_Job(split, f"{split}{i:03d}", _APART * (number + 1) + i, mine, spec.size))
    large = [_Job("large", f"large{i:03d}", _APART * 4 + i, 1, spec.large_size) for i in range(spec.large)]
    return jobs + large


def _draw_patient(folder: Path, spec: PhantomSpec, job: _Job) -> list[Row]:
    """Draw slides of a patient until they give enough squares with at least one tag; write these."""
    rows: list[Row] = []
    slide = 0
    while len(rows) < job.count:
        slide += 1
        missing = job.count - len(rows)
        across = math.ceil(math.sqrt(missing))
        down = math.ceil(missing / across)
        rgb, mask = draw_image(spec, (job.seed, slide), down * job.size, across * job.size)
        for k in range(down * across):
            y, x = job.size * (k // across), job.size * (k % across)
            square = np.s_[y : y + job.size, x : x + job.size]
            if len(rows) == job.count or not tags_of(mask[square]).any():
                continue
            name = f"{job.patient}-{slide}-{k:04d}"
            (folder / "images" / f"{name}.png").write_bytes(png_bytes(rgb[square]))
            told = spec.told(mask[square])
            (folder / "masks" / f"{name}.png").write_bytes(png_bytes(told, spec.classes))
            source = f"{job.patient}-{slide}"
            rows.append(
                Row(
                    id=name,
                    split=job.split,
                    image=f"images/{name}.png",
                    mask=f"masks/{name}.png",
                    patient=job.patient,
                    tags=tags_of(told)[: len(spec.classes)].tolist(),
                    slide=source,
                    parent=source,
                    x=x,
                    y=y,
                    origin="drawn",
                )
            )
    return rows


def _flip_tags(rows: list[Row], spec: PhantomSpec) -> list[Row]:
    """Flip one tag of the wished share of training rows, but never the only one that is present."""
    rng = np.random.default_rng([spec.seed, _APART * 5])
    train = [i for i, row in enumerate(rows) if row.split == "train"]
    for i in rng.permutation(train)[: round(spec.tag_noise * len(train))].tolist():
        tags = [float(tag or 0) for tag in rows[i].tags]
        lonely = sum(tags) == 1
        k = int(rng.choice([k for k, tag in enumerate(tags) if not (lonely and tag)]))
        tags[k] = 1 - tags[k]
        rows[i] = replace(rows[i], tags=tags)
    return rows
