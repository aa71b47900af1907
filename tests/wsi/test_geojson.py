"""What QuPath opens: a reader that knows nothing of eosin finds the regions again, by geometry and by schema."""

from __future__ import annotations

import gzip
import json
import re
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from shapely.geometry import Polygon, shape

from eosin.wsi.geojson import feature_file, outline
from eosin.wsi.regions import Region, regions
from eosin.wsi.tissues import Shown

TUMOUR = Shown(0, "tumour", "Tumor", (200, 0, 0))
STROMA = Shown(1, "stroma", "stroma", (30, 160, 60))

# What a feature is, in a few words of JSON Schema; an object has exactly its properties.
SCHEMA: dict[str, Any] = {
    "type": dict,
    "properties": {
        "type": {"const": "Feature"},
        "id": {"type": str, "pattern": r"[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"},
        "geometry": {
            "type": dict,
            "properties": {
                "type": {"const": "Polygon"},
                "coordinates": {
                    "type": list,
                    "least": 1,
                    "items": {
                        "type": list,
                        "least": 4,
                        "items": {"type": list, "least": 2, "most": 2, "items": {"type": (int, float)}},
                    },
                },
            },
        },
        "properties": {
            "type": dict,
            "properties": {
                "objectType": {"const": "annotation"},
                "name": {"type": str},
                "classification": {
                    "type": dict,
                    "properties": {
                        "name": {"type": str},
                        "color": {"type": list, "least": 3, "most": 3, "items": {"type": int, "range": (0, 255)}},
                    },
                },
                "measurements": {"type": dict, "properties": {"Area mm^2": {"type": float}}},
                "isLocked": {"const": False},
            },
        },
    },
}


def check(value: Any, schema: dict[str, Any], where: str = "feature") -> None:
    if "const" in schema:
        assert value == schema["const"] and type(value) is type(schema["const"]), where
        return
    assert isinstance(value, schema["type"]) and not (isinstance(value, bool)), where
    assert "pattern" not in schema or re.fullmatch(schema["pattern"], value), where
    if "range" in schema:
        assert schema["range"][0] <= value <= schema["range"][1], where
    if "properties" in schema:
        assert value.keys() == schema["properties"].keys(), where
        for key, inner in schema["properties"].items():
            check(value[key], inner, f"{where}.{key}")
    if "items" in schema:
        assert schema.get("least", 0) <= len(value) <= schema.get("most", len(value)), where
        for number, item in enumerate(value):
            check(item, schema["items"], f"{where}[{number}]")


def drawn() -> np.ndarray:
    classes = np.random.default_rng(0).integers(0, 3, (40, 30)).astype(np.uint8)
    classes[classes == 2] = 255
    classes[10:30, 5:25] = 0
    classes[15:20, 10:15] = 255
    return classes


def written(path: Path, scale: float, classes: np.ndarray, slide: str = "a") -> list[Region]:
    found = list(regions([(0, classes)]))
    with feature_file(path, slide, scale, 0.5) as file:
        for region in found:
            file.add(region, (TUMOUR, STROMA)[region.index])
    return found


def read(path: Path) -> dict[str, Any]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return json.load(file)


@pytest.mark.parametrize("scale", [1.0, 2.0, 1.98765])
def test_an_independent_reader_finds_every_region_in_full_resolution_pixels(tmp_path: Path, scale: float) -> None:
    found = written(tmp_path / "r.geojson.gz", scale, drawn())
    collection = read(tmp_path / "r.geojson.gz")
    assert collection.keys() == {"type", "features"} and collection["type"] == "FeatureCollection"
    assert len(collection["features"]) == len(found) > 50
    for feature, region in zip(collection["features"], found, strict=True):
        check(feature, SCHEMA)
        polygon = shape(feature["geometry"])
        assert polygon.is_valid and polygon.area == pytest.approx(region.pixels * scale**2, rel=0.02)
        expected = shapely.transform(region.polygon, lambda xy: xy * scale)
        assert polygon.hausdorff_distance(expected) <= 7.2e-5  # half a ten-thousandth, in both directions
        shown = (TUMOUR, STROMA)[region.index]
        said = feature["properties"]
        assert said["name"] == shown.name
        assert said["classification"] == {"name": shown.label, "color": list(shown.colour)}
        assert said["measurements"]["Area mm^2"] == pytest.approx(region.pixels * 0.25e-6)
    assert any(len(f["geometry"]["coordinates"]) > 1 for f in collection["features"])


def test_areas_are_exact_where_the_scale_is_whole_and_neighbours_meet_at_any_scale(tmp_path: Path) -> None:
    classes = drawn()
    for scale in (2.0, 1.98765):
        written(tmp_path / "r.geojson.gz", scale, classes)
        features = read(tmp_path / "r.geojson.gz")["features"]
        polygons = np.array([shape(f["geometry"]) for f in features])
        left, right = shapely.STRtree(polygons).query(polygons)
        pairs = left < right
        assert shapely.area(shapely.intersection(polygons[left[pairs]], polygons[right[pairs]])).sum() == 0
        for kind, label in ((0, "Tumor"), (1, "stroma")):
            mine = [f["properties"]["classification"]["name"] == label for f in features]
            expected = (classes == kind).sum() * scale**2
            assert shapely.area(polygons[mine]).sum() == (expected if scale == 2 else pytest.approx(expected, rel=1e-3))


@pytest.mark.parametrize("scale", [2.0, 1.98765])
def test_simplified_neighbours_meet_at_any_scale(tmp_path: Path, scale: float) -> None:
    classes = np.random.default_rng(0).integers(0, 2, (60, 60)).astype(np.uint8)
    with feature_file(tmp_path / "r.geojson.gz", "a", scale, 0.5) as file:
        for region in regions([(0, classes[:25]), (25, classes[25:])], 2.0):
            file.add(region, (TUMOUR, STROMA)[region.index])
    polygons = np.array([shape(f["geometry"]) for f in read(tmp_path / "r.geojson.gz")["features"]])
    assert shapely.is_valid(polygons).all()
    whole = shapely.union_all(polygons)
    assert whole.area == pytest.approx(shapely.area(polygons).sum(), abs=1e-6)
    assert whole.symmetric_difference(shapely.box(0, 0, 60 * scale, 60 * scale)).area < 0.05


def test_each_feature_has_its_line(tmp_path: Path) -> None:
    found = written(tmp_path / "r.geojson.gz", 2.0, drawn())
    lines = gzip.decompress((tmp_path / "r.geojson.gz").read_bytes()).decode().splitlines()
    assert len(lines) == len(found) + 2
    assert all(json.loads(line.rstrip(","))["type"] == "Feature" for line in lines[1:-1])


def test_the_same_regions_give_the_same_bytes_and_other_slides_other_identifiers(tmp_path: Path) -> None:
    for name, slide in (("a", "a"), ("again", "a"), ("b", "b")):
        written(tmp_path / name, 2.0, drawn(), slide)
    first, again, other = ((tmp_path / name).read_bytes() for name in ("a", "again", "b"))
    assert first == again
    ids = [{f["id"] for f in read(tmp_path / name)["features"]} for name in ("a", "b")]
    assert len(ids[0]) == len(ids[1]) == len(read(tmp_path / "a")["features"]) and not ids[0] & ids[1]
    assert all(uuid.UUID(text).version == 5 for text in ids[0])
    assert first != other


def test_a_slide_without_tissue_is_an_empty_collection(tmp_path: Path) -> None:
    written(tmp_path / "r.geojson.gz", 2.0, np.full((3, 3), 255, np.uint8))
    assert read(tmp_path / "r.geojson.gz") == {"type": "FeatureCollection", "features": []}


def test_nothing_is_left_of_a_file_that_was_not_finished(tmp_path: Path) -> None:
    with pytest.raises(KeyError), feature_file(tmp_path / "r.geojson.gz", "a", 2.0, 0.5) as file:
        file.add(Region(0, 1, Polygon([(0, 0), (1, 0), (1, 1), (0, 1)])), TUMOUR)
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_outer_rings_turn_against_the_clock_and_holes_with_it() -> None:
    polygon = Polygon([(0, 0), (0, 4), (4, 4), (4, 0)], [[(1, 1), (2, 1), (2, 2), (1, 2)]])
    shell, hole = outline(polygon, 1.5)["coordinates"]
    assert shapely.is_ccw(shapely.LinearRing(shell)) and not shapely.is_ccw(shapely.LinearRing(hole))
    assert {type(x) for x in (*shell[0], *hole[0])} <= {int, float} and [6, 6] in shell and [1.5, 1.5] in hole
