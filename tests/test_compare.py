"""``eosin compare`` as a user runs it: from the command line, on tiny drawn tissue, to tables that can be trusted.

Runs are made in this process, which saves the imports of a new one; one test starts real processes, and kills one.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from command_line import call
from eosin.cli.show import comparison_table, score_table
from eosin.core.artifact import write_json
from eosin.core.errors import WrongUse
from eosin.core.fingerprint import digest
from eosin.core.progress import SILENT
from eosin.data.dataset import Dataset
from eosin.data.phantom import PhantomSpec, draw_dataset
from eosin.recipe import load
from eosin.report.compare.read import read_run
from eosin.verbs import cells
from eosin.verbs.budget import budgeted
from eosin.verbs.cells import Cell, Plan, alone, cell
from eosin.verbs.compare import _named, asked_for
from eosin.verbs.train import resolve
from report.compare.hand_made import drawn, write_run
from same_process import Here

PHANTOM = PhantomSpec(patches=24, val=6, test=9, large=1, size=48, large_size=96, patients=9)
OPTIONS = {"seg_depth": 3, "seg_width": 4, "seg_scale": 0.5}
WEAK = {"tap": 1, "stem_pool": False, "scale": 0.5, "map_views": 1, **OPTIONS}
TRUE = {
    "method": "supervised",
    "options": OPTIONS,
    "fit": {"batch": 8, "precision": "fp32", "segmenter": {"epochs": 1}},
}
TAGS = {
    "method": "cam",
    "options": WEAK,
    "fit": {"batch": 8, "precision": "fp32", "classifier": {"epochs": 1}, "segmenter": {"epochs": 1}},
}


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """The commands of the processes that a comparison starts; they run in this one."""
    named = SimpleNamespace(Popen=Here, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(cells, "subprocess", named)
    Here.started.clear()
    yield Here.started
    Here.started.clear()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and recipes; its name has a blank."""
    folder = tmp_path_factory.mktemp("a place")
    draw_dataset(folder / "data", PHANTOM)
    for name, recipe in (("weak.v1", TAGS), ("bound", TRUE)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    return folder


@pytest.fixture(autouse=True)
def there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of the tests are relative to that folder."""
    monkeypatch.chdir(here)


def asked(*more: object, out: str = "out") -> tuple[object, ...]:
    return ("compare", "--methods", "weak.v1.yaml,bound.yaml", "--data", "data", "--out", out, *more)


def read(out: str = "out") -> dict[str, Any]:
    return json.loads(Path(out, "compare.json").read_text())  # type: ignore[no-any-return]


def entry_of(run: str) -> dict[str, Any]:
    """The entry of a run's segmenter on the test split."""
    entries = json.loads(Path(run, "scores.json").read_text())
    return next(e for e in entries if (e["step"], e["split"]) == ("segmenter", "test"))


def runs(out: str = "out") -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in Path(out, "runs").iterdir()}


@pytest.fixture(scope="module")
def compared(here: Path) -> dict[str, Any]:
    """Two methods with two seeds, compared once for many tests."""
    context = pytest.MonkeyPatch()
    named = SimpleNamespace(Popen=Here, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired)
    context.setattr(cells, "subprocess", named)
    context.chdir(here)
    with context.context():
        Here.started.clear()  # what tests of other files have left there
        assert call(*asked("--seeds", "2")) == 0
        assert len(Here.started) == 4
        found = read()
    context.undo()
    return found


def test_methods_and_seeds_are_run_and_compared(compared: dict[str, Any]) -> None:
    assert [arm["name"] for arm in compared["arms"]] == ["weak.v1", "bound"]
    assert compared["baseline"] == "weak.v1"
    for arm in compared["arms"]:
        assert arm["labels"] == ["seed 0", "seed 1"]
        entries = [entry_of(run) for run in arm["runs"]]
        assert arm["miou"]["values"] == [e["miou"] for e in entries]
        assert arm["miou"]["mean"] == pytest.approx(sum(e["miou"] for e in entries) / 2)
        assert arm["miou"]["values"][0] != arm["miou"]["values"][1]  # the seed reaches the run
        assert arm["boundary"]["miou"]["mean"] is not None
        assert arm["calibration"]["ece"]["mean"] is not None
        assert all(arm["cost"][key] > 0 for key in ("training_s", "memory_mb", "parameters", "images_per_s"))
    weak, bound = compared["arms"]
    assert (weak["supervision"], bound["supervision"]) == ("tags", "truth")
    assert weak["versus"] is None
    assert 0 < bound["versus"]["p"] <= bound["versus"]["p_holm"] <= 1
    assert bound["versus"]["difference"] == pytest.approx(bound["miou"]["mean"] - weak["miou"]["mean"])
    assert compared["command"] == "eosin compare --methods weak.v1.yaml,bound.yaml --data data --out out --seeds 2"


def test_every_file_that_is_promised_is_written(compared: dict[str, Any]) -> None:
    for name in ("compare.json", "compare.md", "compare.tex", "compare.html", "compare.png", "arms.csv", "runs.csv"):
        assert Path("out", name).stat().st_size > 100, name
    with Path("out", "runs.csv").open(newline="") as file:
        assert {row["run"] for row in csv.DictReader(file)} == {"seed 0", "seed 1"}


def test_a_second_call_starts_no_process_and_changes_no_run(
    compared: dict[str, Any], started: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    before, began = runs(), time.process_time()
    assert call(*asked("--seeds", "2", "--group", "tumour,stroma", "--json")) == 0
    assert time.process_time() - began < 10
    assert started == []
    assert runs() == before
    told = capsys.readouterr()
    again = json.loads(told.out)
    assert told.err == ""
    for arm, first in zip(again["arms"], compared["arms"], strict=True):
        two = [arm["iou"][name]["mean"] for name in ("tumour", "stroma")]
        assert arm["groups"]["tumour + stroma"]["mean"] == pytest.approx(sum(two) / 2)
        assert {**arm, "groups": {}} == first


def test_finished_runs_are_compared_as_they_are(
    compared: dict[str, Any], started: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [run for arm in compared["arms"] for run in arm["runs"]]
    assert call("compare", *folders, "--out", "elsewhere") == 0
    assert started == []
    assert "elsewhere/compare.html" in capsys.readouterr().out
    again = read("elsewhere")
    assert [arm["miou"] for arm in again["arms"]] == [arm["miou"] for arm in compared["arms"]]
    assert again["arms"][1]["versus"] == compared["arms"][1]["versus"]


def test_changed_settings_make_a_new_run_folder(compared: dict[str, Any], started: list[list[str]]) -> None:
    before = runs()
    words = ("compare", "--methods", "bound.yaml", "--data", "data", "--out", "out", "--seeds", "1")
    assert call(*words, "--set", "fit.segmenter.lr=0.002") == 0
    new = set(runs()) - set(before)
    assert len(started) == len(new) == 1
    assert new.pop().startswith("bound-seed0-")
    assert {name: at for name, at in runs().items() if name in before} == before


def test_an_arm_that_fails_does_not_lose_the_others(
    compared: dict[str, Any], started: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {**TRUE, "fit": {**TRUE["fit"], "lr": 1e30}}  # type: ignore[dict-item]
    Path("bad.yaml").write_text(yaml.safe_dump(bad))
    words = ("compare", "--methods", "bad.yaml,bound.yaml", "--data", "data", "--out", "out", "--seeds", "1")
    assert call(*words) == 1
    told = capsys.readouterr()
    lines = [line for line in told.err.splitlines() if line.startswith("eosin:")]
    assert len(lines) == 1
    assert "bad-seed0-" in lines[0] and "lower fit.segmenter.lr" in lines[0] and cells.LOG in lines[0]
    assert len(started) == 1
    found = read()
    assert [arm["name"] for arm in found["arms"]] == ["bound"]
    assert len(found["failures"]) == 1
    assert any("bad, which was to be the baseline, could not be made" in said for said in found["footnotes"])
    assert call(*words[:2], "bad.yaml", *words[3:], "--json") == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "no run could be made; the first: bad-seed0-" in told.err


def test_folds_are_run_and_pooled(compared: dict[str, Any], started: list[list[str]]) -> None:
    assert call("data", "split", "data", "--folds", "2", "--stratify", "--out", "folds") == 0
    words = (
        "compare",
        "--methods",
        "bound.yaml",
        "--out",
        "folded",
        "--group",
        "tumour",
        "--set=fit.augment={crop: 48}",
    )
    assert call(*words, "--data", "folds") == 0
    assert len(started) == 2  # one seed, for there are folds
    found = read("folded")
    arm = found["arms"][0]
    assert found["folds"] == 2
    assert found["digest"] == Dataset.open("data").digest
    assert arm["labels"] == ["seed 0, fold 1", "seed 0, fold 2"]
    matrix = [entry_of(run)["confusion"] for run in arm["runs"]]
    pooled = [[a + b for a, b in zip(one, two, strict=True)] for one, two in zip(*matrix, strict=True)]
    tumour = pooled[0][0] / (sum(pooled[0]) + sum(row[0] for row in pooled) - pooled[0][0])
    assert arm["groups"]["tumour, pooled"]["mean"] == pytest.approx(tumour)
    assert all(Path(run).name.startswith(f"bound-seed0-fold{k}-") for k, run in enumerate(arm["runs"], start=1))
    assert call(*words, "--data", "folds/fold-1") == 2
    shutil.copytree("folds/fold-2", "half/fold-2")
    assert call(*words, "--data", "half") == 2
    assert len(started) == 2


def test_an_ablation_runs_its_rows(
    compared: dict[str, Any], started: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    claim = {"source": "Nobody 2024, Table 3", "protocol": "strict", "miou": 61.5}
    rows = [{"name": "base"}, {"name": "hot", "set": {"fit.segmenter.lr": 0.01}, "claim": claim}]
    Path("tables").mkdir(exist_ok=True)
    shutil.copy("bound.yaml", "tables/recipe.yaml")
    Path("tables/rows.yaml").write_text(yaml.safe_dump({"base": "recipe.yaml", "rows": rows}))
    words = ("compare", "--ablation", "tables/rows.yaml", "--data", "data", "--out", "ablated", "--seeds", "1")
    assert call(*words) == 0
    assert len(started) == 2
    first, second = read("ablated")["arms"]
    assert (first["name"], second["name"]) == ("base", "hot")
    assert first["claim"] is None
    assert second["claim"]["miou"] == 61.5
    resolved = [yaml.safe_load(Path(arm["runs"][0], "recipe.yaml").read_text()) for arm in (first, second)]
    assert [recipe["fit"]["segmenter"]["lr"] for recipe in resolved] == [0.001, 0.01]
    rows[1]["claim"] = {**claim, "miou": 62.5}  # a mended claim is no new run
    Path("tables/rows.yaml").write_text(yaml.safe_dump({"base": "recipe.yaml", "rows": rows}))
    assert call(*words) == 0
    assert len(started) == 2
    assert read("ablated")["arms"][1]["claim"]["miou"] == 62.5


def test_rows_of_an_ablation_change_another_recipe(there: None) -> None:
    Path("tables").mkdir(exist_ok=True)
    rows = [{"name": "base"}, {"name": "hot", "set": {"fit.segmenter.lr": 0.01}}]
    Path("tables/other.yaml").write_text(yaml.safe_dump({"base": "cam-phantom", "rows": rows}))
    plans = asked_for([], "tables/other.yaml", Path("data"), ["fit.batch=2"], "bound.yaml").plans
    made = [resolve(plan.recipe, plan.overrides)[0] for plan in plans]
    assert [recipe.method for recipe in made] == ["supervised"] * 2
    assert [recipe.fit["segmenter"]["lr"] for recipe in made] == [0.001, 0.01]
    assert {recipe.fit["segmenter"]["batch"] for recipe in made} == {2}


def test_a_budget_gives_the_same_settings_again(started: list[list[str]]) -> None:
    words = ("compare", "--methods", "bound.yaml", "--data", "data", "--out", "budgeted", "--seeds", "1")
    assert call(*words, "--budget", "minutes=0.005") == 0
    assert len(started) == 2  # one to measure, one to train
    kept = Path("budgeted", "budget.json").read_text()
    found = read("budgeted")
    assert found["budget"] == 0.005
    fit = yaml.safe_load(Path(found["arms"][0]["runs"][0], "recipe.yaml").read_text())["fit"]["segmenter"]
    rate = next(iter(json.loads(kept).values()))["images_per_s"]["segmenter"]
    assert fit["epochs"] * fit["items"] / rate == pytest.approx(0.3, abs=0.5 * fit["epochs"] / rate + 1e-9)
    assert call(*words, "--budget", "minutes=0.005") == 0
    assert len(started) == 2
    assert Path("budgeted", "budget.json").read_text() == kept


def known_rates(out: Path, plan: Plan, dataset: Dataset, rates: dict[str, float]) -> None:
    recipe, _ = resolve(plan.recipe, plan.overrides)
    key = digest([recipe.digest, dataset.digest])[:16]
    path = out / "budget.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    write_json(path, {**before, key: {"arm": plan.name, "images_per_s": rates}})


@pytest.mark.parametrize("minutes", [0.02, 0.05, 0.0567, 0.08, 0.5, 3])
def test_all_arms_of_a_budget_train_for_the_same_time(tmp_path: Path, minutes: float) -> None:
    dataset = Dataset.open("data")
    longer = ("fit.classifier.epochs=6", "fit.segmenter.epochs=3", "fit.classifier.items=16")
    plans = {
        Plan("weak", "weak.v1.yaml", longer): {"classifier": 50.0, "segmenter": 20.0},
        Plan("bound", "bound.yaml", ("fit.segmenter.epochs=4",)): {"segmenter": 17.0},
    }
    for plan, rates in plans.items():
        known_rates(tmp_path, plan, dataset, rates)
        made = budgeted(plan, dataset, minutes, tmp_path, SILENT)
        recipe, _ = resolve(made.recipe, made.overrides)
        fits = {step: recipe.fit[step] for step in rates}
        seconds = sum(fit["epochs"] * fit["items"] / rates[step] for step, fit in fits.items())
        rounding = sum(0.5 * fit["epochs"] / rates[step] for step, fit in fits.items())
        assert seconds == pytest.approx(60 * minutes, abs=rounding + 1e-9)
        assert all(8 <= fit["items"] <= 24 for fit in fits.values())
        whole = resolve(plan.recipe, plan.overrides)[0].fit  # epochs are given up only where one has no batch
        assert all(fits[s]["epochs"] >= whole[s]["epochs"] or fits[s]["items"] <= 2 * fits[s]["batch"] for s in fits)
    assert budgeted(plan, dataset, minutes, tmp_path, SILENT) == made


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "0.0001"])
def test_a_budget_that_is_no_time_is_refused(tmp_path: Path, minutes: str) -> None:
    dataset, plan = Dataset.open("data"), Plan("bound", "bound.yaml")
    known_rates(tmp_path, plan, dataset, {"segmenter": 20.0})
    with pytest.raises(WrongUse, match="0.0067 or more" if minutes == "0.0001" else "a number above 0"):
        budgeted(plan, dataset, float(minutes), tmp_path, SILENT)


ABLATED = {"base": "bound.yaml", "rows": [{"name": "a"}, {"name": "b", "set": {"protocol": "binary"}}]}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), "either runs, or --methods, or --ablation"),
        (("nowhere",), "nowhere: not a run"),
        (("a", "--methods", "cam"), "either runs, or --methods"),
        (("a", "--seeds", "2"), "takes no --data, --seeds"),
        (("--methods", "bound.yaml,bound.yaml", "--data", "data"), "two are called bound"),
        (("--methods", "bound.yaml,camm", "--data", "data"), "did you mean 'cam'"),
        (("--methods", "bound.yaml", "--data", "tables-of-none"), "neither a data set nor folds"),
        (("--methods", "bound.yaml", "--data", "data", "--split", "train"), "no masks there to compare by"),
        (("--methods", "bound.yaml", "--data", "data", "--split", "tset"), "did you mean 'test'"),
        (("--methods", "bound.yaml", "--data", "data", "--group", "tumor"), "did you mean 'tumour'"),
        (("--methods", "bound.yaml", "--data", "data", "--set", "seed=3"), "the seeds are 0 to N-1"),
        (("--methods", "bound.yaml", "--data", "data", "--set", "fit.lrr=3"), "did you mean 'lr'"),
        (("--methods", "bound.yaml", "--data", "data", "--budget", "hours=3"), "write minutes=N"),
        (("--methods", "bound.yaml", "--data", "data", "--budget", "minutes=nan"), "a number above 0"),
        (("--methods", "bound.yaml"), "needs --data"),
        (("--methods", "bound.yaml", "--base", "cam-glas"), "add --ablation FILE"),
        (("--ablation", "mixed.yaml", "--base", "cam-glass", "--data", "data"), "did you mean 'cam-glas'"),
        (("--adapt", "data", "data", "--base", "cam-glas"), "takes no --base"),
        (("--ablation", "nothing.yaml"), "no such ablation file"),
        (("--ablation", "cam-fantom"), "did you mean 'cam-phantom'"),
        (("--ablation", "mixed.yaml", "--data", "data"), "different protocols (a: strict, b: binary)"),
        (("--methods", "bound.yaml", "--data", "bare"), "no masks there to compare by"),
    ],
)
def test_wrong_use_is_one_line_before_anything_is_run(
    words: tuple[str, ...], line: str, started: list[list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    Path("mixed.yaml").write_text(yaml.safe_dump(ABLATED))
    if not Path("bare").exists():
        shutil.copytree("data", "bare")
        table = Path("bare", "items.csv").read_text().splitlines()
        Path("bare", "items.csv").write_text("\n".join(",".join(blank(row.split(","))) for row in table) + "\n")
    assert call("compare", *words, "--out", "wrong") == 2
    told = capfd.readouterr()
    lines = [text for text in told.err.splitlines() if text.startswith("eosin:")]
    assert len(lines) == 1 and line in lines[0], told.err
    assert started == []


def blank(row: list[str]) -> list[str]:
    """A row of items.csv without the mask of a test item."""
    return [*row[:3], "", *row[4:]] if row[1] == "test" else row


def planned(name: str, seed: int = 0, overrides: tuple[str, ...] = ()) -> Cell:
    return cell(Plan(name, "bound.yaml", overrides), Dataset.open("data"), seed, Path("planned"))


def test_a_run_folder_is_named_by_arm_seed_and_digest() -> None:
    first = planned("Pool GAP / α=0.5")
    assert first.folder.name.rpartition("-")[0] == "pool-gap-0.5-seed0"
    assert planned("Pool GAP / α=0.5").folder == first.folder
    assert planned("日本").folder.name.startswith("arm-seed0-")
    assert len(planned("x" * 300).folder.name) < 100
    others = [planned("a", seed=1), planned("a", overrides=("fit.lr=0.1",)), planned("a")]
    assert len({one.folder.name[-8:] for one in others}) == 3
    claimed = planned("a", overrides=("claim={source: x, protocol: strict}",))
    assert claimed.folder == planned("a").folder
    assert claimed.claim == {"source": "x", "protocol": "strict", "uses_truth": False, "iou": {}}


class Told:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.notes: list[tuple[int, str]] = []

    def start(self, what: str, total: int) -> Any:
        return lambda done, note: self.notes.append((done, note))

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_what_a_run_is_at_is_told_as_soon_as_it_begins(tmp_path: Path) -> None:
    told = Told()
    one = Cell("a", "a", (), tmp_path, tmp_path, 3, None)
    seen = cells._Seen(one, told.start("a", 3))
    seen.look()
    assert told.notes == []
    (tmp_path / "steps" / ".classifier.making").mkdir(parents=True)
    seen.look()
    seen.look()
    assert told.notes == [(0, "classifier")]
    line = json.dumps({"step": "classifier", "epoch": 0, "epochs": 2, "images_per_s": 41.6})
    (tmp_path / "journal.jsonl").write_text(line + "\n" + line[:20])  # the second is being written
    seen.look()
    assert told.notes[1:] == [(1, "classifier, epoch 1/2, 42 img/s")]
    (tmp_path / "steps" / ".classifier.making").rename(tmp_path / "steps" / "classifier")
    (tmp_path / "predictions" / "classifier" / ".test.making").mkdir(parents=True)
    seen.end("failed")
    assert told.notes[2:] == [(0, "classifier on test"), (2, "failed")]


@pytest.mark.parametrize(
    ("code", "said", "reason"),
    [
        (1, "warning: slow\neosin: data/x.png: broken\n", "data/x.png: broken"),
        (1, "", "ended with 1"),
        (-9, "warning: slow\n", "was ended by SIGKILL"),
    ],
)
def test_why_a_run_ended_is_told_in_a_line(tmp_path: Path, code: int, said: str, reason: str) -> None:
    (tmp_path / "log").write_text(said)
    assert cells._reason(code, tmp_path / "log") == reason


AUDIT = """
import os, sys
told = os.open(os.environ["OPENED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def hook(event, args):
    if event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
        os.write(told, os.fsencode(args[0]) + b"\\n")
sys.addaudithook(hook)
"""


def test_a_killed_comparison_goes_on_and_opened_no_training_mask(
    tmp_path: Path, started: list[list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    """In real processes, of which every one tells what files it opens.

    Only the parent is killed: the run that it had begun goes on by itself, and is waited for, not begun twice.
    """
    (tmp_path / "sitecustomize.py").write_text(AUDIT)
    opened = tmp_path / "opened"
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    words = ["compare", "--methods", "weak.v1.yaml", "--data", "data", "--out", "killed", "--seeds", "1"]
    first = subprocess.Popen(
        [sys.executable, "-m", "eosin", *words],
        env={**os.environ, "PYTHONPATH": paths, "OPENED": str(opened)},
        stdout=subprocess.DEVNULL,
    )
    until = time.monotonic() + 120
    while not list(Path("killed").glob("runs/*/recipe.yaml")):
        assert time.monotonic() < until and first.poll() is None
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert not list(Path("killed").glob("runs/*/provenance.json"))
    assert call(*words) == 0
    assert started == []
    assert "another process is making it; waiting" in capfd.readouterr().err
    assert len(read("killed")["arms"][0]["runs"]) == 1

    seen = {Path(os.fsdecode(line)) for line in opened.read_bytes().splitlines()}
    dataset = Dataset.open("data")
    for split, wanted in (("train", False), ("val", True), ("test", True)):
        truth = dataset.truth(split)
        assert truth is not None
        assert {truth.path(i) in seen for i in range(len(truth))} == {wanted}, split


def test_steps_that_rows_have_in_common_are_made_once(capfd: pytest.CaptureFixture[str]) -> None:
    wider = {"name": "wider", "set": {"options.seg_width": 6}}
    Path("widths.yaml").write_text(yaml.safe_dump({"base": "weak.v1.yaml", "rows": [{"name": "base"}, wider]}))
    words = ("compare", "--ablation", "widths.yaml", "--data", "data", "--out", "widths", "--seeds", "1")
    assert call(*words) == 0
    base, wide = (Path("widths/runs", Path(arm["runs"][0]).name) for arm in read("widths")["arms"])
    taken = {
        path.parent.name: json.loads(path.read_text())["notes"].get("taken") for path in wide.glob("steps/*/step.json")
    }
    assert taken == {"classifier": str(base), "pseudo": str(base), "segmenter": None}
    provenance = json.loads((wide / "provenance.json").read_text())
    assert provenance["steps"]["classifier"]["taken"] == str(base)


def test_a_second_process_makes_what_the_first_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    one = cell(Plan("weak", "weak.v1.yaml"), Dataset.open("data"), 0, Path("shared/runs"))
    planned = [replace(one, folder=one.folder.with_name(str(number))) for number in range(4)]
    monkeypatch.setattr(cells, "_run", lambda one, progress: made.append(int(one.folder.name)))
    with alone(planned[0].folder / cells.LOG, pytest.fail), alone(planned[2].folder / cells.LOG, pytest.fail):
        cells.run_cells(planned, SILENT)
    assert made == [1, 3, 0, 2]
    made.clear()
    cells.run_cells(planned, SILENT)
    assert made == [0, 1, 2, 3], "the holds ended"


def test_ctrl_c_ends_the_run_too(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    ended = []

    class Stopped(Here):
        def __init__(self, command: list[str], stdout: int, stderr: Any, start_new_session: bool) -> None:
            self.returncode = 130

        def wait(self, timeout: float | None = None) -> int:
            if timeout is not None:
                raise KeyboardInterrupt
            return 0

        def poll(self) -> int | None:
            return None

        def terminate(self) -> None:
            ended.append(True)

    monkeypatch.setattr(cells.subprocess, "Popen", Stopped)
    words = ("compare", "--methods", "bound.yaml", "--data", "data", "--out", "stopped", "--seeds", "1")
    for more in ((), ("--json",)):
        assert call(*words, *more) == 130
        assert "interrupted; what is done is kept" in capfd.readouterr().err
    assert ended == [True, True]


def test_tables_of_the_terminal_say_what_is_not_known() -> None:
    spread = SimpleNamespace(mean=0.5, sd=None)
    versus = SimpleNamespace(difference=float("nan"), p_holm=float("nan"))
    plain: dict[str, Any] = {"name": "a", "runs": (1,), "iou": {}, "groups": {}}
    arms = [
        SimpleNamespace(**plain, miou=spread, pooled=None, pooled_iou={}, ci95=(None, None), versus=v)
        for v in (None, versus)
    ]
    made = comparison_table(SimpleNamespace(arms=arms, folds=0, classes=(), baseline="a", uses_truth=False))
    cells_ = [list(column.cells) for column in made.columns]
    assert cells_[2:] == [["50.0", "50.0"], ["", ""], ["baseline", "–"], ["", "–"]]


def test_scores_against_masks_are_shown_as_such_though_tags_were_scored_too(compared: dict[str, Any]) -> None:
    entries = json.loads(Path(compared["arms"][0]["runs"][0], "scores.json").read_text())
    assert all({"tags", "confusion"} <= set(entry) for entry in entries)
    shown = list(score_table(entries).columns[5].cells)
    assert shown == ["–" if e["miou"] is None else f"{100 * e['miou']:.1f}" for e in entries]


def test_the_shipped_recipe_of_a_method_for_the_data_is_taken() -> None:
    plans = asked_for(["cam", "supervised"], "", None, []).plans
    assert [(plan.name, plan.recipe) for plan in plans] == [
        ("cam", "cam-phantom"),
        ("supervised", "supervised-phantom"),
    ]
    assert load(plans[0].recipe).method == "cam"


def test_a_file_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    class Waited(Exception):
        pass

    def waiting() -> None:
        raise Waited

    path = tmp_path / "a place" / ".lock"
    with alone(path, waiting), pytest.raises(Waited), alone(path, waiting):
        pass
    with alone(path, waiting):
        pass


def test_finished_runs_of_one_recipe_are_named_by_how_they_differ(tmp_path: Path) -> None:
    def made(name: str, recipe: str, seed: int = 0, **settings: Any) -> Path:
        return write_run(tmp_path / name, drawn(seed), seed=seed, recipe=recipe, settings=settings)

    long = {f"key{k}": "x" * 9 for k in range(8)}
    runs = [
        made("a", "cam", fit={"lr": 0.1, "ema": 0.5}, claim={"source": "x", "protocol": "strict"}),
        made("b", "cam", seed=1, fit={"lr": 0.1, "ema": 0.5}),
        made("c", "cam", fit={"lr": 0.2, "ema": 0.5}),
        made("d", "cam", fit={"lr": 0.1, "ema": 0.5}, options={"pool": "gap"}),
        made("e", "copy", fit={"lr": 0.1, "ema": 0.5}),
        made("f", "long", fit=long),
        made("g", "long", fit={}),
    ]
    names = [run.arm for run in _named([read_run(run, "test") for run in runs])]
    plain, long_ones = "cam (lr 0.1, pool default)", names[5:]
    assert names[:5] == [plain, plain, "cam (lr 0.2, pool default)", "cam (lr 0.1, pool gap)", "copy"]
    assert len(set(long_ones)) == 2 and all(len(name) < 15 for name in long_ones)
