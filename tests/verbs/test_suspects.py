"""``eosin report RUN --masks`` as a user runs it: the list, the untouched run, and one line for what cannot be."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from command_line import call
from eosin.core.fingerprint import file_digest
from eosin.data.dataset import Dataset
from eosin.data.phantom import PhantomSpec, draw_dataset

SMALL = [
    "--set=options={tap: 1, stem_pool: false, map_views: 1, seg_depth: 3, seg_width: 4}",
    "--set=fit={batch: 8, lr: 0.003, precision: fp32, epochs: 1}",
]
PHANTOM = PhantomSpec(patches=24, val=6, test=6, large=0, size=48, patients=9)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with drawn ``data`` and a finished ``run`` on it."""
    folder = tmp_path_factory.mktemp("made")
    draw_dataset(folder / "data", PHANTOM)
    assert call("run", "cam-phantom", "--data", folder / "data", "--out", folder / "run", *SMALL) == 0
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of the run, with a data set of its own."""
    shutil.copytree(made, tmp_path / "made")
    said = json.loads((tmp_path / "made" / "run" / "provenance.json").read_text())
    said["dataset"]["folder"] = str(tmp_path / "made" / "data")
    (tmp_path / "made" / "run" / "provenance.json").write_text(json.dumps(said))
    return tmp_path / "made" / "run"


def files_of(folder: Path) -> dict[str, tuple[str, int]]:
    """All but who works there."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): (file_digest(path), path.stat().st_mtime_ns) for path in paths}


def test_every_training_image_is_ranked_and_the_run_is_as_before(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = files_of(run)
    assert call("report", run, "--masks") == 0
    assert "fold-5" in capfd.readouterr().err
    after = files_of(run)
    del before["report.html"]
    assert {name: after[name] for name in before} == before
    said = json.loads((run / "suspects" / "suspects.json").read_text())
    assert (said["step"], said["folds"], said["grouped_by"]) == ("classifier", 5, "patient")
    assert sorted(item["id"] for item in said["items"]) == sorted(Dataset.open(run.parent / "data").items("train").ids)
    with (run / "suspects" / "suspects.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4 * PHANTOM.patches
    page = (run / "report.html").read_text()
    assert "Doubtful tags" in page
    assert said["items"][0]["id"] in page

    assert call("report", run, "--masks", "--json") == 0
    told = capfd.readouterr()
    assert json.loads(told.out) == {"report": str(run / "report.html")}
    assert told.err == ""
    folds = {name: stamp for name, stamp in after.items() if name.startswith("suspects/fold-")}
    assert {name: files_of(run)[name] for name in folds} == folds

    assert call("run", "cam-phantom", "--data", run.parent / "data", "--out", run, *SMALL) == 0  # nothing is stale
    assert {name: files_of(run)[name] for name in folds} == folds


def test_without_masks_nothing_is_ranked(run: Path) -> None:
    assert call("report", run) == 0
    assert not (run / "suspects").exists()
    assert "Doubtful tags" not in (run / "report.html").read_text()


def refused(run: Path, capfd: pytest.CaptureFixture[str], code: int, *words: str) -> None:
    """Ranking ends with that code and one line that has these words, and nothing of the run has changed."""
    before = files_of(run)
    assert call("report", run, "--masks") == code
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("eosin:")]
    assert len(told) == 1
    assert all(word in told[0] for word in words), told[0]
    assert files_of(run) == before


def test_changed_data_are_refused(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    items = run.parent / "data" / "items.csv"
    lines = items.read_text().splitlines()
    items.write_text("\n".join([*lines[:-1], lines[-1][:-1] + ("1" if lines[-1].endswith("0") else "0")]) + "\n")
    refused(run, capfd, 1, "has changed", "run it again")


def test_data_that_are_gone_are_named(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run.parent / "data")
    refused(run, capfd, 1, str(run.parent / "data"), "is gone")


def test_an_unfinished_run_is_refused_and_not_finished_on_the_way(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "steps" / "segmenter")
    refused(run, capfd, 2, "step 'segmenter' is not finished")
    (run / "provenance.json").unlink()
    refused(run, capfd, 2, "not a finished run")


def test_an_upper_bound_has_no_tags_to_doubt(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_text("method: supervised\n")
    (tmp_path / "provenance.json").write_text("{}")
    refused(tmp_path, capfd, 2, "trained on true masks")
