"""Images of any size in, class maps, overlays and numbers out; finished ones are skipped, bad ones told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from eosin.core.errors import EosinError, WrongUse
from eosin.predictor.predictor import Predictor
from eosin.predictor.spec import Precision
from eosin.wsi.images import class_map, predict_images
from eosin.wsi.inputs import jobs
from oracles.tiling import blended
from small_model import CLASSES, TILE, Brightness, model_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("small") / "model")


@pytest.fixture(scope="module")
def brightness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("brightness") / "model", Brightness())


def pixels(height: int, width: int) -> np.ndarray:
    return np.random.default_rng([height, width]).integers(0, 256, (height, width, 3), dtype=np.uint8)


def image(path: Path, height: int = 40, width: int = 50) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(height, width)).save(path, None if path.stem.strip(".") else "PNG")
    return path


def read(folder: Path) -> dict[str, object]:
    value = json.loads((folder / "result.json").read_text())
    assert isinstance(value, dict)
    return value


def predicted(model: Path, sources: list[Path], out: Path, precision: Precision = "fp32", **settings: Any) -> list:
    return predict_images(Predictor.load(model, precision), jobs(sources, out), **settings)


def states(outcomes: list) -> list[str]:
    return [outcome.state for outcome in outcomes]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 90), (77, 1), (20, 100), (TILE, TILE), (33, 31), (130, 65)])
def test_any_size_gets_a_map_of_its_size(brightness: Path, tmp_path: Path, height: int, width: int) -> None:
    source = image(tmp_path / "x.png", height, width)
    (outcome,) = predicted(brightness, [source], tmp_path / "out", batch=3)
    assert outcome.state == "done" and outcome.folder == tmp_path / "out" / "x"
    with Image.open(outcome.folder / "classes.png") as written:
        assert written.mode == "P" and written.size == (width, height)
        assert tuple(written.getpalette()[:9]) == sum(CLASSES.colours, ())
        found = np.array(written)
    grey = pixels(height, width).astype(float).mean(2) / 255
    np.testing.assert_array_equal(found, np.argmin([grey, abs(grey - 0.5), 1 - grey], axis=0))


@pytest.mark.parametrize(("height", "width"), [(90, 61), (TILE, 100)])
def test_the_map_is_that_of_the_one_piece_blend(model: Path, height: int, width: int) -> None:
    predictor = Predictor.load(model)
    whole = blended(
        lambda tile: predictor(torch.from_numpy(tile.transpose(1, 2, 0)[None].copy()))[0].numpy(),
        pixels(height, width).transpose(2, 0, 1),
        TILE,
        predictor.card.margin,
    )
    found = class_map(predictor, pixels(height, width), batch=4)
    # Ties apart, which float32 and float64 may break differently.
    first, second = np.sort(whole, axis=0)[[-1, -2]]
    clear = first - second > 1e-5
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], whole.argmax(0)[clear])


def test_result_json_says_what_was_found(brightness: Path, tmp_path: Path) -> None:
    flat = np.zeros((30, 100, 3), np.uint8)
    flat[:, 75:] = 255
    Image.fromarray(flat).save(tmp_path / "flat.png")
    (outcome,) = predicted(brightness, [tmp_path / "flat.png"], tmp_path / "out")
    found = read(outcome.folder)
    assert found["classes"] == {
        "tumour": {"pixels": 2250, "fraction": 0.75, "mm2": pytest.approx(2250 * 0.25e-6)},
        "stroma": {"pixels": 0, "fraction": 0, "mm2": 0},
        "white background": {"pixels": 750, "fraction": 0.25, "mm2": pytest.approx(750 * 0.25e-6)},
    }
    assert (found["height"], found["width"], found["tile"], found["margin"]) == (30, 100, TILE, 4)
    assert found["model"] == Predictor.load(brightness).card.digest
    assert (found["runtime"], found["precision"]) == ("torch", "fp32")
    assert found["files"] == Predictor.load(brightness).files
    assert found["mpp_from"] == "model" and found["use"] == "research use only"
    assert found["bytes"] == (tmp_path / "flat.png").stat().st_size


def test_finished_images_are_skipped_until_something_changes(model: Path, brightness: Path, tmp_path: Path) -> None:
    sources = [image(tmp_path / f"{name}.png") for name in "ab"]
    out = tmp_path / "out"
    assert states(predicted(model, sources, out)) == ["done", "done"]
    before = (out / "a" / "classes.png").stat().st_mtime_ns
    again = predicted(model, sources, out)
    assert states(again) == ["skipped", "skipped"] and "finished before" in again[0].reason
    assert (out / "a" / "classes.png").stat().st_mtime_ns == before
    os.utime(sources[0], ns=(1, 1))
    assert states(predicted(model, sources, out)) == ["done", "skipped"]
    (out / "b" / "overlay.png").unlink()
    assert states(predicted(model, sources, out)) == ["skipped", "done"]
    (out / "b" / "result.json").write_text("{")
    assert states(predicted(model, sources, out)) == ["skipped", "done"]
    assert states(predicted(model, sources, out, precision="bf16")) == ["done", "done"]
    assert states(predicted(brightness, sources, out)) == ["done", "done"]


def test_one_bad_image_is_told_and_the_others_go_on(model: Path, tmp_path: Path) -> None:
    sources = [image(tmp_path / "a.png"), tmp_path / "missing.png", tmp_path / "cut.png", tmp_path / "empty.png"]
    sources[2].write_bytes(image(tmp_path / "z.png").read_bytes()[:900])
    sources[3].touch()
    sources.append(tmp_path / "alpha.png")
    Image.new("RGBA", (40, 40)).save(sources[4])
    sources.append(tmp_path / "z.png")
    outcomes = predicted(model, sources, tmp_path / "out")
    assert states(outcomes) == ["done", "failed", "failed", "failed", "failed", "done"]
    for outcome in outcomes[1:5]:
        assert str(outcome.source) in outcome.reason and "\n" not in outcome.reason
        assert not outcome.folder.exists()
    assert states(predicted(model, sources, tmp_path / "out")) == ["skipped", *["failed"] * 4, "skipped"]


def test_what_cannot_be_written_is_told(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("in the way")
    sources = [image(tmp_path / "a.png"), image(tmp_path / "b.png")]
    assert states(predicted(model, sources, tmp_path / "out")) == ["failed", "done"]


def test_folders_are_expanded_and_files_taken_once(model: Path, tmp_path: Path) -> None:
    names = ["b.JPG", "a.png", "c.tif", "d.bmp", "e.jpeg", "f.tiff"]
    for name in names:
        image(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("x")
    (tmp_path / "in" / ".hidden.png").write_text("x")
    (tmp_path / "in" / "sub.png").mkdir()
    outcomes = predicted(model, [tmp_path / "in", tmp_path / "in" / "a.png"], tmp_path / "out")
    assert [outcome.source.name for outcome in outcomes] == sorted(names)
    assert states(outcomes) == ["done"] * 6
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == list("abcdef")
    (tmp_path / "void").mkdir()
    with pytest.raises(EosinError, match="no image or slide in this folder"):
        predicted(model, [tmp_path / "void"], tmp_path / "out")


def test_equal_names_do_not_overwrite_each_other(model: Path, tmp_path: Path) -> None:
    sources = [
        image(tmp_path / "p" / "x.png", 20, 20),
        image(tmp_path / "q" / "X.tif", 30, 30),
        image(tmp_path / "y.png"),
    ]
    outcomes = predicted(model, sources, tmp_path / "out")
    first, second, third = (outcome.folder.name for outcome in outcomes)
    assert first.startswith("x-") and second.startswith("X-") and third == "y"
    assert read(outcomes[0].folder)["height"] == 20 and read(outcomes[1].folder)["height"] == 30
    reverse = predicted(model, sources[::-1], tmp_path / "out")
    assert states(reverse) == ["skipped"] * 3
    assert [outcome.folder.name for outcome in reverse] == [third, second, first]


def test_a_name_cannot_leave_the_folder(model: Path, tmp_path: Path) -> None:
    (outcome,) = predicted(model, [image(tmp_path / "in" / "...png")], tmp_path / "out")
    assert outcome.folder == tmp_path / "out" / "image"


def test_progress_counts_tiles_and_ends_at_the_total(model: Path, tmp_path: Path) -> None:
    sources = [image(tmp_path / "a.png", 80, 80), tmp_path / "missing.png", image(tmp_path / "b.png", 10, 10)]
    seen: list[tuple[int, int]] = []
    for _ in range(2):
        seen.clear()
        predicted(model, sources, tmp_path / "out", batch=4, progress=lambda done, total: seen.append((done, total)))
        assert seen[-1] == (11, 11)
        assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen == [(9, 11), (10, 11), (11, 11)]


def test_no_batch_is_wrong_use(model: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="batch of 0"):
        predicted(model, [], tmp_path, batch=0)
