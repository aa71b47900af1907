"""Where a slide has tissue: found on a coarse view of it, or read from a file that somebody drew or corrected."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eosin.core.artifact import read_json, write_bytes
from eosin.core.errors import EosinError
from eosin.slides.image import png_bytes, read_mask
from eosin.slides.pieces import turn_small
from eosin.slides.slide import Pixels, PixelSize, Slide

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]
Places = NDArray[np.float64]

MPP = 8.0  # um per pixel of a tissue mask
_FINE = 4.1  # um per pixel, the coarsest level it is found on: JPEG spreads colour over squares of 16 pixels
_READ = 16_000_000  # bytes of a level that are read at once
_STRIP = 2_000_000  # pixels of the view that are looked at at once
_SEEN = 1_000_000  # pixels of the view that tell the colour of the empty slide
_BLOCK = 1024  # pixels, side of what is interpolated at once

_COLOURED = 0.03  # difference between optical densities from which on a pixel is stained
_GREY = 0.15  # of the largest density: what differs less is grey; mixtures of haematoxylin and eosin differ by half
_INK = 0.35  # by which red is absorbed more than green in blue and green ink, and never in H&E
_INK_RIM = 16.0  # um around ink that are ink too
_SOFT = 4.0  # um, standard deviation of the blur before all this
_GAP = 24.0  # um that are closed between pieces
_DUST = 10_000.0  # um2; smaller pieces are dropped
_DUST_SHARE = 0.05  # of the slide; nor is more than this dropped, however small the slide
_HOLE = 20_000.0  # um2; smaller holes are filled
_GLASS_LEAST = 160  # green of the darkest empty slide
_GLASS_PINK = 8  # by which green of an empty slide may lie below both red and blue
_NEUTRAL = (245.0, 245.0, 245.0)  # taken for the empty slide where none is seen


class BadTissue(EosinError):
    """A file of tissue that cannot be taken as it is."""


@dataclass(frozen=True, slots=True)
class Tissue:
    """Where a slide has tissue, as a mask that spans the whole slide.

    Attributes:
        mask: bool ``[h, w]``.
        size: rows and columns of the slide at full resolution.
    """

    mask: Mask
    size: tuple[int, int]

    @property
    def share(self) -> float:
        """The share of the slide that is tissue."""
        return float(self.mask.mean())

    def at(self, top: int, left: int, height: int, width: int, scale: float) -> Mask:
        """Where a rectangle is tissue.

        The mask is interpolated between the centres of its pixels, and tissue is where at least half is. This is done
        for the centre of each pixel of the slide, so that a piece is exactly that piece of the whole.

        Args:
            top: first row, in pixels of the asked scale; may lie outside the slide, where there is no tissue.
            left: first column, likewise.
            height: rows.
            width: columns.
            scale: full-resolution pixels per pixel.

        Returns:
            bool ``[height, width]``.
        """
        found = np.zeros((height, width), np.bool_)
        for y in range(0, height, _BLOCK):
            for x in range(0, width, _BLOCK):
                rows = _centres(top + y, top + min(y + _BLOCK, height), scale)
                columns = _centres(left + x, left + min(x + _BLOCK, width), scale)
                found[y : y + _BLOCK, x : x + _BLOCK] = self._block(rows, columns)
        return found

    def _block(self, rows: Places, columns: Places) -> Mask:
        """Where the crossings of rows and columns, in full-resolution pixels, are tissue."""
        within = np.logical_and.outer(*((p >= 0) & (p <= n) for p, n in zip((rows, columns), self.size, strict=True)))
        y, down = _between(rows * self.mask.shape[0] / self.size[0], self.mask.shape[0])
        x, right = _between(columns * self.mask.shape[1] / self.size[1], self.mask.shape[1])
        part = self.mask[y[0] : y[-1] + 2, x[0] : x[-1] + 2]
        if part.all() or not part.any():
            return np.asarray(within & part[0, 0])
        y, x = y - y[0], x - x[0]
        below, beside = np.minimum(y + 1, part.shape[0] - 1), np.minimum(x + 1, part.shape[1] - 1)
        between = part[y] * (1 - down[:, None]) + part[below] * down[:, None]
        return np.asarray(within & (between[:, x] * (1 - right) + between[:, beside] * right >= 0.5))

    def write(self, path: Path) -> None:
        """Write the mask as PNG, tissue white. :func:`read_tissue` reads it, also after somebody has painted on it."""
        write_bytes(path, png_bytes(np.where(self.mask, np.uint8(255), np.uint8(0))))


def _centres(first: int, behind: int, scale: float) -> Places:
    """Full-resolution places of the centres of rows or columns."""
    return (np.arange(first, behind, dtype=np.float64) + 0.5) * scale


def _between(places: Places, cells: int) -> tuple[NDArray[np.int64], Places]:
    """The cell whose centre lies before each place, and how far the place is on the way to the next centre, 0..1."""
    beyond = np.clip(places - 0.5, 0, cells - 1)
    cell = np.minimum(beyond.astype(np.int64), max(0, cells - 2))
    return cell, beyond - cell


def find_tissue(slide: Slide, pixel_size: PixelSize) -> Tissue:
    """Find the tissue of a slide.

    The empty slide has no colour of its own, however bright it is; stained tissue has, however pale. So the colour of
    the empty slide is taken from the slide, and tissue is where optical densities relative to it differ between the
    channels. This leaves out shadows, grey dust and black ink. Blue and green ink absorb more red than green, which no
    mixture of haematoxylin and eosin does, and are left out too; red ink is not told from blood. Small pieces are
    dropped, small holes filled.

    Raises:
        BadSlide: if pixels cannot be decoded.
    """
    full, (height, width) = slide.levels[0], _cells(slide, pixel_size)
    um = pixel_size.mpp * math.sqrt(full.height * full.width / (height * width))
    every = max(1, math.isqrt(height * width // _SEEN))
    seen = [
        view[-top % every :: every, ::every].copy() for top, _, view in _strips(slide, height, width, pixel_size, 0)
    ]
    white = _empty_slide(np.concatenate(seen))
    mask, reach = np.empty((height, width), np.bool_), _reach(um)
    for top, bottom, view in _strips(slide, height, width, pixel_size, reach):
        first = min(top, reach)
        mask[top:bottom] = _stained(view, white, um)[first : first + bottom - top]
    turn_small(mask, True, min(_DUST / um**2, _DUST_SHARE * mask.size))
    turn_small(mask, False, _HOLE / um**2)
    return Tissue(mask, (full.height, full.width))


def _strips(
    slide: Slide, height: int, width: int, pixel_size: PixelSize, reach: int
) -> Iterator[tuple[int, int, Pixels]]:
    """The whole slide as a view of ``height`` x ``width``, whose pixels are means of those of a finer level, in strips.

    Yields:
        The first row of a strip, that after its last, and its pixels with ``reach`` rows more above and below, or as
        many as the view has there.
    """
    wanted = _FINE / pixel_size.mpp
    index = max((i for i, level in enumerate(slide.levels) if level.downsample <= wanted), default=0)
    level = slide.levels[index]
    factor = level.height / height
    step = max(1, min(int(_READ / (3 * level.width * factor)), _STRIP // width))
    for top in range(0, height, step):
        bottom = min(top + step, height)
        above, below = max(0, top - reach), min(bottom + reach, height)
        first, last = math.floor(above * factor), min(level.height, math.ceil(below * factor))
        strip = Image.fromarray(slide.read(index, first, 0, last - first, level.width))
        box = (0, above * factor - first, level.width, min(below * factor - first, last - first))
        yield top, bottom, np.asarray(strip.resize((width, below - above), Image.Resampling.BOX, box))


def _cells(slide: Slide, pixel_size: PixelSize) -> tuple[int, int]:
    """Rows and columns of a mask at about ``MPP``."""
    full, cell = slide.levels[0], max(1.0, MPP / pixel_size.mpp)
    return max(1, round(full.height / cell)), max(1, round(full.width / cell))


def _reach(um: float) -> int:
    """How many rows away a pixel of the view has a say in :func:`_stained`."""
    blur = math.ceil(4 * _SOFT / um) + 1  # how far OpenCV's kernel of this blur goes
    return blur + _radius(_INK_RIM / um) + 2 * _radius(_GAP / 2 / um)


def _stained(view: Pixels, white: Floats, um: float) -> Mask:
    """Where a view of ``um`` per pixel has a colour of its own that is not that of ink; gaps are closed."""
    density = np.maximum(np.log((white + 1) / (view.astype(np.float32) + 1)), 0)  # what is brighter is no tissue
    density = cv2.GaussianBlur(density, (0, 0), _SOFT / um)
    most = density.max(-1)
    stained = most - density.min(-1) > np.maximum(_COLOURED, _GREY * most)
    ink = (density[..., 0] - density[..., 1] > _INK).astype(np.uint8)
    free = cv2.dilate(ink, _disc(_INK_RIM / um)) == 0
    closed = cv2.morphologyEx((stained & free).astype(np.uint8), cv2.MORPH_CLOSE, _disc(_GAP / 2 / um))
    return np.asarray((closed > 0) & free)


def _empty_slide(view: Pixels) -> Floats:
    """The colour of the empty slide ``[3]``: the brightest one in green, which every stain absorbs.

    Pixels of pure white are no glass: scanners fill in what they did not scan. Where the brightest pixels are pink,
    there is no empty slide in view.
    """
    pixels = view.reshape(-1, 3)
    pixels = pixels[(pixels < 255).any(-1)]
    if len(pixels):
        green = pixels[:, 1]
        bright = pixels[green >= np.percentile(green, 99) - 6]
        red, middle, blue = np.median(bright, axis=0)
        if middle >= _GLASS_LEAST and middle >= min(red, blue) - _GLASS_PINK:
            return np.array([red, middle, blue], np.float32)
    return np.array(_NEUTRAL, np.float32)


def _radius(radius: float) -> int:
    return max(1, round(radius))


def _disc(radius: float) -> Pixels:
    reach = _radius(radius)
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    return np.asarray(y * y + x * x <= reach * reach, np.uint8)


def read_tissue(path: Path, slide: Slide, pixel_size: PixelSize) -> Tissue:
    """Read where a slide has tissue.

    Args:
        path: GeoJSON (``.geojson``, ``.json``) whose polygons, in full-resolution pixels, are tissue, with holes; or
            an image of the slide's aspect ratio and any size, tissue wherever it is not 0.
        slide: the slide that it is of.
        pixel_size: of the slide.

    Raises:
        BadTissue: for GeoJSON without polygons or with damaged ones, polygons that cover nothing of the slide, and an
            image of another aspect ratio.
        EosinError: for a file that is missing or cannot be read.
    """
    size = slide.levels[0].height, slide.levels[0].width
    if path.suffix.lower() in (".geojson", ".json"):
        return Tissue(_drawn(path, size, _cells(slide, pixel_size)), size)
    mask = read_mask(path) > 0
    height, width = mask.shape
    if abs(height * size[1] / size[0] - width) > max(1.0, 0.01 * width):
        raise BadTissue(
            f"{path}: {height} x {width} pixels, and the slide has {size[0]} x {size[1]}; "
            "give a mask of the whole slide, in its aspect ratio"
        )
    return Tissue(mask, size)


def _drawn(path: Path, size: tuple[int, int], cells: tuple[int, int]) -> Mask:
    """The polygons of a file, filled where they hold the centre of a cell."""
    from rasterio import Affine
    from rasterio.features import rasterize

    polygons = [polygon for number, feature in _features(path) for polygon in _polygons(path, number, feature)]
    if not polygons:
        raise BadTissue(f"{path}: no polygons in it; draw the tissue as areas and export these")
    to_slide = Affine(size[1] / cells[1], 0, 0, 0, size[0] / cells[0], 0)
    mask = np.asarray(rasterize(polygons, cells, transform=to_slide, dtype=np.uint8) > 0)
    if not mask.any():
        raise BadTissue(
            f"{path}: its polygons cover nothing of the slide of {size[0]} x {size[1]} pixels; "
            "coordinates are full-resolution pixels from the top left"
        )
    return mask


def _features(path: Path) -> Iterator[tuple[int, Any]]:
    """The features of a file, numbered from 1: a collection, a list, or a single one, as QuPath exports them."""
    content = read_json(path)
    if isinstance(content, dict) and content.get("type") == "FeatureCollection":
        content = content.get("features")
    elif isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        raise BadTissue(f"{path}: not GeoJSON features; export the annotations as GeoJSON")
    return enumerate(content, start=1)


def _polygons(path: Path, number: int, feature: Any) -> Iterator[dict[str, Any]]:
    """The polygons of a feature; points and lines hold no area and are passed over."""
    from shapely.errors import ShapelyError
    from shapely.geometry import shape

    given = feature.get("geometry") if isinstance(feature, dict) else None
    geometry: dict[str, Any] = given if isinstance(given, dict) else {}
    kind = geometry.get("type")
    if kind in ("Point", "MultiPoint", "LineString", "MultiLineString"):
        return
    if kind not in ("Polygon", "MultiPolygon"):
        raise BadTissue(f"{path}: feature {number}: geometry {json.dumps(kind)}; only polygons are tissue")
    try:
        valid = 0 < shape(geometry).area < math.inf
    except (ValueError, TypeError, KeyError, IndexError, ShapelyError):
        valid = False
    if not valid:
        raise BadTissue(f"{path}: feature {number}: its polygon is damaged; export it again")
    yield geometry
