"""Bands of a slide are those of the one-piece blend, only tissue is predicted, and what is killed goes on exactly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from eosin.core.tiling import blend
from eosin.wsi.bands import OUTSIDE, Bands
from eosin.wsi.canvas import Canvas, most_probable
from eosin.wsi.grid import grid
from eosin.wsi.stitch import predict_bands
from wsi_fakes import ArrayArea, ArraySource, everywhere, noise, spots

TILE, MARGIN, CLASSES = 32, 5, 3


def soft(tiles: Tensor) -> Tensor:
    """Probabilities that depend on where in the tile a pixel lies, so that blending shows."""
    places = torch.linspace(0, 3, TILE)
    values = tiles.permute(0, 3, 1, 2).float() / 64 + places.view(1, 1, 1, -1) * places.view(1, 1, -1, 1)
    return values.softmax(1)


def predicted(folder: Path, pixels: np.ndarray, area: ArrayArea, **settings: object) -> tuple[np.ndarray, np.ndarray]:
    source = ArraySource(pixels)
    tiles = grid(source.size, 1.0, area, TILE, MARGIN)
    predict_bands(settings.pop("predict", soft), tiles, source, area, folder, classes=CLASSES, **settings)
    bands = list(Bands.open(folder))
    return np.concatenate([b.classes for b in bands]), np.concatenate([b.confidence for b in bands])


def whole(pixels: np.ndarray, batch: int = 16) -> tuple[np.ndarray, np.ndarray]:
    probabilities = blend(
        lambda tiles: soft(tiles.permute(0, 2, 3, 1)), torch.from_numpy(pixels).permute(2, 0, 1), TILE, MARGIN, batch
    )
    return probabilities.numpy().argmax(0), np.rint(255 * probabilities.numpy().max(0))


@pytest.mark.parametrize("classes", [1, 2, 7])
def test_the_most_probable_class_is_the_first_of_equals(classes: int) -> None:
    coarse = torch.randint(0, 3, (classes, 40, 50), generator=torch.Generator().manual_seed(0)) / 2  # many ties
    index, best = most_probable(coarse)
    np.testing.assert_array_equal(index, coarse.numpy().argmax(0))
    np.testing.assert_array_equal(best, coarse.numpy().max(0))
    assert index.dtype == torch.uint8


@pytest.mark.parametrize(("height", "width"), [(150, 211), (32, 32), (33, 64), (20, 150), (150, 9), (3, 4)])
def test_where_all_is_tissue_the_bands_are_those_of_the_one_piece_blend(
    tmp_path: Path, height: int, width: int
) -> None:
    pixels = noise(height, width)
    classes, confidence = predicted(tmp_path, pixels, everywhere(height, width), batch=7)
    expected = whole(pixels, 7)
    np.testing.assert_array_equal(classes, expected[0])
    np.testing.assert_array_equal(confidence, expected[1])


@pytest.mark.parametrize(("height", "width"), [(150, 211), (33, 64), (20, 150), (150, 9)])
def test_where_all_is_tissue_the_canvas_is_the_one_piece_blend_bit_for_bit(
    height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[Tensor] = []

    def kept(band: Tensor) -> tuple[Tensor, Tensor]:
        handed.append(band.clone())
        return most_probable(band)

    monkeypatch.setattr("eosin.wsi.canvas.most_probable", kept)
    pixels, rows = noise(height, width), []
    tiles = grid((height, width), 1.0, everywhere(height, width), TILE, MARGIN)
    canvas = Canvas(tiles, CLASSES)
    for index in range(len(tiles)):
        canvas.add(soft(torch.from_numpy(tiles.tiles(ArraySource(pixels), index, index + 1)))[0])
        if canvas.ready:
            canvas.pop()
            rows.append(torch.cat(handed, 2))
            handed.clear()
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    expected = blend(lambda t: soft(t.permute(0, 2, 3, 1)), image, TILE, MARGIN, 1)
    assert torch.equal(torch.cat(rows, 1), expected)


def test_tissue_is_predicted_as_where_all_is_tissue_and_the_rest_is_no_class(tmp_path: Path) -> None:
    pixels, area = noise(300, 421), spots(300, 421, 0.08)
    seen = 0

    def counted(tiles: Tensor) -> Tensor:
        nonlocal seen
        seen += len(tiles)
        return soft(tiles)

    classes, confidence = predicted(tmp_path, pixels, area, predict=counted)
    tissue = area.at(0, 0, 300, 421, 1.0)
    expected = whole(pixels)
    np.testing.assert_array_equal(classes[tissue], expected[0][tissue])
    np.testing.assert_array_equal(confidence[tissue], expected[1][tissue])
    assert (classes[~tissue] == OUTSIDE).all() and not confidence[~tissue].any()
    tiles = grid((300, 421), 1.0, area, TILE, MARGIN)
    assert seen == len(tiles) < 0.8 * len(tiles.tops) * len(tiles.lefts)


def test_a_slide_without_tissue_is_finished_at_once(tmp_path: Path) -> None:
    area = ArrayArea(np.zeros((20, 20), bool), 8.0)
    classes, _ = predicted(tmp_path, noise(150, 150), area, predict=None)
    assert classes.shape == (150, 150) and (classes == OUTSIDE).all()


def test_only_columns_with_tissue_take_memory() -> None:
    mask = np.zeros((20, 500), bool)
    mask[:, 100:104] = mask[:, 300:302] = True
    tiles = grid((160, 4000), 1.0, ArrayArea(mask, 8.0), TILE, MARGIN)
    canvas, most = Canvas(tiles, CLASSES), 0
    for _ in range(len(tiles)):
        canvas.add(torch.rand(CLASSES, TILE, TILE))
        most = max(most, sum(block.shape[2] for block in canvas._blocks.values()))
        while canvas.ready:
            canvas.pop()
    assert 32 + 2 * TILE <= most <= 8 * TILE
    assert not canvas._blocks


def test_of_a_row_of_tiles_little_more_than_its_overlap_is_held_as_sums() -> None:
    tiles = grid((164, 4000), 1.0, everywhere(164, 4000), TILE, MARGIN)
    canvas, most = Canvas(tiles, CLASSES), 0
    for _ in range(len(tiles)):
        canvas.add(torch.rand(CLASSES, TILE, TILE))
        most = max(most, sum(block[0].numel() for block in canvas._blocks.values()))
        if canvas.ready:
            canvas.pop()
    assert most <= 4000 * 2 * MARGIN + 3 * TILE * TILE


def test_batches_are_cut_at_the_same_places_after_a_cut(tmp_path: Path) -> None:
    pixels, area = noise(200, 200), spots(200, 200, 0.3)
    sizes: list[int] = []

    def cut_off(tiles: Tensor) -> Tensor:
        if len(sizes) == 5:
            raise KeyboardInterrupt
        sizes.append(len(tiles))
        return soft(tiles)

    with pytest.raises(KeyboardInterrupt):
        predicted(tmp_path / "a", pixels, area, predict=cut_off, batch=4, every=0.0)
    total, counts = sum(sizes), []
    resumed = predicted(tmp_path / "a", pixels, area, batch=4, count=counts.append)
    assert counts[0] == total == 20 and sum(counts) == len(grid((200, 200), 1.0, area, TILE, MARGIN))
    np.testing.assert_array_equal(resumed, predicted(tmp_path / "b", pixels, area, batch=4))
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_what_is_finished_is_not_predicted_again(tmp_path: Path) -> None:
    pixels, area = noise(100, 100), everywhere(100, 100)
    first = predicted(tmp_path, pixels, area)
    counts: list[int] = []
    np.testing.assert_array_equal(predicted(tmp_path, pixels, area, predict=None, count=counts.append), first)
    assert sum(counts) == len(grid((100, 100), 1.0, area, TILE, MARGIN))


def test_a_slide_that_cannot_be_read_ends_it_with_its_reason(tmp_path: Path) -> None:
    class Broken(ArraySource):
        def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
            if top > 50:
                raise OSError("page 3 is cut short")
            return super().read(top, left, height, width)

    source, area = Broken(noise(150, 150)), everywhere(150, 150)
    tiles = grid(source.size, 1.0, area, TILE, MARGIN)
    with pytest.raises(OSError, match="page 3 is cut short"):
        predict_bands(soft, tiles, source, area, tmp_path, classes=CLASSES, batch=2)


SLOW = """
import sys, time, pathlib
sys.path.insert(0, {tests!r}); sys.path.insert(0, {wsi!r})
import torch; torch.set_num_threads(1)
import test_stitch as t
def slow(tiles):
    time.sleep(0.03)
    return t.soft(tiles)
t.predicted(pathlib.Path(sys.argv[1]), t.noise(400, 300), t.spots(400, 300, 0.4), predict=slow, batch=3, every=0.1,
            count=lambda n: print(n, flush=True))
"""


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_killed_twice_the_bands_are_the_same_bytes(tmp_path: Path) -> None:
    here = Path(__file__).parent
    code = SLOW.format(tests=str(here.parent), wsi=str(here))
    begun: list[int] = []
    for lines in (18, 25):
        work = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True)
        assert work.stdout is not None
        begun.append(int(work.stdout.readline()))
        for _ in range(lines):
            assert work.stdout.readline()
        os.kill(work.pid, signal.SIGKILL)
        assert work.wait() == -signal.SIGKILL
        work.stdout.close()
    assert begun[1] > 3  # the second began where the first had been
    (tmp_path / "a" / ".000000000.band.1.tmp").write_bytes(b"half")
    area = spots(400, 300, 0.4)
    predicted(tmp_path / "a", noise(400, 300), area, batch=3)
    predicted(tmp_path / "b", noise(400, 300), area, batch=3)
    assert files(tmp_path / "a") == files(tmp_path / "b")
