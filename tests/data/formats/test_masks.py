"""Masks by number, by bit and by colour; what cannot be read for sure is refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.formats.drawing import draw_colours, draw_mask, stripes
from eosin.core.classes import Classes, Tissue
from eosin.core.errors import EosinError
from eosin.data.formats import bcss, ebhi, glas, luad, prog, wsss4luad
from eosin.data.formats._masks import BINARY, Coding, read_coded
from eosin.data.formats._patches import numbered
from oracles.colours import least

PALETTE = ((200, 0, 0), (0, 200, 0), (255, 255, 255))
OTHER = ((10, 0, 0), (0, 10, 0), (99, 99, 99))
CLASSES = Classes(tissues=(Tissue(name="a", colour=(1, 2, 3)), Tissue(name="b", colour=(4, 5, 6))), ignore=2)
CODING = Coding(CLASSES, palettes=(PALETTE, OTHER))
GLAND = Coding(CLASSES, palettes=(PALETTE,), numbers=BINARY)
MASK = stripes([0, 1, 2])


def test_numbers_are_taken_as_they_are(tmp_path: Path) -> None:
    for palette in (None, PALETTE, OTHER, ((7, 7, 7), (8, 8, 8), (9, 9, 9))):
        file = draw_mask(tmp_path / "m.png", MASK, palette)
        np.testing.assert_array_equal(read_coded(file, CODING), MASK)


@pytest.mark.parametrize("palette", [PALETTE, OTHER])
def test_colours_of_a_known_palette(tmp_path: Path, palette: tuple[tuple[int, int, int], ...]) -> None:
    np.testing.assert_array_equal(read_coded(draw_colours(tmp_path / "m.png", MASK, palette), CODING), MASK)


def test_binary_masks_have_three_forms(tmp_path: Path) -> None:
    truth = stripes([0, 1, 0, 1])
    draw_mask(tmp_path / "one.png", truth)
    draw_mask(tmp_path / "full.png", truth * 255)
    Image.fromarray(truth.astype(bool)).save(tmp_path / "bits.png")
    assert Image.open(tmp_path / "bits.png").mode == "1"
    for name in ("one", "full", "bits"):
        np.testing.assert_array_equal(read_coded(tmp_path / f"{name}.png", GLAND), truth)
    draw_mask(tmp_path / "none.png", truth * 0)
    assert not read_coded(tmp_path / "none.png", GLAND).any()


def test_what_stands_for_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EosinError, match=r"m\.png: value 5 is none of 0 a, 1 b, 2 ignore;"):
        read_coded(draw_mask(tmp_path / "m.png", stripes([0, 5])), CODING)
    with pytest.raises(EosinError, match=r"m\.png: value 255 is none of 0 a, 1 b or 0 a, 255 b;"):
        read_coded(draw_mask(tmp_path / "m.png", stripes([0, 1, 255])), GLAND)
    foreign = draw_colours(tmp_path / "m.png", MASK, (PALETTE[0], (1, 2, 200), PALETTE[2]))
    with pytest.raises(EosinError, match=r"m\.png: colour \(1, 2, 200\) is none of this format's masks"):
        read_coded(foreign, CODING)
    mixed = draw_colours(tmp_path / "m.png", MASK, (PALETTE[0], OTHER[1], PALETTE[2]))
    with pytest.raises(EosinError, match="colour"):
        read_coded(mixed, CODING)


def test_a_palette_that_shows_another_class_is_refused(tmp_path: Path) -> None:
    for palette in ((PALETTE[1], PALETTE[0], PALETTE[2]), (OTHER[1], OTHER[0], OTHER[2])):
        file = draw_mask(tmp_path / "m.png", MASK, palette)
        with pytest.raises(EosinError, match=r"m\.png: palette index 0 \(a\) has the colour of b;") as caught:
            read_coded(file, CODING)
        assert "\n" not in str(caught.value)


def test_one_black_index_is_no_evidence(tmp_path: Path) -> None:
    coding = Coding(CLASSES, palettes=(PALETTE, ((9, 9, 9), (0, 0, 0), (1, 1, 1))))
    grey = tuple((value, value, value) for value in range(256))
    assert not read_coded(draw_mask(tmp_path / "m.png", stripes([0]), grey), coding).any()


def test_a_damaged_mask_names_its_file(tmp_path: Path) -> None:
    file = tmp_path / "m.png"
    with pytest.raises(EosinError, match=r"m\.png: no such file"):
        read_coded(file, CODING)
    Image.fromarray(np.random.default_rng(0).random((64, 64)) > 0.5).save(file)
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(EosinError, match=r"m\.png: damaged or cut short"):
        read_coded(file, GLAND)


def test_objects_are_numbered_in_raster_order() -> None:
    given = np.array([[9, 0, 4], [9, 7, 4], [0, 7, 255]], np.uint8)
    np.testing.assert_array_equal(numbered(given), [[1, 0, 2], [1, 3, 2], [0, 3, 4]])
    np.testing.assert_array_equal(numbered(given[:1, :1]), [[1]])
    assert not numbered(np.zeros((2, 2), np.uint8)).any()
    full = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(numbered(full), full)


@pytest.mark.parametrize("classes", [bcss.CLASSES, luad.CLASSES, wsss4luad.CLASSES, glas.GLANDS])
def test_class_colours_are_told_apart_by_every_eye(classes: Classes) -> None:
    assert least(classes.colours)[0] >= 15


@pytest.mark.parametrize("module", [bcss, luad, wsss4luad])
def test_the_release_palette_never_reads_as_another_of_our_classes(module: object) -> None:
    palette = next(coding for coding in vars(module).values() if isinstance(coding, Coding)).palettes[0]
    ours = module.CLASSES.colours  # type: ignore[attr-defined]
    for index, colour in enumerate(palette[: len(ours)]):
        assert colour not in ours or ours.index(colour) == index


def test_gland_formats_share_their_classes() -> None:
    assert glas.CODING.classes == ebhi.CODING.classes == prog.CODING.classes
