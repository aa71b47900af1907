"""Reading what people drew on slides: QuPath's GeoJSON and ASAP's XML."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from eosin.core.classes import Colour
from eosin.core.errors import EosinError
from eosin.slides.outlines import Outline, Ring

SUFFIXES = (".geojson", ".geojson.gz", ".json", ".json.gz")

# ASAP draws these as closed outlines; dots, point sets and measurements have no area.
_CLOSED = ("polygon", "rectangle", "spline")
# The kinds of object that QuPath has besides annotations, in the words of its newer files.
_OTHERS = ("detection", "cell", "tile", "tma_core", "root")


class BadAnnotations(EosinError):
    """A file of annotations that cannot be read."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """What a file holds: outlines in the order of the file, and how many objects were skipped, by reason."""

    outlines: tuple[Outline, ...]
    skipped: Mapping[str, int]


def read_qupath(path: Path) -> Annotations:
    """Read annotations that QuPath exported: a FeatureCollection, a bare list of features, or one feature.

    Objects without a class, in a class that QuPath ignores (its name ends in ``*``), detections, and what has no area
    are skipped. Whether an annotation is locked, and its measurements, do not matter. Derived classes as
    ``Tumor: Positive`` are called ``Tumor-Positive``.

    Args:
        path: ``.geojson`` or ``.json``, or either with ``.gz``.

    Raises:
        BadAnnotations: if the file cannot be read, or a feature is not as QuPath writes it.
    """
    content = _json(path)
    features = content.get("features", [content]) if isinstance(content, dict) else content
    if not isinstance(features, list):
        raise BadAnnotations(f"{path}: has no list of features; export annotations as GeoJSON from QuPath")
    outlines, skipped = [], Counter[str]()
    for number, feature in enumerate(features, start=1):
        try:
            found = _feature(feature)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            what = " ".join(f"{type(error).__name__} {error}".split())
            raise BadAnnotations(
                f"{path}: feature {number} is not as QuPath writes it ({what:.80}); export the annotations again"
            ) from None
        if isinstance(found, Outline):
            outlines.append(found)
        else:
            skipped[found] += 1
    return Annotations(tuple(outlines), skipped)


def read_asap(path: Path) -> Annotations:
    """Read an XML file of ASAP; the class of an annotation is the group it is part of.

    Raises:
        BadAnnotations: if the file is no such XML, or coordinates are missing or no numbers.
    """
    try:
        root = ElementTree.fromstring(_bytes(path))
    except ElementTree.ParseError as error:
        raise BadAnnotations(f"{path}: not XML ({error}); copy it again from its source") from None
    if root.tag != "ASAP_Annotations":
        raise BadAnnotations(f"{path}: its outer element is {root.tag!r}, not ASAP_Annotations; save it by ASAP")
    outlines, skipped = [], Counter[str]()
    for element in root.iter("Annotation"):
        if element.get("Type", "").lower() not in _CLOSED:
            skipped[f"of type {element.get('Type')}"] += 1
            continue
        try:
            points = sorted(element.iter("Coordinate"), key=lambda point: int(point.attrib["Order"]))
            ring = _ring([(float(point.attrib["X"]), float(point.attrib["Y"])) for point in points])
        except (KeyError, ValueError) as error:
            name = element.get("Name", "?")
            raise BadAnnotations(f"{path}: annotation {name!r} has a wrong coordinate ({error}); mend it") from None
        outlines.append(Outline(element.get("PartOfGroup", "None"), None, ((ring,),)))
    return Annotations(tuple(outlines), skipped)


def _feature(feature: Mapping[str, Any]) -> Outline | str:
    """The outline of a feature, or why it has none."""
    properties = feature.get("properties") or {}
    kind = str(properties.get("objectType") or properties.get("object_type") or feature.get("id") or "")
    if any(other in kind.lower() for other in _OTHERS):
        return "that are no annotations"
    geometry = feature["geometry"]
    if geometry["type"] not in ("Polygon", "MultiPolygon"):
        return f"without area ({geometry['type']})"
    label = properties.get("classification") or {}
    name = label.get("name") or ": ".join(label.get("names") or ())
    if not name:
        return "without a class"
    if name.endswith("*"):
        return f"of class {name}"
    polygons = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    rings = tuple(tuple(_ring(ring) for ring in polygon) for polygon in polygons if polygon)
    if not rings:
        return "without area (empty)"
    return Outline(_plain(name), _colour(label), rings)


def _plain(name: str) -> str:
    """A class name of the characters that a data set's class may have."""
    return re.sub(r"[^\w .+-]+ *", "-", name.strip()).strip(" .+-") or "class"


def _colour(label: Mapping[str, Any]) -> Colour | None:
    """``color: [r, g, b]``, or ``colorRGB`` as older versions write it: 0xAARRGGBB as a signed number."""
    if (colour := label.get("color")) is not None:
        red, green, blue = (int(part) & 255 for part in colour)
        return red, green, blue
    if (packed := label.get("colorRGB")) is not None:
        return int(packed) >> 16 & 255, int(packed) >> 8 & 255, int(packed) & 255
    return None


def _ring(points: Any) -> Ring:
    ring = np.array(points, np.float64)
    if ring.ndim != 2 or len(ring) < 3 or ring.shape[1] < 2 or not np.isfinite(ring).all():
        raise ValueError("a ring is three or more points of finite numbers")
    return ring[:, :2]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadAnnotations(f"{path}: cannot be read ({error.strerror}); correct the path") from None


def _json(path: Path) -> Any:
    raw = _bytes(path)
    try:
        return json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    except (OSError, EOFError, zlib.error):
        raise BadAnnotations(f"{path}: damaged or not gzip; export the annotations again") from None
    except ValueError as error:
        raise BadAnnotations(f"{path}: not JSON ({error}); export the annotations again") from None
