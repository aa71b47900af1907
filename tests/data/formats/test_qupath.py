"""Annotations from QuPath: what they say of patches, masks, splits, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.formats.drawing import draw, draw_pyramid, errors, kinds
from eosin import verbs
from eosin.core.errors import EosinError, WrongUse
from eosin.data.dataset import Dataset
from eosin.data.formats import import_dataset, qupath
from eosin.slides.image import read_mask, read_rgb
from eosin.slides.open import open_slide

RED, GREEN = [200, 0, 0], [0, 200, 0]


def box(name: str, left: float, top: float, right: float, bottom: float, colour: Any = None) -> dict[str, Any]:
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    label = {"name": name, "color": colour or (RED if name == "Tumor" else GREEN)}
    return {
        "type": "Feature",
        "id": "1",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": label},
    }


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


class Case:
    """Slides of 256 px at 0.25 um, patches of 32 px at 0.5 um: four by four, each 64 px of the slide."""

    def __init__(self, folder: Path) -> None:
        self.slides, self.drawn, self.out = folder / "slides", folder / "geojson", folder / "out"
        self.slides.mkdir()
        self.drawn.mkdir()

    def add(self, name: str, *features: dict[str, Any], suffix: str = ".tif") -> Path:
        path = draw_pyramid(self.slides / f"{name}{suffix}", noise(256, 256, len(list(self.slides.iterdir()))))
        (self.drawn / f"{name}.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        return path

    def imported(self, **options: Any) -> Dataset:
        sources = [self.slides, self.drawn]
        settings = {"tile": 32, **options}
        return import_dataset("qupath", sources, self.out, settings, handed={"open_slide": open_slide})

    def tags(self, **options: Any) -> dict[str, list[float | None]]:
        """Tags by the place of a patch, as ``y_x`` in patches."""
        data = self.imported(**options)
        items = data.items("train")
        places = [[int(part) // 32 for part in name.split("_")[-2:]] for name in items.ids]
        known = [[None if np.isnan(tag) else float(tag) for tag in row] for row in items.tags]
        return {f"{y}_{x}": row for (y, x), row in zip(places, known, strict=True)}


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_a_rectangle_tags_the_patches_in_it(case: Case) -> None:
    case.add("a", box("Tumor", 0, 0, 128, 64), box("Stroma", 128, 192, 256, 256))
    assert case.tags() == {"0_0": [0, 1], "0_1": [0, 1], "3_2": [1, 0], "3_3": [1, 0]}  # Stroma, Tumor


def test_two_rectangles_in_one_place_say_both(case: Case) -> None:
    case.add("a", box("Tumor", 0, 0, 64, 64), box("Stroma", 0, 0, 64, 64))
    assert case.tags() == {"0_0": [1, 1]}


def test_what_is_not_annotated_is_unknown(case: Case) -> None:
    """Three quarters of the first patch are annotated, a quarter of the second, 62 of 64 columns of the third."""
    case.add("a", box("Tumor", 0, 0, 48, 64), box("Tumor", 64, 0, 80, 64), box("Stroma", 128, 0, 190, 64))
    assert case.tags() == {"0_0": [None, 1], "0_2": [1, 0]}


def test_how_much_must_be_covered_can_be_said(case: Case) -> None:
    case.add("a", box("Tumor", 0, 0, 48, 64), box("Tumor", 64, 0, 80, 64), box("Stroma", 0, 64, 64, 128))
    assert case.tags(cover=0.25) == {"0_0": [None, 1], "0_1": [None, 1], "1_0": [1, 0]}


def test_a_sliver_is_not_present(case: Case) -> None:
    """Two of 64 columns are 3 %: below the rule of 5 %, above one of 1 %."""
    case.add("a", box("Tumor", 0, 0, 62, 64), box("Stroma", 62, 0, 64, 64))
    assert case.tags() == {"0_0": [0, 1]}


def test_the_rule_of_presence_can_be_changed(case: Case) -> None:
    case.add("a", box("Tumor", 0, 0, 62, 64), box("Stroma", 62, 0, 64, 64))
    assert case.tags(min_fraction=0.01) == {"0_0": [1, 1]}


def test_other_classes_may_be_left_open(case: Case) -> None:
    case.add("a", box("Tumor", 0, 0, 64, 64), box("Stroma", 64, 0, 128, 64))
    assert case.tags(others="unknown") == {"0_0": [None, 1], "0_1": [1, None]}


def test_pixels_are_those_of_the_slide_at_the_asked_size(case: Case) -> None:
    path = case.add("a", box("Tumor", 64, 0, 128, 64), box("Stroma", 0, 64, 64, 128))
    data = case.imported()
    items = data.items("train")
    assert data.mpp == 0.5 and data.name == "slides" and items.slides.tolist() == ["a", "a"]
    with open_slide(path) as slide:
        np.testing.assert_array_equal(read_rgb(items.path(0)), slide.read(1, 0, 32, 32, 32))
        np.testing.assert_array_equal(read_rgb(items.path(1)), slide.read(1, 32, 0, 32, 32))
    assert items.ids.tolist() == ["a_000000_000032", "a_000032_000000"] and data.truth("train") is None
    assert errors(data) == []


def test_at_full_resolution_there_are_four_times_as_many(case: Case) -> None:
    case.add("a", box("Tumor", 0, 0, 64, 64), box("Stroma", 64, 0, 128, 64))
    assert len(case.imported(mpp=0.25).items("train")) == 8


def test_patches_may_overlap(case: Case) -> None:
    case.add("a", box("Tumor", 0, 0, 128, 64), box("Stroma", 0, 128, 64, 192))
    data = case.imported(stride=16, cover=1.0)
    assert [name.split("_")[-1] for name in data.items("train").ids][:3] == ["000000", "000016", "000032"]


def test_the_colours_of_qupath_are_kept(case: Case) -> None:
    case.add("a", box("Tumor", 0, 0, 64, 64), box("Stroma", 64, 0, 128, 64))
    assert case.imported().classes.colours == ((0, 200, 0), (200, 0, 0))


def test_colours_that_are_alike_are_replaced(case: Case) -> None:
    case.add("a", box("Tumor", 0, 0, 64, 64, RED), box("Stroma", 64, 0, 128, 64, RED))
    colours = case.imported().classes.colours
    assert len(set(colours)) == 2 and tuple(RED) not in colours


def test_masks_hold_the_smallest_annotation_and_nothing_outside_is_scored(case: Case) -> None:
    case.add("a", box("Tumor", 16, 16, 48, 48), box("Stroma", 0, 0, 64, 56), box("Tumor", 64, 0, 128, 64))
    data = case.imported(masks=True)
    truth, items = data.truth("train"), data.items("train")
    assert truth is not None
    expected = np.full((32, 32), 255, np.uint8)
    expected[:28] = 0
    expected[8:24, 8:24] = 1
    np.testing.assert_array_equal(read_mask(truth.path(0)), expected)
    assert items.tags[0].tolist() == [1, 1] and items.tags[1].tolist() == [0, 1]
    assert data.tag_rule == 0.05 and data.classes.ignore == 255 and errors(data) == []


def test_tags_never_contradict_masks(case: Case) -> None:
    """Stroma lies wholly under a tumour that covers it: the mask has none, and so does the tag."""
    case.add("a", box("Stroma", 0, 0, 64, 64), box("Tumor", 0, 0, 63, 64), box("Stroma", 64, 0, 128, 64))
    data = case.imported(masks=True)
    assert data.items("train").tags.tolist() == [[0, 1], [1, 0]] and "tags_contradict" not in kinds(data)


def test_classes_are_chosen_in_order(case: Case) -> None:
    case.add("a", box("Tumor", 0, 0, 64, 64), box("Stroma", 64, 0, 128, 64), box("Fat", 128, 0, 192, 64))
    data = case.imported(classes="Tumor,Stroma")
    assert data.classes.names == ("Tumor", "Stroma") and len(data.items("train")) == 2
    assert "1 of class Fat" in (data.folder / qupath.LEFT_OUT).read_text()


def test_a_class_that_nobody_drew_is_told(case: Case) -> None:
    case.add("a", box("Tumor", 0, 0, 64, 64))
    with pytest.raises(WrongUse, match=r"classes: no annotation is of class 'Tumour' \(did you mean 'Tumor'\?\)"):
        case.imported(classes="Tumour")


def test_slides_stay_together(case: Case) -> None:
    for n in range(10):
        case.add(f"p{n // 2}-{n}", box("Tumor", 0, 0, 128, 64), box("Stroma", 0, 64, 128, 128))
    data = case.imported(patient="p([0-9])", val_fraction=0.2, test_fraction=0.2)
    patients = {split: set(data.items(split).patients.tolist()) for split in data.splits}
    assert {split: len(names) for split, names in patients.items()} == {"train": 3, "val": 1, "test": 1}
    assert set.union(*patients.values()) == set("01234") and errors(data) == []


def test_slides_that_are_outlined_for_scores_may_all_be_the_test(case: Case) -> None:
    case.add("a", box("Tumor", 0, 0, 64, 64), box("Stroma", 64, 0, 128, 64))
    data = case.imported(masks=True, split="test")
    assert data.splits == ("test",) and data.truth("test") is not None and errors(data) == []


def test_without_patients_slides_are_split(case: Case) -> None:
    for n in range(4):
        case.add(f"s{n}", box("Tumor", 0, 0, 128, 64), box("Stroma", 0, 64, 128, 128))
    data = case.imported(val_fraction=0.25)
    assert len(set(data.items("val").slides)) == 1 and len(set(data.items("train").slides)) == 3
    assert set(data.items("train").patients) == {""}


def test_a_patient_that_is_not_found_is_told(case: Case) -> None:
    case.add("a", box("Tumor", 0, 0, 64, 64))
    with pytest.raises(EosinError, match=r"a.tif: the expression 'p\(\[0-9\]\)' finds no patient in 'a.tif'"):
        case.imported(patient="p([0-9])")


def test_files_find_each_other_by_name(case: Case) -> None:
    case.add("a", box("Tumor", 0, 0, 64, 64), box("Stroma", 64, 0, 128, 64))
    (case.drawn / "a.geojson").rename(case.drawn / "a.tif.geojson")
    draw_pyramid(case.slides / "deeper" / "alone.tif", noise(64, 64))
    (case.drawn / "nobody.geojson").write_text("[]")
    data = case.imported()
    assert len(data.items("train")) == 2
    left_out = (data.folder / qupath.LEFT_OUT).read_text().splitlines()
    assert [line.partition(": ")[2] for line in left_out] == ["no annotations of this name", "no slide of this name"]


def test_annotations_that_may_be_of_two_slides_are_refused(case: Case) -> None:
    case.add("a", box("Tumor", 0, 0, 64, 64), box("Stroma", 64, 0, 128, 64))
    draw_pyramid(case.slides / "deeper" / "a.tif", noise(64, 64))
    with pytest.raises(EosinError, match=r"a\.geojson: may be of .*a\.tif or of .*a\.tif; name it"):
        case.imported()
    (case.slides / "deeper" / "a.tif").rename(case.slides / "a.png")
    (case.drawn / "a.geojson").rename(case.drawn / "a.tif.geojson")
    assert len(case.imported().items("train")) == 2


def test_what_says_nothing_is_listed(case: Case) -> None:
    nameless = box("Tumor", 0, 0, 64, 64)
    del nameless["properties"]["classification"]
    case.add("a", box("Tumor", 0, 0, 64, 64), box("Stroma", 64, 0, 128, 64), nameless, nameless)
    data = case.imported()
    assert (data.folder / qupath.LEFT_OUT).read_text() == f"{case.drawn / 'a.geojson'}: 2 without a class\n"


def test_one_slide_and_one_file_need_not_be_called_alike(case: Case) -> None:
    slide = case.add("a", box("Tumor", 0, 0, 64, 64), box("Stroma", 64, 0, 128, 64))
    drawn = (case.drawn / "a.geojson").rename(case.drawn / "export.geojson")
    data = import_dataset("qupath", [slide, drawn], case.out, {"tile": 32}, handed={"open_slide": open_slide})
    assert len(data.items("train")) == 2 and not (data.folder / qupath.LEFT_OUT).exists()


def test_an_image_needs_its_pixel_size(case: Case) -> None:
    draw(case.slides / "i.png", 128, 128)
    (case.drawn / "i.geojson").write_text(json.dumps([box("Tumor", 0, 0, 64, 64), box("Stroma", 64, 0, 128, 64)]))
    with pytest.raises(EosinError, match=r"i.png: how large its pixels are is not known .*--set slide_mpp=X"):
        case.imported()
    table = case.slides.parent / "mpp.csv"
    table.write_text("wsi,mpp\ni.png,0.25\n")
    assert len(case.imported(mpp_csv=str(table)).items("train")) == 2
    case.out = case.out.with_name("again")
    assert len(case.imported(slide_mpp=0.5).items("train")) == 8


def test_what_cannot_be_imported_is_told_in_one_line(case: Case) -> None:
    with pytest.raises(EosinError, match="slides: no slides in it"):
        case.imported()
    slide = case.add("a")
    with pytest.raises(EosinError, match=r"a.tif: no annotation has a class"):
        case.imported()
    (case.drawn / "a.geojson").write_text(json.dumps([box("Tumor", 300, 300, 400, 400)]))
    with pytest.raises(EosinError, match=r"slides: annotations cover 50% of no patch"):
        case.imported()
    (case.drawn / "a.geojson").write_text("[")
    with pytest.raises(EosinError, match=r"a.geojson: not JSON"):
        case.imported()
    slide.write_bytes(b"")
    (case.drawn / "a.geojson").write_text(json.dumps([box("Tumor", 0, 0, 64, 64)]))
    with pytest.raises(EosinError, match=r"a.tif: the file has 0 bytes"):
        case.imported()
    slide.unlink()
    draw_pyramid(case.slides / "b.tif", noise(64, 64))
    with pytest.raises(EosinError, match=r"geojson: no annotations of a slide in .*; name them alike"):
        case.imported()
    assert not case.out.exists()


def test_the_sources_are_two(case: Case) -> None:
    with pytest.raises(WrongUse, match="qupath: write eosin data import qupath SLIDES GEOJSON DEST"):
        import_dataset("qupath", case.slides, case.out, {})
    with pytest.raises(WrongUse, match="glas: write eosin data import glas SOURCE DEST"):
        import_dataset("glas", [case.slides, case.drawn], case.out, {})


def test_the_verb_hands_over_what_opens_slides(case: Case) -> None:
    case.add("a", box("Tumor", 0, 0, 64, 64), box("Stroma", 64, 0, 128, 64))
    verbs.import_data("qupath", [case.slides, case.drawn], case.out, ["tile=32"])
    assert len(Dataset.open(case.out).items("train")) == 2
