"""`eosin predict` as a user gives it: slides and images together, a look beforehand, and options that do not fit."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from command_line import call
from eosin.core.errors import EosinError, WrongUse
from eosin.verbs import predict
from small_model import model_folder
from wsi_slides import HEIGHT, WIDTH, drawn, slide_file


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("small") / "model")


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    slide_file(folder / "b.tif")
    Image.fromarray(drawn(40, 50)).save(folder / "a.png")
    (folder / "c.png").touch()
    (folder / "d.svs").touch()
    return folder


def test_slides_and_images_are_predicted_together_and_bad_ones_named(
    model: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert call("predict", model, inputs, "--out", out, "--abstain", "0.5", "--json") == 1
    rows = json.loads(capsys.readouterr().out)
    assert [Path(row["image"]).name for row in rows] == ["a.png", "b.tif", "c.png", "d.svs"]
    assert [row["state"] for row in rows] == ["done", "done", "failed", "failed"]
    assert (out / "a" / "overlay.png").is_file() and (out / "b" / "regions.geojson.gz").is_file()
    assert json.loads((out / "b" / "result.json").read_text())["outcome"]["abstain"] == 0.5
    with (out / "summary.csv").open(newline="") as file:
        told = {row["slide"]: (row["state"], row["reason"]) for row in csv.DictReader(file)}
    assert told == {name: (row["state"], row["reason"]) for name, row in zip("abcd", rows, strict=True)}
    with (out / "areas.csv").open(newline="") as file:
        assert [row["slide"] for row in csv.DictReader(file)] == ["b"]


def test_a_dry_run_shows_every_slide_and_writes_nothing(
    model: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert call("predict", model, inputs, "--out", out, "--dry-run", "--json") == 1
    slide, bad = json.loads(capsys.readouterr().out)
    assert (slide["height"], slide["width"], slide["mpp"]) == (HEIGHT, WIDTH, 0.5) and slide["tiles"] > 20
    assert bad["state"] == "failed" and "d.svs" in bad["reason"]
    assert call("predict", model, inputs / "b.tif", "--out", out, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert f"{WIDTH} x {HEIGHT}" in shown and "1 slides" in shown and "minutes" in shown
    assert not out.exists()


def test_a_dry_run_judges_what_is_finished_by_all_options(
    model: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("predict", model, inputs / "b.tif", "--out", tmp_path / "out", "--json")
    assert call(*asked, "--abstain", "0.5") == 0
    capsys.readouterr()
    for options, state in ((("--abstain", "0.5"), "finished"), ((), "open"), (("--min-area", "9"), "open")):
        assert call(*asked, *options, "--dry-run") == 0
        (plan,) = json.loads(capsys.readouterr().out)
        assert plan["state"] == state
    assert call(*asked, "--abstain", "3", "--dry-run") == 2


def test_images_are_slides_where_their_pixel_size_is_said(model: Path, inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "sizes.csv").write_text("wsi,mpp\na.png,0.5\n")
    out = tmp_path / "out"
    (outcome,) = predict(model, [inputs / "a.png"], out, mpp_csv=tmp_path / "sizes.csv")
    assert outcome.state == "done"
    assert json.loads((out / "a" / "result.json").read_text())["mpp_from"] == "--mpp-csv"


def test_lines_of_the_table_that_no_slide_is_meant_by_are_named(
    model: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sizes.csv").write_text("wsi,mpp\nb,0.5\nB2,0.25\n")
    assert call("predict", model, inputs / "b.tif", "--out", tmp_path / "out", "--mpp-csv", tmp_path / "sizes.csv") == 0
    said = capsys.readouterr()
    assert "--mpp-csv: there is no slide B2 here" in said.out + said.err


def test_options_that_do_not_fit_are_refused(model: Path, inputs: Path, tmp_path: Path) -> None:
    out, slide = tmp_path / "out", [inputs / "b.tif"]
    with pytest.raises(WrongUse, match="without --engine ray"):
        predict(model, slide, out, address="auto")
    with pytest.raises(WrongUse, match="one file for 2 slides"):
        predict(model, [*slide, inputs / "d.svs"], out, tissue=inputs / "a.png")
    with pytest.raises(EosinError, match="no such file or folder"):
        predict(model, slide, out, tissue=tmp_path / "none.png")
    with pytest.raises(WrongUse, match="--abstain 3"):
        predict(model, slide, out, abstain=3)
    with pytest.raises(WrongUse, match=r"a\.png: --min-area is for slides"):
        predict(model, [inputs / "a.png"], out, min_area=9)
    with pytest.raises(WrongUse, match="--mpp 0"):
        predict(model, slide, out, mpp=0.0)
    assert not (out / "summary.csv").exists()


def test_without_ray_the_extra_is_named(
    model: Path, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EosinError, match=r"pip install 'eosin\[ray\]'"):
        predict(model, [inputs / "b.tif"], tmp_path / "out", engine="ray")
