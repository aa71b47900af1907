"""What QuPath and ASAP write, in old and new forms, and what is wrong with a file in one line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eosin.slides.annotations import BadAnnotations, read_asap, read_qupath

SQUARE = [[[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]]
HOLE = [[2, 2], [4, 2], [4, 4], [2, 4], [2, 2]]


def feature(name: str | None = "Tumor", kind: str = "Polygon", coordinates: Any = SQUARE, **properties: Any) -> Any:
    label = {} if name is None else {"classification": {"name": name, "color": [200, 0, 0]}}
    geometry = {"type": kind, "coordinates": coordinates}
    properties = {"objectType": "annotation", "isLocked": True, **label, **properties}
    return {"type": "Feature", "id": "0b1c", "geometry": geometry, "properties": properties}


def written(path: Path, content: Any) -> Path:
    text = json.dumps(content).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize("name", ["a.geojson", "a.json", "a.geojson.gz"])
@pytest.mark.parametrize("form", ["collection", "list", "one"])
def test_every_form_of_file_holds_the_same(tmp_path: Path, name: str, form: str) -> None:
    content = {"collection": {"type": "FeatureCollection", "features": [feature()]}, "list": [feature()]}
    read = read_qupath(written(tmp_path / name, content.get(form, feature())))
    (line,) = read.outlines
    assert (line.name, line.colour, line.area, line.box) == ("Tumor", (200, 0, 0), 100, (0, 0, 10, 10))
    assert not read.skipped


def test_pieces_and_holes_are_read(tmp_path: Path) -> None:
    pieces = feature(kind="MultiPolygon", coordinates=[[SQUARE[0], HOLE], [[[20, 0], [30, 0], [30, 10], [20, 10]]]])
    (line,) = read_qupath(written(tmp_path / "a.geojson", [pieces])).outlines
    assert [len(rings) for rings in line.polygons] == [2, 1] and line.area == 196


@pytest.mark.parametrize(
    ("label", "name", "colour"),
    [
        ({"name": "Stroma", "colorRGB": -6895466}, "Stroma", (150, 200, 150)),
        ({"name": "Stroma", "colorRGB": -3670016}, "Stroma", (200, 0, 0)),
        ({"name": "Stroma"}, "Stroma", None),
        ({"name": "Tumor: Positive", "color": [1, 2, 3]}, "Tumor-Positive", (1, 2, 3)),
        ({"names": ["Tumor", "Positive"], "color": [1, 2, 3]}, "Tumor-Positive", (1, 2, 3)),
    ],
)
def test_old_and_new_ways_to_write_a_class(tmp_path: Path, label: Any, name: str, colour: Any) -> None:
    (line,) = read_qupath(written(tmp_path / "a.geojson", [feature(None, classification=label)])).outlines
    assert (line.name, line.colour) == (name, colour)


def test_what_says_nothing_of_an_area_is_counted(tmp_path: Path) -> None:
    old = {**feature(), "id": "PathDetectionObject"}
    del old["properties"]["objectType"]
    content = [
        feature(),
        feature(None),
        feature(None, classification=None),
        feature("Ignore*"),
        feature(objectType="detection"),
        feature(objectType="cell"),
        old,
        feature(kind="LineString", coordinates=[[0, 0], [1, 1]]),
        feature(kind="Point", coordinates=[0, 0]),
    ]
    read = read_qupath(written(tmp_path / "a.geojson", {"features": content}))
    assert len(read.outlines) == 1
    assert read.skipped == {
        "without a class": 2,
        "of class Ignore*": 1,
        "that are no annotations": 3,
        "without area (LineString)": 1,
        "without area (Point)": 1,
    }


def test_an_annotation_of_an_old_version_is_one(tmp_path: Path) -> None:
    old = {**feature(), "id": "PathAnnotationObject"}
    del old["properties"]["objectType"]
    assert len(read_qupath(written(tmp_path / "a.geojson", [old])).outlines) == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b'{"features": 3}', "no list of features"),
        (b"7", "no list of features"),
        (b"[7]", "feature 1 is not as QuPath writes it"),
        (b'[{"properties": {"classification": {"name": "a"}}}]', "feature 1 is not as QuPath writes it .*geometry"),
        (json.dumps([feature(), feature(coordinates=[[[0, 0], [1, 1]]])]).encode(), "feature 2 .*three or more"),
        (json.dumps([feature(coordinates=[[[0, 0], [1, None], [1, 1]]])]).encode(), "feature 1 is not"),
        (json.dumps([feature(coordinates=[[["a", 0], [1, 2], [1, 1]]])]).encode(), "feature 1 is not"),
        (b'[{"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [NaN, 2], [1, 1]]]}, "properties": '
         b'{"classification": {"name": "a"}}}]', "feature 1 .*finite"),
    ],
)  # fmt: skip
def test_a_bad_file_is_told_in_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "a.geojson").write_bytes(content)
    with pytest.raises(BadAnnotations, match=f"a.geojson: .*{says}") as caught:
        read_qupath(tmp_path / "a.geojson")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_cut_short_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadAnnotations, match=r"b.geojson: cannot be read \(No such file"):
        read_qupath(tmp_path / "b.geojson")
    whole = written(tmp_path / "c.geojson.gz", [feature()])
    whole.write_bytes(whole.read_bytes()[:-9])
    with pytest.raises(BadAnnotations, match=r"c.geojson.gz: damaged or not gzip"):
        read_qupath(whole)


ASAP = """<?xml version="1.0"?>
<ASAP_Annotations><Annotations>
<Annotation Name="A" Type="Polygon" PartOfGroup="_0" Color="#F4FA58"><Coordinates>
<Coordinate Order="2" X="10.5" Y="10"/><Coordinate Order="0" X="0.5" Y="0"/><Coordinate Order="1" X="10.5" Y="0"/>
<Coordinate Order="3" X="0.5" Y="10"/></Coordinates></Annotation>
<Annotation Name="B" Type="Dot" PartOfGroup="_0" Color="#F4FA58"><Coordinates>
<Coordinate Order="0" X="1" Y="1"/></Coordinates></Annotation>
</Annotations><AnnotationGroups><Group Name="_0" PartOfGroup="None"/></AnnotationGroups></ASAP_Annotations>
"""


def test_asap_outlines_are_read_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(ASAP)
    read = read_asap(tmp_path / "a.xml")
    (line,) = read.outlines
    assert line.name == "_0" and line.colour is None and line.area == 100
    np.testing.assert_array_equal(line.polygons[0][0], [[0.5, 0], [10.5, 0], [10.5, 10], [0.5, 10]])
    assert read.skipped == {"of type Dot": 1}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<a", "not XML"),
        ("<svg/>", "outer element is 'svg'"),
        (ASAP.replace('X="0.5"', 'X="left"', 1), "annotation 'A' has a wrong coordinate"),
        (ASAP.replace('Order="0" X', "X", 1), "annotation 'A' has a wrong coordinate"),
    ],
)
def test_a_bad_xml_is_told_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(BadAnnotations, match=f"a.xml: .*{says}") as caught:
        read_asap(tmp_path / "a.xml")
    assert "\n" not in str(caught.value)
