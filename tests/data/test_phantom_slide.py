"""A drawn slide is drawn tissue on glass, its mask is exact, and its size costs nothing where it is empty."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
import tifffile

from eosin.data import phantom_slide
from eosin.data.phantom import PhantomSpec, draw_image, look_of
from eosin.data.phantom_slide import draw_slide

SPEC = PhantomSpec(seed=5)


def drawn(folder: Path, height: int, width: int, seed: int = 1, **options: float) -> tuple[np.ndarray, np.ndarray]:
    draw_slide(folder / "slide.tif", folder / "mask.tif", SPEC, seed, height, width, **options)
    return tifffile.imread(folder / "slide.tif", key=0), tifffile.imread(folder / "mask.tif", key=0)


@pytest.fixture
def small_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields of 120 pixels, so that a small slide repeats them as a large one does."""
    monkeypatch.setattr(phantom_slide, "_FIELD", 60.0)


def test_within_a_field_a_slide_is_the_drawn_image_with_glass_around_it(tmp_path: Path) -> None:
    rgb, mask = drawn(tmp_path, 500, 700, share=0.4)
    field, classes = draw_image(SPEC, (1, 0), 500, 700, edge=False)
    tissue = mask != 255
    assert not (classes == 255).any()
    assert tissue.mean() == pytest.approx(0.4, abs=0.01)
    np.testing.assert_array_equal(mask[tissue], classes[tissue])
    deep = cv2.erode(tissue.astype(np.uint8), np.ones((11, 11))) > 0
    assert np.abs(rgb[deep].astype(int) - field[deep]).mean() < 6  # of JPEG
    far = cv2.dilate(tissue.astype(np.uint8), np.ones((41, 41))) == 0
    assert far.sum() > 50_000
    assert np.abs(rgb[far] - look_of(SPEC, 1).white).max() <= 3


def test_the_border_of_the_mask_is_where_half_of_the_dye_is_left(tmp_path: Path) -> None:
    rgb, mask = drawn(tmp_path, 300, 400, share=0.4)
    field, _ = draw_image(SPEC, (1, 0), 300, 400, edge=False)
    white = look_of(SPEC, 1).white
    tissue = (mask != 255).astype(np.uint8)
    density = -np.log(np.maximum(rgb, 1) / white).sum(-1)
    whole = -np.log(np.maximum(field, 1) / white).sum(-1)

    def left(where: np.ndarray) -> float:
        return float(density[where > 0].sum() / whole[where > 0].sum())

    inner, outer = tissue - cv2.erode(tissue, np.ones((3, 3))), cv2.dilate(tissue, np.ones((3, 3))) - tissue
    assert 0.5 < left(inner) < 0.8
    assert 0.2 < left(outer) < 0.5


@pytest.mark.usefixtures("small_fields")
def test_the_same_seed_is_the_same_file_and_another_seed_is_another(tmp_path: Path) -> None:
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        drawn(tmp_path / name, 300, 400, seed)
        files.append(tuple((tmp_path / name / kind).read_bytes() for kind in ("slide.tif", "mask.tif")))
    assert files[0] == files[1]
    assert files[0][0] != files[2][0] and files[0][1] != files[2][1]


@pytest.mark.usefixtures("small_fields")
def test_how_a_slide_is_cut_while_it_is_drawn_does_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn(tmp_path / "a", 500, 610)
    monkeypatch.setattr(phantom_slide, "_ROWS", 72)
    drawn(tmp_path / "b", 500, 610)
    for kind in ("slide.tif", "mask.tif"):
        assert (tmp_path / "a" / kind).read_bytes() == (tmp_path / "b" / kind).read_bytes()


@pytest.mark.usefixtures("small_fields")
def test_large_tissue_goes_on_mirrored_without_a_seam(tmp_path: Path) -> None:
    _, mask = drawn(tmp_path, 600, 700, share=1.0)
    _, field = draw_image(SPEC, (1, 0), 120, 120, edge=False)
    there_and_back = np.concatenate([field, field[::-1]])
    tile = np.concatenate([there_and_back, there_and_back[:, ::-1]], axis=1)
    np.testing.assert_array_equal(mask, np.tile(tile, (3, 3))[:600, :700])


@pytest.mark.usefixtures("small_fields")
def test_each_piece_of_tissue_is_of_one_field_and_not_all_are_of_the_same(tmp_path: Path) -> None:
    _, mask = drawn(tmp_path, 900, 1000, share=0.25, pieces=5)
    fields = [draw_image(SPEC, (1, k), 120, 120, edge=False)[1] for k in range(3)]
    wholes = [np.pad(field, ((0, 780), (0, 880)), mode="symmetric") for field in fields]
    count, pieces = cv2.connectedComponents((mask != 255).astype(np.uint8), connectivity=4)
    used = set()
    for piece in range(1, count):
        of = pieces == piece
        if of.sum() > 2000:
            used |= {k for k, whole in enumerate(wholes) if (whole[of] == mask[of]).all()}
            assert any((whole[of] == mask[of]).all() for whole in wholes)
    assert len(used) > 1


@pytest.mark.usefixtures("small_fields")
def test_openslide_reads_the_slide_at_its_pixel_size_and_empty_tiles_are_stored_once(tmp_path: Path) -> None:
    drawn(tmp_path, 6000, 5000, share=0.02, pieces=2)
    with openslide.OpenSlide(tmp_path / "slide.tif") as slide:
        assert slide.dimensions == (5000, 6000)
        assert float(slide.properties["openslide.mpp-x"]) == SPEC.mpp
        assert slide.level_count == 6
    with tifffile.TiffFile(tmp_path / "slide.tif") as file:
        offsets = file.pages[0].dataoffsets
        assert len(offsets) == 480
        assert len(set(offsets)) < 80
    assert (tifffile.imread(tmp_path / "mask.tif", key=0) != 255).mean() == pytest.approx(0.02, abs=0.002)


@pytest.mark.usefixtures("small_fields")
def test_a_slide_can_be_empty_or_full(tmp_path: Path) -> None:
    rgb, mask = drawn(tmp_path / "a", 300, 300, share=0)
    assert (mask == 255).all() and (rgb == rgb[0, 0]).all()
    _, mask = drawn(tmp_path / "b", 100, 3000, share=1)
    assert (mask != 255).all()


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    for wrong in ({"share": 1.5}, {"pieces": 0}):
        with pytest.raises(ValueError, match="share is 0 to 1"):
            drawn(tmp_path, 300, 300, **wrong)
    with pytest.raises(ValueError, match="at least 64"):
        drawn(tmp_path, 300, 20)
    assert list(tmp_path.iterdir()) == []
