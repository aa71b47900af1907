"""Regions of a class map as polygons along pixel edges, made while the map passes by in bands of rows.

A region is all pixels of one class that can be reached from one another over shared pixel edges. Each strip of rows is
cut into connected pieces; pieces that meet at the seam of two strips belong to one region, and a region is put together
once, when none of its pieces reaches the last row seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import shapes
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from shapely.geometry import Polygon

from eosin.wsi.bands import OUTSIDE

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int32]

STRIP = 1 << 24
"""Most pixels that are looked at together; wider maps are cut into lower strips."""


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """One connected region.

    Attributes:
        index: its class.
        pixels: how many pixels it has, which is its area in square pixels.
        polygon: its outline and its holes, in pixels of the map from the top left corner of its top left pixel; x goes
            right, y goes down.
    """

    index: int
    pixels: int
    polygon: Polygon


def regions(rows: Iterable[tuple[int, Pixels]], tolerance: float = 0.0) -> Iterator[Region]:
    """Find the regions of a map.

    Args:
        rows: the first row of each band, and its classes, uint8 ``[rows, width]``, 255 for no region; from top to
            bottom without a gap.
        tolerance: corners are left out, the least first, while their triangle with both neighbours is smaller than the
            square of so many pixels (Visvalingam and Whyatt, 1993). Neighbours share what is left of their border, so
            that there is no gap and no overlap, and no region is lost. Where a border crosses the seam of two
            strips a corner stays. 0 keeps every pixel edge.

    Yields:
        Each region once, as soon as it is closed. With a tolerance of 0 the area of a polygon is its number of pixels.
    """
    unfinished: list[_Part] = []
    seam = np.empty(0, np.int32)  # for each column of the last row: 1 + the unfinished region, 0 for none
    for top, classes in _strips(rows):
        pieces, first, last = _pieces(top, classes, tolerance)
        known = len(unfinished)
        parts = unfinished + pieces
        above, below = _meeting(parts, seam, first, known)
        graph = coo_array((np.ones(len(above), np.int8), (above, below)), shape=(len(parts), len(parts)))
        groups = connected_components(graph, directed=False)[1] if parts else np.empty(0, np.int32)
        joined: dict[int, _Part] = {}
        for group, part in zip(groups.tolist(), parts, strict=True):
            joined[group] = joined[group].with_part(part) if group in joined else part
        reaching, places = np.unique(groups[known - 1 + last[last > 0]], return_inverse=True)
        seam = np.zeros_like(last)
        seam[last > 0] = 1 + places
        unfinished = [joined.pop(group) for group in reaching.tolist()]
        yield from (part.region() for part in joined.values())
    yield from (part.region() for part in unfinished)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What is known of a region: its class, its pixels so far, and the polygons of its pieces."""

    index: int
    pixels: int
    polygons: list[Polygon]

    def with_part(self, other: _Part) -> _Part:
        self.polygons.extend(other.polygons)
        return _Part(self.index, self.pixels + other.pixels, self.polygons)

    def region(self) -> Region:
        whole = self.polygons[0] if len(self.polygons) == 1 else _cornered(shapely.union_all(self.polygons))
        return Region(self.index, self.pixels, whole.normalize())


def _strips(rows: Iterable[tuple[int, Pixels]]) -> Iterator[tuple[int, Pixels]]:
    for top, classes in rows:
        step = max(1, STRIP // classes.shape[1])
        for start in range(0, len(classes), step):
            yield top + start, classes[start : start + step]


def _meeting(
    parts: list[_Part], seam: NDArray[np.int32], first: Labels, known: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of parts of one class that lie above and below a seam: numbers among ``parts``."""
    both = np.flatnonzero((seam > 0) & (first > 0)) if len(seam) else np.empty(0, np.int64)
    pairs = np.unique(np.stack([seam[both] - 1, first[both] - 1 + known], 1).astype(np.int64), axis=0)
    equal = np.array([parts[a].index == parts[b].index for a, b in pairs.tolist()], bool)
    above, below = pairs[equal].T
    return above, below


def _pieces(top: int, classes: Pixels, tolerance: float) -> tuple[list[_Part], Labels, Labels]:
    """The connected pieces of a strip, and which (from 1) its first and its last row belong to, int32 ``[width]``."""
    first, last = np.zeros(classes.shape[1], np.int32), np.zeros(classes.shape[1], np.int32)
    columns = np.flatnonzero((classes != OUTSIDE).any(0))
    if not len(columns):
        return [], first, last
    # One column more on both sides, so that no border with the outside lies on the edge, where nothing is simplified
    left, right = max(0, int(columns[0]) - 1), min(classes.shape[1], int(columns[-1]) + 2)
    strip = np.ascontiguousarray(classes[:, left:right])
    labels, kinds = _labelled(strip, outside=tolerance > 0)
    pixels = np.bincount(labels.reshape(-1), minlength=len(kinds) + 1)[1:].tolist()
    polygons = _outlines(labels, len(kinds))
    if tolerance > 0:
        dense = shapely.transform(shapely.segmentize(polygons, 1.0), np.rint)  # neighbours must share all vertices
        polygons = [_cornered(p) for p in shapely.coverage_simplify(dense, tolerance, simplify_boundary=False)]
    moved = shapely.transform(polygons, lambda xy: xy + np.array([left, top]))
    inside = [kind != OUTSIDE for kind in kinds]
    parts = [_Part(k, n, [p]) for k, n, p, keep in zip(kinds, pixels, moved, inside, strict=True) if keep]
    number = np.concatenate([[0], np.where(inside, np.cumsum(inside), 0)]).astype(np.int32)
    first[left:right], last[left:right] = number[labels[0]], number[labels[-1]]
    return parts, first, last


def _labelled(strip: Pixels, outside: bool) -> tuple[Labels, list[int]]:
    """Number the connected pieces of all classes from 1, int32 ``[H, W]``, and give the class of each."""
    labels = np.zeros(strip.shape, np.int32)
    kinds: list[int] = []
    for kind in np.flatnonzero(np.bincount(strip.reshape(-1), minlength=256)).tolist():
        if kind == OUTSIDE and not outside:
            continue
        here = strip == kind
        count, found = cv2.connectedComponents(here.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
        found += len(kinds)
        np.copyto(labels, found, where=here)
        kinds += [kind] * (count - 1)
    return labels, kinds


def _outlines(labels: Labels, count: int) -> list[Polygon]:
    """The polygon of each piece, along pixel edges."""
    # Diagonal contact is none (connectivity 4): with it, rings would touch themselves and be invalid.
    found: list[Polygon] = [None] * count
    for outline, label in shapes(labels, mask=labels > 0, connectivity=4):
        shell, *holes = outline["coordinates"]
        found[int(label) - 1] = Polygon(shell, holes)
    return found


def _cornered(polygon: Polygon) -> Polygon:
    """Without the vertices in the middle of horizontal and vertical edges."""
    return Polygon(_corners(polygon.exterior), [_corners(ring) for ring in polygon.interiors])


def _corners(ring: shapely.LinearRing) -> NDArray[np.float64]:
    here = shapely.get_coordinates(ring)[:-1]
    straight = (here == np.roll(here, 1, 0)) & (here == np.roll(here, -1, 0))
    return np.asarray(here[~straight.any(1)])
