"""Camelyon16: lesions from ASAP's XML or a mask, the filters of IKD-MIL, and splits by slide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.formats.drawing import draw_pyramid, errors
from eosin import verbs
from eosin.core.errors import EosinError
from eosin.data.dataset import Dataset
from eosin.data.formats import import_dataset
from eosin.slides.image import read_mask, read_rgb
from eosin.slides.maps import SlideMap
from eosin.slides.open import open_slide

SIZE, SIDE = 256, 32
"""Slides of 256 px; windows of 16 px of level 1 are 32 px of them, eight by eight."""


def asap(*rectangles: tuple[str, float, float, float, float]) -> str:
    """An XML file as ASAP writes it, of (group, left, top, right, bottom)."""
    annotations = ""
    for number, (group, left, top, right, bottom) in enumerate(rectangles):
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        points = "".join(f'<Coordinate Order="{n}" X="{x}" Y="{y}" />' for n, (x, y) in enumerate(corners))
        annotations += (
            f'<Annotation Name="Annotation {number}" Type="Polygon" PartOfGroup="{group}" Color="#F4FA58">'
            f"<Coordinates>{points}</Coordinates></Annotation>"
        )
    groups = '<AnnotationGroups><Group Name="_0" PartOfGroup="None" Color="#64FE2E"><Attributes /></Group>'
    inner = f"<Annotations>{annotations}</Annotations>{groups}</AnnotationGroups>"
    return f'<?xml version="1.0"?>\n<ASAP_Annotations>{inner}</ASAP_Annotations>'


def tissue(seed: int, white_rows: int = 0) -> np.ndarray:
    """Purple noise, below a white part."""
    pixels = np.random.default_rng(seed).integers(60, 160, (SIZE, SIZE, 3), dtype=np.uint8)
    pixels[:white_rows] = 245
    return pixels


class Release:
    """The release's folders."""

    def __init__(self, folder: Path) -> None:
        self.root, self.out, self.count = folder / "CAMELYON16", folder / "out", 0

    def slide(self, name: str, white_rows: int = 0) -> Path:
        self.count += 1
        kind = name.partition("_")[0]
        part = "testing/images" if kind == "test" else f"training/{kind}"
        return draw_pyramid(self.root / part / f"{name}.tif", tissue(self.count, white_rows), levels=4)

    def xml(self, name: str, *rectangles: tuple[str, float, float, float, float]) -> None:
        path = self.root / "lesion_annotations" / f"{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(asap(*rectangles))

    def mask(self, name: str, values: np.ndarray) -> None:
        draw_pyramid(self.root / "masks" / f"{name}_mask.tif", values.astype(np.uint8), levels=4)

    def imported(self, **options: Any) -> Dataset:
        settings = {"window": 16, "tile": 16, "val_fraction": 0, **options}
        handed = {"open_slide": open_slide, "open_map": SlideMap}
        return import_dataset("camelyon", self.root, self.out, settings, handed=handed)


def places(data: Dataset, split: str, slide: str) -> set[tuple[int, int]]:
    """Which windows of a slide were taken."""
    items = data.items(split)
    names = [name for name, of in zip(items.ids, items.slides, strict=True) if of == slide]
    return {(int(name.split("_")[-2]) // 16, int(name.split("_")[-1]) // 16) for name in names}


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return Release(tmp_path)


def test_positives_and_as_many_negatives_are_cut_at_the_asked_size(release: Release) -> None:
    tumour, normal = release.slide("tumor_001"), release.slide("normal_001")
    release.xml("tumor_001", ("_0", 0, 0, 64, 32), ("_1", 96, 96, 128, 128))
    data = release.imported()
    assert places(data, "train", "tumor_001") == {(0, 0), (0, 1), (3, 3)}
    assert len(places(data, "train", "normal_001")) == 3
    assert data.classes.names == ("rest", "tumour") and data.mpp == 0.5 and data.tag_rule == 0
    items, truth = data.items("train"), data.truth("train")
    assert truth is not None and len(truth) == 6
    for index, (name, slide) in enumerate(zip(items.ids, items.slides, strict=True)):
        y, x = (int(part) for part in name.split("_")[-2:])
        with open_slide(tumour if slide == "tumor_001" else normal) as opened:
            np.testing.assert_array_equal(read_rgb(items.path(index)), opened.read(1, y, x, 16, 16))
        positive = slide == "tumor_001"
        assert (read_mask(truth.path(index)) == positive).all()
        assert items.tags[index].tolist() == [not positive, positive]
    assert errors(data) == []


def test_a_window_of_another_size_is_scaled(release: Release) -> None:
    """Windows of 16 px of level 1 as 4 px: 2 um at 0.25 um of the slide."""
    release.slide("tumor_001")
    release.slide("normal_001")
    release.xml("tumor_001", ("_0", 0, 0, 64, 32))
    data = release.imported(tile=4)
    assert data.mpp == 2 and len(data.items("train")) == 4
    assert read_rgb(data.items("train").path(0)).shape == (4, 4, 3)


def test_what_is_drawn_in_a_lesion_as_excluded_is_not_tumour(release: Release) -> None:
    release.slide("tumor_001")
    release.slide("normal_001")
    release.xml("tumor_001", ("_0", 0, 0, 32, 32), ("_2", 0, 0, 16, 32), ("Exclusion", 16, 16, 32, 32))
    data = release.imported()
    truth = data.truth("train")
    assert truth is not None
    positive = data.items("train").slides.tolist().index("tumor_001")
    expected = np.zeros((16, 16), np.uint8)
    expected[:8, 8:] = 1
    np.testing.assert_array_equal(read_mask(truth.path(positive)), expected)
    assert data.items("train").tags[positive].tolist() == [1, 1]


def test_a_positive_of_the_test_holds_more_tumour(release: Release) -> None:
    """A quarter, an eighth and a sixteenth of a window: the last is too little for the test."""
    for name in ("tumor_001", "test_001"):
        release.slide(name)
        release.xml(name, ("_0", 0, 0, 8, 32), ("_0", 32, 0, 36, 32), ("_0", 64, 0, 66, 32))
    release.slide("normal_001")
    release.slide("test_002")
    data = release.imported()
    assert places(data, "train", "tumor_001") == {(0, 0), (0, 1), (0, 2)}
    assert places(data, "test", "test_001") == {(0, 0), (0, 1)}
    assert len(places(data, "test", "test_002")) == 2


def test_a_positive_is_a_hundredth_tumour_of_what_is_not_white(release: Release) -> None:
    """Two of 256 pixels are less than 1 % of a window, and more than 1 % of the half of it that is not white."""
    release.slide("tumor_001", white_rows=16)
    release.slide("normal_001")
    release.xml("tumor_001", ("_0", 0, 28, 4, 30), ("_0", 32, 60, 36, 62))
    assert places(release.imported(), "train", "tumor_001") == {(0, 0)}


def test_white_patches_are_left_out(release: Release) -> None:
    """The slide's upper 28 rows are white: 87.5 % of the first windows, nothing of the others."""
    for name in ("tumor_001", "test_001"):
        release.slide(name, white_rows=28)
        release.xml(name, ("_0", 0, 0, 32, 32), ("_0", 32, 32, 36, 64), ("_0", 64, 64, 65, 96))
    release.slide("normal_001")
    release.slide("test_002")
    data = release.imported()
    assert places(data, "train", "tumor_001") == {(1, 1)}
    assert places(data, "test", "test_001") == {(1, 1)}


def test_white_windows_are_no_negatives(release: Release) -> None:
    release.slide("tumor_001")
    release.xml("tumor_001", ("_0", 0, 0, 256, 256))
    release.slide("normal_001", white_rows=192)
    data = release.imported()
    assert places(data, "train", "normal_001") == {(y, x) for y in (6, 7) for x in range(8)}


def test_a_mask_says_the_same_as_the_outlines(release: Release) -> None:
    release.slide("tumor_001")
    release.slide("normal_001")
    values = np.zeros((SIZE, SIZE))
    values[:32, :64] = 1
    values[16:32, :32] = 2
    release.mask("tumor_001", values)
    data = release.imported()
    truth, items = data.truth("train"), data.items("train")
    assert truth is not None and places(data, "train", "tumor_001") == {(0, 0), (0, 1)}
    first = read_mask(truth.path(items.ids.tolist().index("tumor_001_000000_000000")))
    assert (first[:8] == 1).all() and (first[8:] == 255).all() and errors(data) == []


def test_validation_slides_are_held_out_of_both_kinds(release: Release) -> None:
    for number in range(4):
        release.slide(f"tumor_00{number}")
        release.xml(f"tumor_00{number}", ("_0", 0, 0, 64, 64))
        release.slide(f"normal_00{number}")
    data = release.imported(val_fraction=0.25)
    slides = {split: set(data.items(split).slides.tolist()) for split in data.splits}
    assert sorted(name.partition("_")[0] for name in slides["val"]) == ["normal", "tumor"]
    assert len(slides["train"]) == 6 and not slides["train"] & slides["val"] and errors(data) == []
    assert len(data.items("val")) == 8 and len(data.items("train")) == 24


def test_the_seed_draws_the_negatives(release: Release) -> None:
    release.slide("tumor_001")
    release.slide("normal_001")
    release.xml("tumor_001", ("_0", 0, 0, 128, 32))
    drawn = []
    for number, seed in enumerate((0, 0, 1)):
        release.out = release.out.with_name(f"out{number}")
        drawn.append(places(release.imported(seed=seed), "train", "normal_001"))
    assert drawn[0] == drawn[1] != drawn[2]


def test_slides_may_lie_in_one_folder_and_some_are_left_out(release: Release) -> None:
    for name in ("tumor_001", "normal_001", "test_001", "test_002", "test_114"):
        path = release.slide(name)
        (release.root / "images").mkdir(exist_ok=True)
        path.rename(release.root / "images" / path.name)
    release.xml("tumor_001", ("Tumor", 0, 0, 32, 32))
    release.xml("test_001", ("Tumor", 0, 0, 32, 32))
    release.xml("test_114", ("Tumor", 0, 0, 64, 64))
    data = release.imported()
    assert set(data.items("test").slides) == {"test_001", "test_002"}
    release.out = release.out.with_name("again")
    assert "test_114" in release.imported(leave_out="").items("test").slides


def test_the_verb_hands_over_what_opens_slides_and_maps(release: Release) -> None:
    release.slide("tumor_001")
    release.slide("normal_001")
    release.mask("tumor_001", np.ones((SIZE, SIZE)))
    verbs.import_data("camelyon", release.root, release.out, ["window=16", "tile=16", "val_fraction=0"])
    assert len(Dataset.open(release.out).items("train")) == 128


def test_what_cannot_be_imported_is_told_in_one_line(release: Release) -> None:
    release.root.mkdir()
    with pytest.raises(EosinError, match=r"CAMELYON16: no slide called normal_001.tif or tumor_001.tif"):
        release.imported()
    path = release.slide("tumor_001")
    with pytest.raises(EosinError, match=r"tumor_001.tif: neither tumor_001.xml nor tumor_001_mask.tif is there"):
        release.imported()
    release.mask("tumor_001", np.full((SIZE, SIZE), 7))
    with pytest.raises(EosinError, match=r"tumor_001_mask.tif: holds the value 7"):
        release.imported()
    release.mask("tumor_001", np.ones((64, 64)))
    with pytest.raises(EosinError, match=r"tumor_001_mask.tif: \(64, 64\) px where its slide has \(256, 256\)"):
        release.imported()
    release.xml("tumor_001", ("_0", 0, 0, 2, 2))
    with pytest.raises(EosinError, match=r"no patch passes max_white=0.8"):
        release.imported()
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(EosinError, match=r"tumor_001.tif: "):
        release.imported()
    assert not release.out.exists()
