"""What is written for a slide: the same map in each file, uncertain tissue, regions left out, and no half files."""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image
from shapely.geometry import shape

from eosin.core.classes import Classes
from eosin.core.errors import WrongUse
from eosin.predictor.domain import Domain, Spread
from eosin.wsi.bands import OUTSIDE
from eosin.wsi.options import OutcomeOptions
from eosin.wsi.outcome import FILES, write_outcome
from eosin.wsi.tissues import UNCERTAIN
from small_model import CLASSES, card
from wsi_bands import bands_of, view_of

PLAIN = OutcomeOptions()


def tissue_map() -> np.ndarray:
    """Tumour with a hole of stroma, a far-off pixel of tumour, glass around."""
    classes = np.full((40, 50), OUTSIDE, np.uint8)
    classes[5:35, 10:40] = 0
    classes[15:25, 15:30] = 1
    classes[2, 45] = 0
    return classes


def outcome(folder: Path, classes: np.ndarray, options: OutcomeOptions = PLAIN, **changes: Any) -> dict[str, Any]:
    confidence = changes.pop("confidence", None)
    model = card(classes=changes.pop("tissues", CLASSES), domain=changes.pop("domain", None))
    bands = bands_of(folder / "bands", classes, confidence)
    return write_outcome(folder / "out", bands, view_of(classes, **changes), model, options)


def features(folder: Path) -> list[dict[str, Any]]:
    with gzip.open(folder / "out" / "regions.geojson.gz", "rt") as file:
        return json.load(file)["features"]


def table(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "out" / "areas.csv").open(newline="") as file:
        return {row["class"]: row for row in csv.DictReader(file)}


def test_every_file_tells_of_the_same_map(tmp_path: Path) -> None:
    classes = tissue_map()
    values = outcome(tmp_path, classes)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / "classes.tif"), classes)
    for index, name in enumerate(CLASSES.names):
        pixels = int((classes == index).sum())
        mine = [f for f in features(tmp_path) if f["properties"]["name"] == name]
        assert sum(shape(f["geometry"]).area for f in mine) == pixels * 4
        assert values["classes"][name]["pixels"] == pixels
        assert values["classes"][name]["regions"] == len(mine) == int(table(tmp_path)[name]["n_regions"])
        assert float(table(tmp_path)[name]["area_mm2"]) == pytest.approx(pixels * 0.25e-6)
        assert float(table(tmp_path)[name]["fraction_of_tissue"]) == pytest.approx(pixels / 901)
    assert values["tissue_mm2"] == pytest.approx(901 * 0.25e-6)
    assert (values["left_out"], values["out_of_domain"]) == (0, [])
    assert table(tmp_path)["tumour"]["model"].startswith("cam-") and table(tmp_path)["tumour"]["slide"] == "slide one"


def test_the_class_map_is_a_slide_with_its_colours_and_its_pixel_size(tmp_path: Path) -> None:
    outcome(tmp_path, tissue_map())
    with openslide.OpenSlide(tmp_path / "out" / "classes.tif") as slide:
        assert slide.dimensions == (50, 40)
        assert float(slide.properties["tiff.XResolution"]) == pytest.approx(1e4 / 0.5)
        picture = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    assert tuple(picture[10, 12]) == CLASSES.colours[0] and tuple(picture[20, 20]) == CLASSES.colours[1]
    assert tuple(picture[0, 0]) == (255, 255, 255)


def test_the_same_prediction_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        outcome(tmp_path / name, tissue_map(), OutcomeOptions(0.5, "qupath", 1.0, 1.0))
    for file in FILES:
        assert (tmp_path / "a" / "out" / file).read_bytes() == (tmp_path / "b" / "out" / file).read_bytes(), file


def test_tissue_below_the_threshold_is_uncertain_in_every_file(tmp_path: Path) -> None:
    classes = tissue_map()
    confidence = np.where(classes == OUTSIDE, 0, 200).astype(np.uint8)
    confidence[6:9, 11:14] = 152  # 0.596; 0.6 is 153 of 255
    confidence[20:22, 20:22] = 153
    values = outcome(tmp_path, classes, OutcomeOptions(abstain=0.6), confidence=confidence)
    written = tifffile.imread(tmp_path / "out" / "classes.tif")
    expected = classes.copy()
    expected[6:9, 11:14] = UNCERTAIN
    np.testing.assert_array_equal(written, expected)
    assert values["classes"]["uncertain"] == {"pixels": 9, "fraction": 9 / 901, "mm2": 9 * 0.25e-6, "regions": 1}
    assert table(tmp_path)["uncertain"]["n_regions"] == "1"
    assert int(values["classes"]["tumour"]["pixels"]) == (classes == 0).sum() - 9
    unsure = [f for f in features(tmp_path) if f["properties"]["name"] == "uncertain"]
    assert [shape(f["geometry"]).bounds for f in unsure] == [(22, 12, 28, 18)]


def test_without_a_threshold_nothing_is_uncertain(tmp_path: Path) -> None:
    values = outcome(tmp_path, tissue_map(), confidence=np.ones((40, 50), np.uint8))
    assert list(values["classes"]) == list(CLASSES.names)


def test_small_regions_are_counted_but_not_drawn(tmp_path: Path) -> None:
    values = outcome(tmp_path, tissue_map(), OutcomeOptions(min_area=0.26))  # one pixel has 0.25 um2
    assert values["left_out"] == 1 and values["classes"]["tumour"]["regions"] == 2
    assert table(tmp_path)["tumour"]["n_regions"] == "2"
    assert len([f for f in features(tmp_path) if f["properties"]["name"] == "tumour"]) == 1
    assert outcome(tmp_path / "all", tissue_map(), OutcomeOptions(min_area=0.25))["left_out"] == 0


def test_the_palette_of_qupath_has_its_names_where_classes_match(tmp_path: Path) -> None:
    outcome(tmp_path, tissue_map(), OutcomeOptions(palette="qupath"))
    found = {f["properties"]["name"]: f["properties"]["classification"] for f in features(tmp_path)}
    assert found == {
        "tumour": {"name": "Tumor", "color": [200, 0, 0]},
        "stroma": {"name": "Stroma", "color": [150, 200, 150]},
    }
    assert list(table(tmp_path)) == list(CLASSES.names)
    outcome(tmp_path / "own", tissue_map())
    own = {f["properties"]["name"]: f["properties"]["classification"]["color"] for f in features(tmp_path / "own")}
    assert own["tumour"] == list(CLASSES.colours[0])


def test_outlines_are_simplified_in_micrometres_and_areas_stay(tmp_path: Path) -> None:
    yy, xx = np.mgrid[:80, :80]
    disc = np.where((yy - 40) ** 2 + (xx - 40) ** 2 < 30**2, 0, OUTSIDE).astype(np.uint8)
    exact = outcome(tmp_path / "exact", disc)
    rough = outcome(tmp_path / "rough", disc, OutcomeOptions(simplify=1.0))
    assert exact == rough
    corners = [len(features(tmp_path / name)[0]["geometry"]["coordinates"][0]) for name in ("exact", "rough")]
    assert corners[1] < corners[0] / 2
    areas = [features(tmp_path / name)[0]["properties"]["measurements"] for name in ("exact", "rough")]
    assert areas[0] == areas[1]


def test_a_slide_unlike_the_training_tiles_is_told_in_result_and_picture(tmp_path: Path) -> None:
    near = Spread(mean=0.3, sd=0.1)
    domain = Domain(red=near, green=near, blue=near, blur=near, mpp=0.5, tiles=3)
    values = outcome(tmp_path, tissue_map(), domain=domain, measured=np.array([[0.3, 0.9, 0.3, 0.3]]))
    assert values["out_of_domain"] == [
        "out of domain: optical density of green is 0.900, 6.0 sd from the training tiles (mean 0.300, sd 0.100)"
    ]
    outcome(tmp_path / "near", tissue_map(), domain=domain, measured=np.array([[0.3, 0.4, 0.3, 0.3]]))
    tall, low = (Image.open(folder / "out" / "overview.png").size[1] for folder in (tmp_path, tmp_path / "near"))
    assert tall > low


def test_a_slide_that_is_scanned_coarser_than_it_is_predicted_is_told(tmp_path: Path) -> None:
    near = Spread(mean=0.3, sd=0.1)
    domain = Domain(red=near, green=near, blue=near, blur=near, mpp=0.5, tiles=3)
    view = view_of(tissue_map())
    coarse = replace(view.pixel_size, mpp=1.0)
    values = outcome(tmp_path, tissue_map(), domain=domain, pixel_size=coarse)
    assert values["out_of_domain"] == ["out of domain: 1 um per pixel; the training tiles have 0.5 (sd 0)"]


def test_a_slide_without_tissue_has_all_files(tmp_path: Path) -> None:
    values = outcome(tmp_path, np.full((10, 12), OUTSIDE, np.uint8), OutcomeOptions(abstain=0.5))
    assert values["tissue_mm2"] == 0 and features(tmp_path) == []
    assert {row["area_mm2"] for row in table(tmp_path).values()} == {"0"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"abstain": 0.0}, "--abstain 0 "),
        ({"abstain": 1.5}, "--abstain 1.5 "),
        ({"palette": "qpath"}, "did you mean 'qupath'"),
        ({"min_area": -1.0}, "--min-area -1 "),
        ({"simplify": float("inf")}, "--simplify inf "),
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(WrongUse, match=said):
        OutcomeOptions(**wrong)


def test_a_model_that_says_uncertain_itself_cannot_abstain(tmp_path: Path) -> None:
    first, *others = CLASSES
    classes = Classes(tissues=(first.model_copy(update={"name": "uncertain"}), *others))
    with pytest.raises(WrongUse, match="'uncertain' of its own"):
        outcome(tmp_path, tissue_map(), OutcomeOptions(abstain=0.5), tissues=classes)
