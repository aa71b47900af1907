"""Regions as GeoJSON that QuPath opens: one feature a line, compressed, written while the regions come in."""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon

from eosin.core.artifact import atomic_file
from eosin.wsi.regions import Region
from eosin.wsi.tissues import Shown

_OURS = uuid.UUID("6f0f2b0e-6c1d-5a38-9a3c-0e6d0c2c5a11")
_DIGITS = 4  # after the point of a coordinate: finer than a corner can be near an edge that it is not on


class FeatureFile:
    """An open GeoJSON file; see :func:`feature_file`."""

    def __init__(self, file: gzip.GzipFile, slide: str, scale: float, mpp: float) -> None:
        self._file, self._slide, self._scale = file, slide, scale
        self._mm2 = mpp * mpp / 1e6
        self._before = b""

    def add(self, region: Region, shown: Shown) -> None:
        """Write a region of the class ``shown``."""
        geometry = json.dumps(outline(region.polygon, self._scale), separators=(",", ":"))
        # Named by what it is, so that the same regions give the same bytes.
        name = uuid.uuid5(_OURS, "\n".join([self._slide, shown.name, geometry]))
        properties = {
            "objectType": "annotation",
            "name": shown.name,
            "classification": {"name": shown.label, "color": list(shown.colour)},
            "measurements": {"Area mm^2": round(region.pixels * self._mm2, 12)},
            "isLocked": False,
        }
        said = json.dumps(properties, separators=(",", ":"))
        feature = f'{{"type":"Feature","id":"{name}","geometry":{geometry},"properties":{said}}}'
        self._file.write(self._before + feature.encode())
        self._before = b",\n"


@contextmanager
def feature_file(path: Path, slide: str, scale: float, mpp: float) -> Iterator[FeatureFile]:
    """Write a gzipped FeatureCollection whole or not at all; the same regions give the same bytes.

    Args:
        path: the file.
        slide: its name is part of the identifiers.
        scale: full-resolution pixels per pixel of the regions.
        mpp: micrometres per pixel of the regions. The area of a region is that of its pixels, also where its outline
            is simplified.
    """
    with (
        atomic_file(path) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as file,
    ):
        file.write(b'{"type":"FeatureCollection","features":[\n')
        yield FeatureFile(file, slide, scale, mpp)
        file.write(b"\n]}\n")


def outline(polygon: Polygon, scale: float) -> dict[str, Any]:
    """A polygon as GeoJSON, scaled and rounded; the outer ring turns as GeoJSON wants it."""
    turned = shapely.orient_polygons(polygon)
    rings = [np.round(shapely.get_coordinates(ring) * scale, _DIGITS) for ring in (turned.exterior, *turned.interiors)]
    return {"type": "Polygon", "coordinates": [_numbers(ring) for ring in rings]}


def _numbers(ring: NDArray[np.float64]) -> list[list[float]]:
    """Whole numbers without a point: most slides are predicted at a whole part of their resolution."""
    whole = bool((ring == np.rint(ring)).all())
    found: list[list[float]] = (ring.astype(np.int64) if whole else ring).tolist()
    return found
