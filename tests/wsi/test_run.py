"""Slides in, regions and areas out; finished ones are skipped, bad ones told, and no work is done twice."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eosin.core.errors import EosinError, WrongUse
from eosin.core.progress import SILENT, Silent
from eosin.core.tiling import blend
from eosin.predictor.domain import Domain, Spread
from eosin.predictor.predictor import Predictor
from eosin.wsi.bands import OUTSIDE, Bands
from eosin.wsi.inputs import Outcome, goes_as_slide, jobs
from eosin.wsi.options import OutcomeOptions
from eosin.wsi.outcome import FILES
from eosin.wsi.ray import work
from eosin.wsi.run import predict_slides
from eosin.wsi.settings import Model, Settings
from eosin.wsi.survey import survey
from small_model import TILE, model_folder
from wsi_slides import HEIGHT, MPP, WIDTH, drawn, slide_file


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("small") / "model")


class Counting(Predictor):
    """Counts the tiles it predicts."""

    tiles = 0

    def __call__(self, tiles: object) -> torch.Tensor:
        self.tiles += len(tiles)  # type: ignore[arg-type]
        return super().__call__(tiles)  # type: ignore[arg-type]


def predicted(predictor: Predictor, sources: list[Path], out: Path, settings: Settings | None = None) -> list[Outcome]:
    return predict_slides(predictor, jobs(sources, out), out, settings or Settings(), SILENT)


def states(outcomes: list[Outcome]) -> list[str]:
    return [outcome.state for outcome in outcomes]


def summary(out: Path) -> dict[str, dict[str, str]]:
    with (out / "summary.csv").open(newline="") as file:
        return {row["slide"]: row for row in csv.DictReader(file)}


def result(folder: Path) -> dict:
    value = json.loads((folder / "result.json").read_text())
    assert isinstance(value, dict)
    return value


def test_a_slide_is_predicted_as_its_pixels_in_one_piece(model: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(model)
    (outcome,) = predicted(predictor, [slide_file(tmp_path / "s.tif")], tmp_path / "out")
    assert outcome.state == "done" and outcome.folder == tmp_path / "out" / "s"
    bands = list(Bands.open(outcome.folder / ".work" / "bands"))
    classes = np.concatenate([band.classes for band in bands])
    image = torch.from_numpy(drawn(HEIGHT, WIDTH)).permute(2, 0, 1)
    whole = blend(lambda tiles: predictor(tiles.permute(0, 2, 3, 1)), image, TILE, predictor.card.margin)
    first, second = whole.sort(0, descending=True).values[:2]
    clear = (first - second > 1e-5).numpy() & (classes != OUTSIDE)
    assert 0.2 < clear.mean() < 0.6
    np.testing.assert_array_equal(classes[clear], whole.argmax(0).numpy()[clear])

    found = result(outcome.folder)
    assert all((outcome.folder / name).is_file() for name in FILES)
    assert (found["height"], found["width"], found["mpp"]) == (HEIGHT, WIDTH, MPP)
    assert found["mpp_from"] and found["use"] == "research use only" and found["version"]
    assert (found["model"], found["runtime"], found["precision"]) == (predictor.card.digest, "torch", "fp32")
    assert sum(entry["pixels"] for entry in found["classes"].values()) == (classes != OUTSIDE).sum()
    line = summary(tmp_path / "out")["s"]
    assert (line["state"], line["attempts"], line["mpp"]) == ("done", "1", str(MPP)) and float(line["minutes"]) >= 0


def test_what_is_finished_is_skipped_and_new_outlines_need_no_new_prediction(model: Path, tmp_path: Path) -> None:
    predictor, out = Counting.load(model), tmp_path / "out"
    assert isinstance(predictor, Counting)
    source = slide_file(tmp_path / "s.tif")
    assert states(predicted(predictor, [source], out)) == ["done"]
    tiles, before = predictor.tiles, (out / "s" / "regions.geojson.gz").read_bytes()
    assert tiles == result(out / "s")["tiles"] > 20
    assert states(predicted(predictor, [source], out)) == ["skipped"]

    sure = Settings(outcome=OutcomeOptions(abstain=0.9, palette="qupath"))
    assert states(predicted(predictor, [source], out, sure)) == ["done"]
    assert predictor.tiles == tiles  # from the bands that were kept
    assert result(out / "s")["outcome"]["abstain"] == 0.9
    assert states(predicted(predictor, [source], out)) == ["done"]
    assert (out / "s" / "regions.geojson.gz").read_bytes() == before

    for path in (out / "s" / ".work" / "bands").iterdir():
        path.unlink()
    assert states(predicted(predictor, [source], out, sure)) == ["done"]
    assert predictor.tiles == 2 * tiles
    assert states(predicted(predictor, [source], out, replace(sure, batch=5))) == ["done"]
    assert predictor.tiles == 3 * tiles
    os.utime(source, ns=(1, 1))
    assert states(predicted(predictor, [source], out, replace(sure, batch=5))) == ["done"]
    assert summary(out)["s"]["attempts"] == "6"


def test_what_a_killed_process_left_half_written_is_cleared_away(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    left = [out / "s" / ".classes.tif.1.tmp", out / "s" / ".work" / ".work.json.1.tmp"]
    left[1].parent.mkdir(parents=True)
    for path in left:
        path.touch()
    assert states(predicted(Predictor.load(model), [slide_file(tmp_path / "s.tif")], out)) == ["done"]
    assert not any(path.exists() for path in left)


def test_a_mask_of_tissue_is_kept_and_taken_as_somebody_changed_it(model: Path, tmp_path: Path) -> None:
    predictor, out = Predictor.load(model), tmp_path / "out"
    source = slide_file(tmp_path / "s.tif")
    predicted(predictor, [source], out)
    before = result(out / "s")
    mask = np.zeros((44, 56), np.uint8)
    mask[10:20, 10:20] = 1
    Image.fromarray(mask).save(out / "s" / "tissue.png")
    assert states(predicted(predictor, [source], out)) == ["done"]
    after = result(out / "s")
    assert after["tiles"] < before["tiles"]
    os.utime(source, ns=(1, 1))  # as of a copy
    assert states(predicted(predictor, [source], out)) == ["done"] and result(out / "s")["tiles"] == after["tiles"]
    assert sum(entry["pixels"] for entry in after["classes"].values()) == pytest.approx(100 * 100, rel=0.01)
    Image.fromarray(np.ones((44, 56), np.uint8)).save(tmp_path / "given.png")
    given = Settings(tissue=tmp_path / "given.png")
    assert states(predicted(predictor, [source], out, given)) == ["done"]
    assert result(out / "s")["tissue_mm2"] == pytest.approx(HEIGHT * WIDTH * MPP**2 / 1e6)
    assert states(predicted(predictor, [source], out, given)) == ["skipped"]
    assert states(predicted(predictor, [source], out)) == ["skipped"]  # what was given is kept


def test_bad_slides_are_told_and_the_others_go_on(model: Path, tmp_path: Path) -> None:
    good, empty, cut, wrong = (tmp_path / name for name in ("good.tif", "empty.svs", "cut.tif", "wrong.svs"))
    slide_file(good)
    empty.touch()
    cut.write_bytes(slide_file(tmp_path / "z.tif", seed=1).read_bytes()[:20000])
    Image.fromarray(drawn(50, 60)).save(tmp_path / "w.png")
    (tmp_path / "w.png").rename(wrong)
    sources, out = [empty, cut, tmp_path / "missing.svs", wrong, good], tmp_path / "out"
    for attempt in (1, 2):
        outcomes = predicted(Predictor.load(model), sources, out)
        assert states(outcomes) == [*["failed"] * 4, "done" if attempt == 1 else "skipped"]
        for outcome in outcomes[:4]:
            assert outcome.source.name in outcome.reason and "\n" not in outcome.reason
            line = summary(out)[outcome.folder.name]
            assert (line["state"], line["reason"]) == ("failed", outcome.reason)
            assert line["attempts"] == str(attempt)
    assert set(summary(out)) == {"empty", "cut", "missing", "wrong", "good"}


def test_without_a_pixel_size_a_slide_is_refused_until_one_is_given(model: Path, tmp_path: Path) -> None:
    predictor, out = Predictor.load(model), tmp_path / "out"
    sources = [slide_file(tmp_path / "s.tif", mpp=None), tmp_path / "p.png"]
    Image.fromarray(drawn(200, 250)).save(sources[1])
    outcomes = predicted(predictor, sources, out)
    assert states(outcomes) == ["failed", "failed"]
    assert all("--mpp" in outcome.reason and "--mpp-csv" in outcome.reason for outcome in outcomes)
    assert states(predicted(predictor, sources, out, Settings(mpp=0.25))) == ["done", "done"]
    assert result(out / "s")["mpp_from"] == "--mpp" and result(out / "s")["predicted_mpp"] == 0.5
    assert [summary(out)[name]["mpp_from"] for name in "sp"] == ["--mpp", "--mpp"]
    table = Settings(table={"s": 0.25, "p.png": 0.5})
    assert states(predicted(predictor, sources, out, table)) == ["skipped", "done"]
    assert result(out / "p")["mpp"] == 0.5 and result(out / "p")["mpp_from"] == "--mpp-csv"
    with pytest.raises(WrongUse, match="--mpp -1"):
        predicted(predictor, sources, out, Settings(mpp=-1))


def test_a_model_of_unknown_scale_takes_no_slides(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", mpp=None)
    (outcome,) = predicted(Predictor.load(folder), [slide_file(tmp_path / "s.tif")], tmp_path / "out")
    assert outcome.state == "failed" and "card has no mpp" in outcome.reason


def test_images_go_as_slides_only_if_their_pixel_size_is_said(tmp_path: Path) -> None:
    Image.fromarray(drawn(40, 40)).save(tmp_path / "a.png")
    tiled = slide_file(tmp_path / "b.tif")
    assert not goes_as_slide(tmp_path / "a.png", sized=False) and goes_as_slide(tmp_path / "a.png", sized=True)
    assert goes_as_slide(tiled, sized=False)
    assert goes_as_slide(tmp_path / "missing.svs", sized=False)
    assert not goes_as_slide(tmp_path / "missing.png", sized=False)


def test_tissue_of_a_folder_is_taken_by_name(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "s.geojson").touch()
    settings = Settings(tissue=tmp_path / "t")
    assert settings.tissue_of(Path("x/s.svs")) == tmp_path / "t" / "s.geojson"
    with pytest.raises(EosinError, match=r"says nothing of u\.svs; add u\.geojson"):
        settings.tissue_of(Path("u.svs"))


def test_a_survey_says_the_tiles_and_writes_nothing(model: Path, tmp_path: Path) -> None:
    predictor, out = Predictor.load(model), tmp_path / "out"
    slides = jobs([slide_file(tmp_path / "s.tif"), tmp_path / "missing.svs"], out)
    plan, bad = survey(predictor, slides, Settings())
    assert not out.exists()
    assert (plan.state, plan.height, plan.width, plan.mpp) == ("open", HEIGHT, WIDTH, MPP)
    assert plan.minutes >= 0 and plan.megabytes > 0
    assert bad.state == "failed" and "missing.svs" in bad.reason
    predict_slides(predictor, slides[:1], out, Settings(), SILENT)
    assert result(out / "s")["tiles"] == plan.tiles
    assert next(survey(predictor, slides, Settings())).state == "finished"


def test_a_worker_does_what_a_local_process_does(model: Path, tmp_path: Path) -> None:
    source = slide_file(tmp_path / "s.tif")
    how = Model(model, "fp32", "torch")
    (job,) = jobs([source], tmp_path / "a")
    cores = torch.get_num_threads()
    assert work(job, how, Settings(), tmp_path / "a", cores)["state"] == "done"
    assert work(job, how, Settings(), tmp_path / "a", cores)["state"] == "skipped"
    assert "--mpp -1" in work(job, how, Settings(mpp=-1), tmp_path / "a", cores)["wrong"]
    predicted(Predictor.load(model), [source], tmp_path / "b")
    assert bands_of(tmp_path / "a" / "s") == bands_of(tmp_path / "b" / "s")


def bands_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / ".work" / "bands").iterdir())}


SLOW = """
import sys, time, pathlib
import torch; torch.set_num_threads(1)
from eosin.core.progress import SILENT, Silent
from eosin.predictor.predictor import Predictor
from eosin.wsi import stitch
from eosin.wsi.inputs import jobs
from eosin.wsi.run import predict_slides
from eosin.wsi.settings import Settings
class Slow(Predictor):
    def __call__(self, tiles):
        print("batch", flush=True)
        time.sleep(0.3)
        return super().__call__(tiles)
stitch.predict_bands.__kwdefaults__["every"] = 0.0
model, out, *sources = map(pathlib.Path, sys.argv[1:])
predict_slides(Slow.load(model), jobs(sources, out), out, Settings(batch=4), SILENT)
"""


def test_two_processes_share_the_slides_and_a_killed_one_is_succeeded(model: Path, tmp_path: Path) -> None:
    sources = [slide_file(tmp_path / f"{name}.tif", seed=seed) for seed, name in enumerate("ab")]
    out = tmp_path / "out"
    other = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(model), str(out), *map(str, sources)], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    for _ in range(6):
        assert other.stdout.readline() == "batch\n"  # it works on the first
    said: list[str] = []

    class Ends:
        """Kills the other when we begin to wait for it."""

        def start(self, what: str, total: int) -> object:
            return lambda done, note: None

        def say(self, line: str) -> None:
            said.append(line)
            os.kill(other.pid, signal.SIGKILL)
            other.wait()

    predictor = Counting.load(model)
    assert isinstance(predictor, Counting)
    outcomes = predict_slides(predictor, jobs(sources, out), out, Settings(batch=4), Ends())
    other.stdout.close()
    assert states(outcomes) == ["done", "done"]
    assert said == [f"a: process {other.pid} on {os.uname().nodename} works on it; waiting"]
    assert [summary(out)[name]["attempts"] for name in "ab"] == ["2", "1"]
    assert predictor.tiles < result(out / "a")["tiles"] + result(out / "b")["tiles"]  # it went on from there
    predicted(Predictor.load(model), sources, tmp_path / "alone", Settings(batch=4))
    for name in "ab":
        assert bands_of(out / name) == bands_of(tmp_path / "alone" / name)
    assert not list((out / ".slides").glob("*lease*"))


def test_progress_tells_when_results_are_written(model: Path, tmp_path: Path) -> None:
    told: list[tuple[int, str, bool]] = []
    out = tmp_path / "out"

    class Listening:
        def start(self, what: str, total: int) -> Callable[[int, str], None]:
            assert what == "a"
            told.append((-total, "", False))
            return lambda done, note: told.append((done, note, (out / "a" / "result.json").exists()))

        def say(self, line: str) -> None:
            raise AssertionError(line)

    source = slide_file(tmp_path / "a.tif")
    predict_slides(Predictor.load(model), jobs([source], out), out, Settings(), Listening())
    assert told[-2:] == [(0, "writing results", False), (0, "", True)]
    assert sum(done for done, _, _ in told) == 0 and all(not note for _, note, _ in told[:-2])


def test_a_slide_unlike_the_training_tiles_is_told(tmp_path: Path) -> None:
    far = Spread(mean=9, sd=0.1)
    folder = model_folder(tmp_path / "model", domain=Domain(red=far, green=far, blue=far, blur=far, mpp=0.5, tiles=9))
    said: list[str] = []

    class Listening(Silent):
        def say(self, line: str) -> None:
            said.append(line)

    out = tmp_path / "out"
    predict_slides(Predictor.load(folder), jobs([slide_file(tmp_path / "a.tif")], out), out, Settings(), Listening())
    assert said == [f"a: {line}" for line in result(out / "a")["out_of_domain"]] and len(said) == 4


@pytest.mark.slow
def test_two_workers_of_a_ray_cluster_do_the_same(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    from eosin.wsi.ray import predict_on_ray

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "src"))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    torch.set_num_threads(1)
    sources = [slide_file(tmp_path / f"{name}.tif", seed=seed) for seed, name in enumerate("abc")]
    (tmp_path / "empty.svs").touch()
    every, out = [*sources, tmp_path / "empty.svs"], tmp_path / "out"
    outcomes = predict_on_ray(Model(model, "fp32", "torch"), jobs(every, out), out, Settings(), SILENT)
    assert states(outcomes) == ["done", "done", "done", "failed"]
    predicted(Predictor.load(model), sources, tmp_path / "alone")
    for name in "abc":
        assert bands_of(out / name) == bands_of(tmp_path / "alone" / name)
