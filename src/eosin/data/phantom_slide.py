"""Drawn H&E slides of any size: a few pieces of tissue on an empty slide, and the exact mask of their classes.

What :func:`eosin.data.phantom.draw_image` draws becomes a slide as scanners write them: a pyramid of JPEG tiles, most
of it empty. A slide is not a data set. It is what prediction on slides is tried and timed on, since here the truth is
known at every pixel, at sizes that memory cannot hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from eosin.data.phantom import CLASSES, PhantomSpec, draw_image, look_of
from eosin.data.phantom_look import GLASS, Bytes, Floats, noise
from eosin.slides.pyramid import write_pyramid

REVISION = 1
"""Raised by hand when the drawing of slides changes."""

_FIELD = 768.0  # um, side of the largest field that is drawn in one piece; larger tissue repeats it, mirrored
_FIELDS = 3  # that the pieces of a large slide are made of
_COARSE = 1024  # cells along the longer side of the map of the outline
_ROWS = 256  # of a band, and the columns that are drawn at once
_LEAST = 64  # pixels, rows and columns of a slide
_SOFT = 1.2  # pixels, standard deviation of the blur of the tissue's edge
_PAD = 4  # pixels that the blur sees around what is drawn


def draw_slide(
    path: Path,
    mask: Path,
    spec: PhantomSpec,
    seed: int | tuple[int, ...],
    height: int,
    width: int,
    share: float = 0.3,
    pieces: int = 3,
) -> None:
    """Draw a slide and its mask as pyramidal TIFF; the same arguments give the same bytes.

    A slide larger than 768 um is made of a few drawn fields: within a piece of tissue one field goes on mirrored, so
    that there is no seam; another piece has another field. A slide of 100,000 x 100,000 pixels with 2 % tissue takes
    less than a minute of a processor, 0.35 GB of memory and 110 MB on disk.

    Args:
        path: the slide, RGB.
        mask: its classes, 0..3 in the order of ``CLASSES``, 255 where there is no tissue; not in the slide's folder
            where that folder is to be predicted as a whole.
        spec: staining, mixture of tissues and size of a pixel; its numbers of patches are of no concern here.
        seed: the patient, or the patient and its slide, as for ``draw_image``.
        height: rows in pixels.
        width: columns in pixels.
        share: of the slide that is tissue, 0..1.
        pieces: about so many pieces of tissue, at least 1.

    Raises:
        ValueError: if ``share`` or ``pieces`` lies outside its range, or the slide has fewer than 64 rows or columns.
    """
    if not 0 <= share <= 1 or pieces < 1:
        raise ValueError(f"{pieces} pieces of tissue on {share} of the slide; share is 0 to 1, pieces at least 1")
    if min(height, width) < _LEAST:
        raise ValueError(f"a slide of {height} x {width} pixels; at least {_LEAST} each way")
    drawing = _Drawing.of(spec, seed, (height, width), share, pieces)
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(CLASSES)] = CLASSES.colours
    colours[GLASS] = 255
    white = drawing.white
    write_pyramid(path, drawing.rgb_bands(), height, width, spec.mpp, blank=(white[0], white[1], white[2]))
    write_pyramid(mask, drawing.mask_bands(), height, width, spec.mpp, palette=colours, blank=GLASS)


@dataclass(frozen=True, slots=True)
class _Drawing:
    """A slide before it has pixels.

    Attributes:
        shape: rows and columns of the slide.
        step: pixels that a cell of the coarse maps spans.
        level: float32, positive in tissue; between the centres of cells it is interpolated.
        field: which field the tissue of each cell is made of.
        fields: RGB and mask of each field.
        white: the empty slide.
    """

    shape: tuple[int, int]
    step: int
    level: Floats
    field: Bytes
    fields: tuple[tuple[Bytes, Bytes], ...]
    white: tuple[int, ...]

    @classmethod
    def of(
        cls, spec: PhantomSpec, seed: int | tuple[int, ...], shape: tuple[int, int], share: float, pieces: int
    ) -> _Drawing:
        patient, *slide = seed if isinstance(seed, tuple) else (seed,)
        rng = np.random.default_rng([spec.seed, patient, 2, *slide])
        step = math.ceil(max(shape) / _COARSE)
        level = _outline(rng, (_cells(shape[0], step), _cells(shape[1], step)), share, pieces)
        most = round(_FIELD / spec.mpp)
        count = 1 if max(shape) <= most else _FIELDS
        fields = tuple(
            draw_image(spec, (patient, *slide, k), min(shape[0], most), min(shape[1], most), edge=False)
            for k in range(count if share > 0 else 0)
        )
        white = tuple(int(value) for value in np.clip(np.round(look_of(spec, patient).white), 0, 255))
        return cls(shape, step, level, _field_of_pieces(level > 0, count), fields, white)

    def rgb_bands(self) -> Iterator[Bytes]:
        """The slide from top to bottom."""
        band = np.full((_ROWS, self.shape[1], 3), self.white, np.uint8)
        for top in range(0, self.shape[0], _ROWS):
            rows = band[: self.shape[0] - top]
            drawn = list(self._with_tissue(top))
            for left in drawn:
                part = rows[:, left : left + _ROWS]
                height, width = part.shape[:2]
                inside = self._inside(top - _PAD, left - _PAD, height + 2 * _PAD, width + 2 * _PAD)
                covered = np.asarray(cv2.GaussianBlur(inside.astype(np.float32), (0, 0), _SOFT), np.float32)
                tissue = self._tissue(0, top, left, height, width)
                part[:] = self._thinned(tissue, covered[_PAD:-_PAD, _PAD:-_PAD])
            yield rows
            for left in drawn:
                rows[:, left : left + _ROWS] = self.white

    def mask_bands(self) -> Iterator[Bytes]:
        """The mask from top to bottom."""
        band = np.empty((_ROWS, self.shape[1]), np.uint8)
        for top in range(0, self.shape[0], _ROWS):
            rows = band[: self.shape[0] - top]
            rows[:] = GLASS
            for left in self._with_tissue(top):
                part = rows[:, left : left + _ROWS]
                inside = self._inside(top, left, *part.shape)
                part[inside] = self._tissue(1, top, left, *part.shape)[inside]
            yield rows

    def _with_tissue(self, top: int) -> Iterator[int]:
        """Left borders of the squares of a band that may show tissue."""
        for left in range(0, self.shape[1], _ROWS):
            first, last = np.array([top, left]) - _PAD, np.array([top, left]) + _ROWS + _PAD
            y, x = np.maximum(first // self.step - 1, 0)
            bottom, right = last // self.step + 2
            if (self.level[y:bottom, x:right] > 0).any():
                yield left

    def _inside(self, top: int, left: int, height: int, width: int) -> NDArray[np.bool_]:
        """Where a rectangle, which may reach beyond the slide, is tissue."""
        rows, row_share = self._between(top, height, self.level.shape[0])
        columns, column_share = self._between(left, width, self.level.shape[1])
        upper = self.level[rows] * (1 - row_share[:, None]) + self.level[rows + 1] * row_share[:, None]
        return np.asarray(upper[:, columns] * (1 - column_share) + upper[:, columns + 1] * column_share > 0)

    def _between(self, start: int, count: int, cells: int) -> tuple[NDArray[np.int64], Floats]:
        """The cell before each pixel, and how far the pixel is on the way to the next one, 0..1."""
        place = np.clip((np.arange(start, start + count) + 0.5) / self.step - 0.5, 0, cells - 1)
        cell = np.minimum(place.astype(np.int64), cells - 2)
        return cell, (place - cell).astype(np.float32)

    def _tissue(self, kind: int, top: int, left: int, height: int, width: int) -> Bytes:
        """RGB (kind 0) or mask (1) of a rectangle, as if all of it were tissue."""
        rows, columns = np.arange(top, top + height), np.arange(left, left + width)
        y, x = (_mirrored(places, self.fields[0][1].shape[axis]) for axis, places in enumerate((rows, columns)))
        of = self.field[np.ix_(rows // self.step, columns // self.step)]
        drawn = self.fields[of[0, 0]][kind][np.ix_(y, x)]
        for number in np.unique(of[of != of[0, 0]]):
            drawn[of == number] = self.fields[number][kind][np.ix_(y, x)][of == number]
        return np.asarray(drawn, np.uint8)

    def _thinned(self, rgb: Bytes, covered: Floats) -> Bytes:
        """Tissue of which only a share is there, by Beer-Lambert: the share multiplies the optical density."""
        if covered.min() > 0.999:
            return rgb
        white = np.array(self.white, np.float32)
        light = white * (np.maximum(rgb, 1) / white) ** covered[..., None]
        return np.where(covered[..., None] > 0.999, rgb, np.clip(np.round(light), 0, 255)).astype(np.uint8)


def _cells(pixels: int, step: int) -> int:
    return max(2, math.ceil(pixels / step))  # two, to interpolate between


def _outline(rng: np.random.Generator, shape: tuple[int, int], share: float, pieces: int) -> Floats:
    """A smooth field that is positive on ``share`` of its cells: ellipses with wavy edges, away from the border."""
    y, x = np.meshgrid(np.arange(shape[0], dtype=np.float32), np.arange(shape[1], dtype=np.float32), indexing="ij")
    radius = max(2.0, math.sqrt(share * shape[0] * shape[1] / (math.pi * pieces)))
    centres = _apart(rng, shape, pieces)
    nearest = np.full(shape, np.inf, np.float32)
    for cy, cx in centres:
        turn, stretch = rng.uniform(0, math.pi), rng.uniform(0.75, 1.35)
        along = (x - cx) * math.cos(turn) + (y - cy) * math.sin(turn)
        across = (y - cy) * math.cos(turn) - (x - cx) * math.sin(turn)
        nearest = np.minimum(nearest, np.hypot(along * stretch, across / stretch) / radius)
    level = (
        0.14 * noise(rng, shape, max(2.0, 0.7 * radius)) + 0.04 * noise(rng, shape, max(2.0, 0.22 * radius)) - nearest
    )
    border = np.minimum(np.minimum(y + 1, shape[0] - y) / shape[0], np.minimum(x + 1, shape[1] - x) / shape[1])
    level -= 100 * np.maximum(0, 0.03 - border)
    if share in (0, 1):
        return np.full(shape, 1 if share else -1, np.float32)
    return np.asarray(level - np.quantile(level, 1 - share), np.float32)


def _apart(rng: np.random.Generator, shape: tuple[int, int], count: int) -> list[tuple[float, float]]:
    """Places that keep away from each other and from the border: each the best of thirty."""
    places: list[tuple[float, float]] = []
    for _ in range(count):
        tried = rng.uniform(0.08, 0.92, (30, 2)) * shape
        room = 2 * np.minimum(tried, shape - tried).min(axis=1)
        for place in places:
            room = np.minimum(room, np.hypot(*(tried - place).T))
        best = tried[int(room.argmax())]
        places.append((float(best[0]), float(best[1])))
    return places


def _field_of_pieces(tissue: NDArray[np.bool_], fields: int) -> Bytes:
    """Number the connected pieces, and give each cell the field of its nearest piece."""
    if not tissue.any():
        return np.zeros(tissue.shape, np.uint8)
    _, pieces = cv2.connectedComponents(tissue.astype(np.uint8), connectivity=8)
    outside = (~tissue).astype(np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(outside, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    piece_of = np.zeros(int(nearest.max()) + 1, np.int64)
    piece_of[nearest[tissue]] = pieces[tissue]
    return np.asarray((piece_of[nearest] - 1) % fields, np.uint8)


def _mirrored(places: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Places on a line that runs to and fro over ``0..size-1``."""
    there = places % (2 * size)
    return np.where(there < size, there, 2 * size - 1 - there)
