"""The verbs as a user runs them: through the command line, on tiny drawn tissue, to the files that are promised."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import call
from eosin.core.fingerprint import file_digest
from eosin.data.dataset import Dataset
from eosin.data.phantom import PhantomSpec, draw_dataset

REPOSITORY = Path(__file__).resolve().parents[1]
SMALL = [
    "--set=options={tap: 1, stem_pool: false, map_views: 1, seg_depth: 3, seg_width: 4}",
    "--set=fit={batch: 8, lr: 0.003, precision: fp32, classifier: {epochs: 2}, segmenter: {epochs: 1}}",
]
PHANTOM = PhantomSpec(patches=24, val=6, test=6, large=1, size=48, large_size=96, patients=9)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "data"
    draw_dataset(folder, PHANTOM)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert call("run", "cam-phantom", "--data", data, "--out", out, *SMALL) == 0
    return out


def step_files(run: Path) -> dict[str, tuple[str, int]]:
    return {str(p): (file_digest(p), p.stat().st_mtime_ns) for p in run.glob("[spm]*/**/*") if p.is_file()}


def test_a_run_leaves_what_is_promised(run: Path, data: Path) -> None:
    for name in ("recipe.yaml", "journal.jsonl", "scores.json", "provenance.json", "report.html", "model/card.json"):
        assert (run / name).is_file(), name
    entries = json.loads((run / "scores.json").read_text())
    assert {(e["step"], e["split"]) for e in entries} == {
        (step, split) for step in ("classifier", "segmenter") for split in ("val", "test", "large")
    }
    for entry in entries:
        assert entry["schema"] == 1
        assert entry["protocol"] == "strict"
        assert entry["uses_truth"] is False
        assert entry["selection"] == "masks"
        assert set(entry["iou"]) == set(entry["classes"])
        assert 0 <= entry["miou"] <= 1
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["dataset"]["digest"] == Dataset.open(data).digest
    assert provenance["seed"] == 0
    assert provenance["precision"] == "fp32"
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    if head.returncode == 0:
        assert provenance["commit"].removesuffix("+changes") == head.stdout.strip()
    assert provenance["wall_s"] > 0 < provenance["cpu_s"]


def test_a_second_run_changes_no_step_file(run: Path, data: Path) -> None:
    before = step_files(run)
    assert len(before) > 30
    assert call("run", "cam-phantom", "--data", data, "--out", run, *SMALL) == 0
    assert step_files(run) == before


def test_score_of_the_exported_model_agrees_with_the_run(
    run: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("score", run, "--data", data, "--split", "test", "--json") == 0
    entry = json.loads(capsys.readouterr().out)
    scored = [
        e for e in json.loads((run / "scores.json").read_text()) if (e["step"], e["split"]) == ("segmenter", "test")
    ]
    assert entry["n_images"] == PHANTOM.test
    assert np.abs(np.subtract(entry["confusion"], scored[0]["confusion"])).sum() <= 10  # pixels at a tie


def test_predict_writes_masks_and_overlays_and_names_the_bad_image(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = next((data / "images").rglob("large*.png"))
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    assert call("predict", run, large, bad, "--out", tmp_path / "out", "--json") == 1
    rows = json.loads(capsys.readouterr().out)
    assert [r["state"] for r in rows] == ["done", "failed"]
    assert "bad.png" in rows[1]["reason"]
    classes = np.asarray(Image.open(Path(rows[0]["folder"]) / "classes.png"))
    assert classes.shape == (96, 96)
    assert classes.max() < 4


def test_data_without_any_mask_runs_to_the_end(data: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(data / "images", bare / "images")
    shutil.copy(data / "dataset.yaml", bare)
    with (data / "items.csv").open(newline="") as file:
        rows = [{**row, "mask": ""} for row in csv.DictReader(file)]
    with (bare / "items.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    out = tmp_path / "run"
    assert call("run", "cam-phantom", "--data", bare, "--out", out, *SMALL) == 0
    entries = json.loads((out / "scores.json").read_text())
    assert {e["protocol"] for e in entries} == {"tags"}
    assert {e["selection"] for e in entries} == {"tags"}
    known = {e["split"]: e["tags"]["map"] for e in entries if e["step"] == "segmenter"}
    assert 0 <= known["test"] <= 1
    assert known["large"] is None  # one image: nothing to rank
    assert not any("miou" in e for e in entries)
    assert (out / "model" / "card.json").is_file()
    assert (out / "report.html").is_file()


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("run", "cam-fantom"), 2, "did you mean 'cam-phantom'"),
        (("run", "cam-phantom", "--set", "fit.classifier.epoch=3"), 2, "did you mean 'epochs'"),
        (("run", "cam-phantom", "--set", "fit.segmentr.epochs=3"), 2, "did you mean 'segmenter'"),
        (("run", "cam-phantom", "--set", "options.pol=gap"), 2, "did you mean 'pool'"),
        (("run", "cam-phantom", "--set", "fit.lr=-1"), 2, "lr = -1"),
        (("run", "cam-phantom", "--set", "data.phantom.patchs=3"), 2, "did you mean 'patches'"),
        (("run", "cam-phantom", "--set", "nonsense"), 2, "write key=value"),
        (("run", "cam-glas"), 2, "needs --data"),
        (("run", "cam-glas", "--data", "nowhere"), 1, "nowhere"),
        (("score", "nowhere", "--data", "nowhere"), 2, "neither a finished run nor a model folder"),
        (("report", "nowhere"), 2, "not a run"),
        (("data", "check", "nowhere"), 1, "nowhere"),
        (("data", "import", "glass", ".", "there"), 2, "did you mean 'glas'"),
        (("list", "nonsense"), 2, "nonsense"),
    ],
)
def test_bad_input_gets_one_line_and_its_exit_code(
    words: tuple[str, ...],
    code: int,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*words) == code
    told = capfd.readouterr()
    assert line in told.err + told.out
    assert "Traceback" not in told.err
    if words[0] != "list":  # typer draws a box about a wrong choice
        assert len([text for text in told.err.splitlines() if text.startswith("eosin:")]) <= 1


def test_a_changed_recipe_is_stale_and_nothing_is_lost(
    run: Path, data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before, settings = step_files(run), (run / "recipe.yaml").read_text()
    assert call("run", "cam-phantom", "--data", data, "--out", run, *SMALL, "--set=fit.segmenter.lr=0.001") == 1
    assert "--redo segmenter" in capfd.readouterr().err
    assert step_files(run) == before
    assert (run / "recipe.yaml").read_text() == settings


@pytest.mark.parametrize("what", ["methods", "recipes", "formats", "protocols", "parts", "weights"])
def test_lists_are_json_with_a_line_about_each(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list", what, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows
    assert all(row["name"] and row["about"] for row in rows)


def test_doctor_finds_nothing_amiss_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("doctor", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["defects"] == []
    assert "torch" in told["facts"]


def test_help_answers_without_torch() -> None:
    code = (
        "import sys; sys.argv = ['eosin', '--help']\nfrom eosin.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    )
    code += "assert not {'torch', 'numpy', 'timm'} & set(sys.modules), sorted(sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert "predict" in told.stdout
