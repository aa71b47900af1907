"""A run that is killed again and again ends with the same bytes as one that ran through."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eosin.core.fingerprint import file_digest
from eosin.data.phantom import PhantomSpec, draw_dataset
from warm import script

DRIVER = Path(__file__).with_name("driver.py")
RECIPE = """
method: cam
data: {tile: 64}
options: {pretrained: none, tap: 1, stem_pool: false, scale: 0.5, seg_depth: 3, seg_width: 4, seg_scale: 0.5,
          dropout: 0.2, map_views: 4}
fit:
  batch: 8
  ema: 0.9
  schedule: onecycle
  augment: {stain: 0.2, blur: 0.7}
  classifier: {epochs: 3, sampler: balanced, clip: 1.0}
  segmenter: {epochs: 2, accumulate: 2, precision: bf16}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a recipe, and the run that was never disturbed."""
    place = tmp_path_factory.mktemp("resume")
    spec = PhantomSpec(patches=24, val=6, test=4, large=1, size=64, large_size=96, patients=9)
    draw_dataset(place / "data", spec, lambda done, total: None)
    (place / "r.yaml").write_text(RECIPE)
    assert go(place, "whole").returncode == 0
    return place


def go(place: Path, run: str, *words: str, **wish: Any) -> subprocess.CompletedProcess[str]:
    """``eosin run`` in a process of its own, struck at a place if one is named."""
    run_it = [json.dumps(wish), "run", "r.yaml", "--data", "data", "--out", run, "--json", *words]
    return script(DRIVER, run_it, {**os.environ, "OMP_NUM_THREADS": "1"}, place)


def results(run: Path) -> dict[str, str]:
    """SHA-256 of everything that a run made, but for the times in its records."""
    found = [path for part in ("steps", "model", "predictions") for path in (run / part).rglob("*") if path.is_file()]
    digests = {str(path.relative_to(run)): file_digest(path) for path in found if path.name != "step.json"}
    for path in found:
        if path.name == "step.json":
            record = json.loads(path.read_text())
            digests[str(path.relative_to(run))] = f"{record['digest']} {record['content']}"
    return digests


def journal(run: Path) -> list[tuple[Any, ...]]:
    """The lines of a run's journal without the times."""
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    return [(e["step"], e["epoch"], e["losses"], e["lr"], e["val"], e["kept"]) for e in lines]


def same(place: Path, run: str) -> None:
    """All that a run made is what the undisturbed one made, and nothing is left over."""
    assert results(place / run) == results(place / "whole")
    assert journal(place / run) == journal(place / "whole")
    assert [(step, epoch) for step, epoch, *_ in journal(place / run)] == [
        *[("classifier", e) for e in range(3)],
        *[("segmenter", e) for e in range(2)],
    ]
    assert not list((place / run).rglob(".*.making")) and not list((place / run).rglob("*.tmp"))


def test_training_survives_sigkill_at_any_step(place: Path) -> None:
    assert go(place, "fits", at="epoch", number=1, how="SIGKILL").returncode == -9  # trained, but not judged
    done = 3
    for step in sorted(random.Random(1).sample(range(5, 16), 3)):  # of all 15, of both fits
        assert go(place, "fits", at="step", number=step - done, how="SIGKILL", workers=2).returncode == -9
        done = step - 1
        fit, before = ("classifier", 0) if done < 9 else ("segmenter", 9)
        saved = sorted((place / "fits" / "steps" / f".{fit}.making" / ".checkpoints").iterdir())
        assert saved[-1].name == f"{done - before:09d}.ckpt" and len(saved) <= 2
    assert go(place, "fits").returncode == 0
    same(place, "fits")


def test_labelling_survives_sigkill_at_any_mask(place: Path) -> None:
    copy(place, "masks", "steps/classifier")
    for number, left in ((5, 4), (9, 12), (11, 22)):  # each sitting begins its masks anew, after those that are drawn
        assert go(place, "masks", at="mask", number=number, how="SIGKILL").returncode == -9
        drawn = list((place / "masks" / "steps" / ".pseudo.making" / "masks").glob("*.png"))
        assert len(drawn) == left
    assert go(place, "masks").returncode == 0
    same(place, "masks")


@pytest.mark.parametrize("at", ["program", "parity", "card"])
def test_the_export_survives_sigkill(place: Path, at: str) -> None:
    copy(place, f"export-{at}", "steps", "predictions")
    assert go(place, f"export-{at}", at=at, number=1, how="SIGKILL").returncode == -9
    assert not (place / f"export-{at}" / "model").exists()
    assert go(place, f"export-{at}").returncode == 0
    same(place, f"export-{at}")


@pytest.mark.parametrize(("how", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_interrupted_fit_saves_its_step_and_goes_on(place: Path, how: str, code: int) -> None:
    stopped = go(place, how, at="step", number=5, how=how, every=1e9, workers=1)
    assert stopped.returncode == code
    assert stopped.stderr.splitlines() == [
        "eosin: interrupted; what is done is kept, the same command goes on from there"
    ]
    (saved,) = (place / how / "steps" / ".classifier.making" / ".checkpoints").iterdir()
    assert saved.name == "000000005.ckpt"
    if how == "SIGTERM":
        return
    assert go(place, how, at="epoch", number=1, how=how, every=1e9).returncode == code  # when an epoch is judged
    assert go(place, how, at="epoch", number=1, how=how, every=1e9).returncode == code  # and after the last step
    assert go(place, how).returncode == 0
    same(place, how)


def test_a_second_run_changes_no_step(place: Path) -> None:
    before = {p: (p.stat().st_mtime_ns, file_digest(p)) for p in (place / "whole" / "steps").rglob("*") if p.is_file()}
    assert go(place, "whole", at="step", number=1, how="SIGKILL").returncode == 0, "no step is trained"
    assert before == {p: (p.stat().st_mtime_ns, file_digest(p)) for p in before}


def test_two_processes_on_one_run(place: Path) -> None:
    code = "import sys, time, pathlib, eosin.core.lock as lock\nwith lock.sole(pathlib.Path(sys.argv[1])):"
    code += " print('in', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(place / "whole")], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "in\n"
        refused = go(place, "whole")
        other.kill()
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"eosin: whole: process {other.pid} on ") and "is working here" in line
    assert go(place, "whole").returncode == 0, "a killed process holds nothing"


def copy(place: Path, run: str, *parts: str) -> None:
    """A run that has made these parts of the undisturbed one."""
    for part in parts:
        shutil.copytree(place / "whole" / part, place / run / part)
    shutil.copy(place / "whole" / "journal.jsonl", place / run)
    if parts[0] != "steps":
        lines = (place / "whole" / "journal.jsonl").read_text().splitlines(keepends=True)
        (place / run / "journal.jsonl").write_text("".join(line for line in lines if '"step": "classifier"' in line))
