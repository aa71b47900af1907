"""`eosin export` and `eosin predict` as a user runs them, on the model of a tiny run."""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.export import ExportedProgram

from command_line import call
from eosin.core.artifact import Trained
from eosin.core.errors import WrongUse
from eosin.core.progress import SILENT
from eosin.data.formats import glas, luad
from eosin.data.phantom import PhantomSpec, draw_dataset
from eosin.engine.export import CALIBRATED, JUDGED, calibration, tissue
from eosin.engine.weights import load
from eosin.parts.backbones import known
from eosin.predictor import export as exporting
from eosin.predictor.formats import onnx as onnx_form
from eosin.predictor.formats import openvino as openvino_form
from eosin.predictor.predictor import Predictor
from eosin.predictor.spec import Card, restricted
from eosin.slides.image import read_rgb
from eosin.verbs.finished import finished
from patches import noise, write_items

SMALL = [
    "--set=options={tap: 1, stem_pool: false, map_views: 1, seg_depth: 3, seg_width: 4}",
    "--set=fit={batch: 8, lr: 0.003, precision: fp32, classifier: {epochs: 1}, segmenter: {epochs: 1}}",
]
MIT = {"seg_encoder": "mit_b1", "seg_pretrained": "imagenet"}
BOUND = [f"data phantom: {glas.LICENCE}", *known.terms(MIT)]


@pytest.fixture(scope="module", autouse=True)
def weights_of_mit() -> Iterator[None]:
    """Runs say that they began with weights of MiT, which cannot be fetched here."""
    terms = known.terms(MIT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known, "terms", lambda options: terms)
        yield


@pytest.fixture(scope="module", autouse=True)
def written_once() -> Iterator[None]:
    """All tests have the same model, whose translation to ONNX takes most of their time."""
    made, to_onnx = [], onnx_form.to_onnx

    def once(program: ExportedProgram) -> bytes:
        if not made:
            made.append(to_onnx(program))
        return made[0]

    with pytest.MonkeyPatch.context() as patch:
        for place in (onnx_form, openvino_form):
            patch.setattr(place, "to_onnx", once)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, weights_of_mit: None) -> Path:
    """A run on data with the terms of GlaS."""
    place = tmp_path_factory.mktemp("runs")
    draw_dataset(place / "data", PhantomSpec(patches=20, val=3, test=3, large=1, size=48, large_size=96, patients=9))
    under(glas.LICENCE, place / "data")
    assert call("run", "cam-phantom", "--data", place / "data", "--out", place / "run", *SMALL) == 0
    return place / "run"


def under(terms: str, data: Path) -> None:
    head = data / "dataset.yaml"
    lines = [f"licence: '{terms}'" if line.startswith("licence:") else line for line in head.read_text().splitlines()]
    head.write_text("\n".join(lines) + "\n")


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "run")


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def states(rows: Sequence[dict[str, str]]) -> list[str]:
    return [row["state"] for row in rows]


def large(run: Path) -> Path:
    return next((run.parent / "data" / "images").rglob("large*.png"))


def test_onnx_goes_beside_the_program_and_the_run_does_not_notice(
    copy: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The export step of the run is still finished, by the same digest, and the same program is there."""
    assert call("export", copy, "--to", "onnx", "--json") == 0
    made = told(capsys)
    assert (made["form"], made["files"], made["made_with"]) == ("onnx", ["model.onnx"], None)
    assert made["max_difference"] <= 1e-4 and made["argmax_agreement"] >= 0.999
    assert made["research_only"] == BOUND
    assert (copy / "model" / "model.onnx").is_file()
    before = (copy / "model" / "card.json").read_bytes()
    assert call("run", "cam-phantom", "--data", run.parent / "data", "--out", copy, *SMALL) == 0
    assert (copy / "model" / "card.json").read_bytes() == before
    assert (copy / "model" / "program.pt2").read_bytes() == (run / "model" / "program.pt2").read_bytes()


def test_terms_go_from_data_and_weights_to_card_and_report(run: Path) -> None:
    assert len(BOUND) == 2 and "GlaS" in BOUND[0] and "mit_b1" in BOUND[1]
    assert list(Card.read(run / "model").licences) == BOUND
    page = html.unescape((run / "report.html").read_text())
    assert f"<b>Research only: </b>{'; '.join(BOUND)}." in page


def test_a_model_folder_is_exported_like_its_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = shutil.copytree(run / "model", tmp_path / "model")
    assert call("export", model, "--to", "onnx", "--out", tmp_path / "sent", "--json") == 0
    assert told(capsys)["folder"] == str(tmp_path / "sent")
    assert {p.name for p in (tmp_path / "sent").iterdir()} == {"card.json", "model.onnx"}
    assert not (model / "model.onnx").exists()
    assert call("predict", tmp_path / "sent", large(run), "--out", tmp_path / "out", "--json") == 0
    result = json.loads((tmp_path / "out" / large(run).stem / "result.json").read_text())
    assert (result["runtime"], result["precision"]) == ("onnx", "fp32")
    assert call("score", tmp_path / "sent", "--data", run.parent / "data") == 1  # that takes torch, hence the program
    assert "program.pt2: no such file" in capsys.readouterr().err


def test_wsinfer_is_answered_by_the_tag_classifier(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("export", copy, "--to", "wsinfer", "--json") == 0
    made = told(capsys)
    assert made["made_with"] == "classifier"
    assert {f.split("/")[1] for f in made["files"]} == {"tumour", "stroma", "lymphocytes", "necrosis"}
    _, lab, final = finished(copy, SILENT)
    assert final == "segmenter"
    classifier: Trained = lab.trained["classifier"]
    tiles = tissue(Card.read(copy / "model").tile)
    with torch.no_grad():
        expected = load(lab.build_of(classifier), classifier).tag_scores(tiles.permute(0, 3, 1, 2).float() / 255)
        with pytest.warns(DeprecationWarning):
            model = torch.jit.load(copy / "model" / "wsinfer" / "stroma" / "torchscript_model.pt")
        found = model(tiles.permute(0, 3, 1, 2).float() / 255).softmax(1)[:, 1]
    torch.testing.assert_close(found, expected[:, 1], atol=1e-5, rtol=0)


def test_predictions_say_what_ran_and_are_made_again_by_anything_else(
    run: Path, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, out = shutil.copy(large(run), tmp_path / "image.png"), tmp_path / "out"
    results = []
    for options in (["--runtime", "torch"], ["--runtime", "torch", "--precision", "fp32"]):
        for state in ("done", "skipped"):
            assert call("predict", copy, image, "--out", out, *options, "--json") == 0
            assert states(told(capsys)) == [state]
        results.append(json.loads((out / "image" / "result.json").read_text()))
    assert call("export", copy, "--to", "onnx") == 0  # the program is still the same
    text = capsys.readouterr().out
    assert "model.onnx" in text and "agrees in 100.00% of the classes" in text and "(for research use only)" in text
    assert [line for line in text.splitlines() if line.startswith("research only: ")] == [
        f"research only: {line}" for line in BOUND
    ]
    assert call("predict", copy, image, "--out", out, *options, "--json") == 0
    assert states(told(capsys)) == ["skipped"]
    assert call("predict", copy, image, "--out", out, "--runtime", "onnx", "--json") == 0
    assert states(told(capsys)) == ["done"]
    results.append(json.loads((out / "image" / "result.json").read_text()))
    assert [r["runtime"] for r in results] == ["torch", "torch", "onnx"]
    assert results[1]["precision"] == results[2]["precision"] == "fp32"
    assert results[1]["model"] == results[2]["model"] and results[1]["files"] != results[2]["files"]
    assert call("predict", copy, image, "--out", tmp_path / "again", "--runtime", "onnx") == 0
    assert "onnx in fp32" in capsys.readouterr().err


def test_openvino_runs_what_was_exported(
    run: Path, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    spec = PhantomSpec(patches=10, val=1, test=1, large=1, size=64, large_size=96, patients=5, seed=2)
    draw_dataset(tmp_path / "other", spec)
    under("academic use", tmp_path / "other")
    assert call("export", copy, "--to", "openvino", "--json") == 0
    assert told(capsys)["form"] == "openvino"
    monkeypatch.setattr(exporting, "LEAST_INT8", 0.5)  # one epoch leaves many pixels undecided
    assert call("export", copy, "--to", "openvino", "--int8", tmp_path / "other", "--json") == 0
    made = told(capsys)
    assert (made["form"], made["made_with"]) == ("openvino-int8", "data phantom: academic use")
    assert made["research_only"] == [*BOUND, "data phantom: academic use"]
    for precision in ("fp32", "int8"):
        out = tmp_path / precision
        assert call("predict", copy, large(run), "--out", out, "--precision", precision, "--json") == 0
        assert states(told(capsys)) == ["done"]
        result = json.loads((out / large(run).stem / "result.json").read_text())
        assert (result["runtime"], result["precision"]) == ("openvino", precision)


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("nowhere", "--to", "onnx"), 2, "neither a finished run nor a model folder"),
        (("RUN", "--to", "onnx", "--int8", "DATA"), 2, "--int8 goes with --to openvino, not with onnx"),
        (("RUN/model", "--to", "wsinfer"), 2, "give the run that it was made by"),
        (("RUN", "--to", "openvino", "--int8", "nowhere"), 1, "nowhere"),
        (("RUN", "--to", "onnx", "--out", "RUN"), 1, "neither empty nor a model folder"),
    ],
)
def test_bad_input_gets_one_line_and_its_exit_code(
    run: Path, words: tuple[str, ...], code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(run.rglob("*"))
    assert call("export", *(word.replace("RUN", str(run)) for word in words)) == code
    said = capsys.readouterr().err
    assert line in said and "Traceback" not in said
    assert len([text for text in said.splitlines() if text.startswith("eosin:")]) == 1
    assert sorted(p for p in run.rglob("*") if p.name != ".lock") == [p for p in before if p.name != ".lock"]


def test_wsinfer_needs_the_data_that_decide_what_is_built(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy / "provenance.json"
    said = json.loads(path.read_text())
    said["dataset"]["folder"] += "-gone"
    path.write_text(json.dumps(said))
    assert call("export", copy, "--to", "wsinfer") == 1
    assert "is gone; put it back there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "bound"),
    [
        *((f"data {name}: {terms}", True) for name, terms in (("glas", glas.LICENCE), ("luad", luad.RELEASE.licence))),
        *((line, True) for name in known.MITS for line in known.terms({**MIT, "seg_encoder": name})),
        ("data wsss4luad: released for research by the organisers", True),
        ("pretrained = imagenet (convnextv2_tiny): cc-by-nc-4.0", True),
        ("pretrained = imagenet (x): fair-noncommercial-research-license", True),
        ("data mine: CC BY-NC-SA 4.0", True),
        ("data mine: non commercial", True),
        ("CC BY-NC", True),
        ("data phantom: Apache-2.0 (drawn by eosin)", False),
        ("data research-nc: CC0-1.0", False),
        ("data mine: CC BY 4.0, commercial use allowed", False),
        ("pretrained = imagenet (resnet18): apache-2.0", False),
        ("data bcss: CC0 1.0", False),
    ],
)
def test_terms_that_allow_research_only_are_found(line: str, bound: bool) -> None:
    assert restricted([line]) == ([line] if bound else [])


# -- the tiles -----------------------------------------------------------------------------------------------------


def test_drawn_tiles_look_like_tissue_and_are_always_the_same() -> None:
    tiles = tissue(64)
    assert tiles.dtype == torch.uint8 and tiles.shape == (5, 64, 64, 3)
    assert torch.equal(tiles, tissue(64)) and not torch.equal(tiles[0], tiles[1])
    red, green, blue = tiles.float().mean((0, 1, 2))
    assert green < min(red, blue) - 10  # pink and violet
    neighbours = np.corrcoef(tiles[:, :, 1:].flatten().numpy(), tiles[:, :, :-1].flatten().numpy())[0, 1]
    assert neighbours > 0.5  # of noise it is 0


def test_images_are_calibrated_on_or_judged_on_and_never_both(tmp_path: Path) -> None:
    images = [np.full((30, 20, 3), i, np.uint8) for i in range(10)]
    tiles, judged = calibration(write_items(tmp_path, images), 32)  # smaller than a tile, so that one tile is cut
    assert tiles[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 5, 6, 7, 8] and judged[:, 0, 0, 0].tolist() == [4, 9]
    assert tiles.shape[1:] == judged.shape[1:] == (32, 32, 3)
    again = calibration(write_items(tmp_path, images), 32)
    assert torch.equal(tiles, again[0]) and torch.equal(judged, again[1])


def test_large_images_give_several_tiles_and_many_images_one_each(tmp_path: Path) -> None:
    items = write_items(tmp_path / "few", [noise(80, 100, seed) for seed in range(5)])
    tiles, judged = calibration(items, 16)
    assert (len(tiles), len(judged)) == (4 * 30, 30)  # 5 x 6 lie side by side in each
    first = read_rgb(items.path(0))
    windows = np.lib.stride_tricks.sliding_window_view(first, (16, 16, 3))[:, :, 0]
    assert all((windows == tile.numpy()).all((2, 3, 4)).any() for tile in tiles[:30])
    many = write_items(tmp_path / "many", [noise(16, 16, seed) for seed in range(400)])
    tiles, judged = calibration(many, 16)
    assert (len(tiles), len(judged)) == (CALIBRATED, JUDGED)


def test_too_few_images_are_told(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="4 training images are too few"):
        calibration(write_items(tmp_path, [noise()] * 4), 16)


def test_a_predictor_of_a_run_is_the_program_in_float32(run: Path) -> None:
    """`eosin score` takes what this gives: nothing is chosen for it."""
    predictor = Predictor.load(run / "model")
    assert (predictor.runtime, predictor.precision) == ("torch", "fp32")
