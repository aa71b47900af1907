"""``eosin compare --adapt`` as a user runs it, on two tiny sets of drawn tissue of different laboratories.

What is run, found again, tested and written is seen on runs that are written by hand; one test makes real ones.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import yaml

from command_line import call
from eosin.core.artifact import read_json, write_json
from eosin.core.errors import WrongUse
from eosin.data.dataset import Dataset
from eosin.data.phantom import PhantomSpec, draw_dataset
from eosin.verbs import adapt, cells
from eosin.verbs.adapt import FRACTIONS, METHODS, _shares, _slower
from eosin.verbs.cells import Plan, cell
from eosin.verbs.train import resolve
from report.compare.hand_made import drawn, write_run
from same_process import Here

PHANTOM = PhantomSpec(patches=12, val=4, test=6, large=0, size=48, patients=6, stain=0)
BOUND: dict[str, Any] = {
    "method": "supervised",
    "options": {"seg_depth": 3, "seg_width": 4, "seg_scale": 0.5},
    "fit": {"batch": 8, "precision": "fp32", "segmenter": {"epochs": 1}},
}
PAIR = ("--adapt", "plain", "stained")
WORDS = ("compare", "--methods", "bound.yaml,other.yaml", *PAIR, "--fractions", "0.5,0.25", "--seeds", "2")


class ByHand:
    """A process that writes a run by hand; it fails for the recipe ``bad``."""

    started: ClassVar[list[list[str]]] = []

    def __init__(self, command: list[str], stdout: int, stderr: Any, start_new_session: bool) -> None:
        self.started.append(command)
        recipe, options = Path(command[4]).stem, dict(zip(command[5::2], command[6::2], strict=False))
        self.returncode = int(recipe == "bad")
        if self.returncode:
            stderr.write("eosin: the loss is not a number\n")
            stderr.flush()
            return
        data, share = Dataset.open(options["--data"]), float(options.get("--fraction", 1))
        seed, out = int(options["--set"].partition("=")[2]), Path(options["--out"])
        begun = options.get("--start")
        skill = 4 + 4 * (recipe == "other") + round(8 * share) + 4 * (begun is not None)
        hand_made(out / "made", data, seed, skill, recipe)
        said = read_json(out / "made" / "provenance.json")
        dataset = {**said["dataset"], "name": data.name, "folder": str(data.folder), "fraction": share}
        write_json(out / "made" / "provenance.json", {**said, "dataset": dataset, "start": begun})
        for path in list((out / "made").iterdir()):
            path.rename(out / path.name)
        deployed(out, data, f"{recipe} {seed} {share} {begun}")

    def wait(self, timeout: float) -> int:
        return self.returncode

    def poll(self) -> int:
        return self.returncode


def deployed(run: Path, data: Dataset, card: str) -> None:
    """The card of the model that a run by hand deploys."""
    (run / "model").mkdir(parents=True, exist_ok=True)
    told = {"made": card, "classes": data.classes.model_dump(mode="json"), "mpp": None}
    write_json(run / "model" / "card.json", told)


def hand_made(folder: Path, data: Dataset, seed: int, skill: int, recipe: str) -> Path:
    """A run by hand whose predictions are the better the more skill, never quite the same for two seeds."""
    items, names = data.items("test"), data.classes.names[:3]
    counts = drawn(seed, images=len(items), classes=len(names), skill=skill)
    more = {"ids": items.ids.tolist(), "patients": items.patients.tolist(), "names": names, "data": data.digest}
    return write_run(folder, counts, seed=seed, recipe=recipe, **more)


def by_hand_score(source: Path, data: Path, split: str, protocol: str, folder: Path) -> dict[str, Any]:
    """A score by hand of a run's model on data that it never saw."""
    said = read_json(source / "provenance.json")
    made = hand_made(folder / "made", Dataset.open(data), said["seed"], 2 + 2 * (said["recipe"] == "other"), "none")
    shutil.move(made / "predictions" / "segmenter" / split / "counts.npz", folder / "counts.npz")
    entry = read_json(made / "scores.json")[0]
    shutil.rmtree(made)
    return {**entry, "step": "model"}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """The commands of the processes that are started; they write runs by hand."""
    named = SimpleNamespace(Popen=ByHand, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(cells, "subprocess", named)
    monkeypatch.setattr(adapt, "keep_score", by_hand_score)
    ByHand.started.clear()
    yield ByHand.started
    ByHand.started.clear()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a place")
    draw_dataset(folder / "plain", PHANTOM)
    draw_dataset(folder / "stained", PHANTOM.model_copy(update={"stain": 3, "seed": 1}))
    shutil.copytree(folder / "plain", folder / "debris")
    for name in ("dataset.yaml", "items.csv"):
        file = folder / "debris" / name
        file.write_text(file.read_text().replace("necrosis", "debris"))
    for k in (1, 2):
        shutil.copytree(folder / "plain", folder / "folds" / f"fold-{k}")
        head = folder / "folds" / f"fold-{k}" / "dataset.yaml"
        head.write_text(f"{head.read_text()}fold: {{number: {k}, of: 2, source: {'d' * 64}}}\n")
    for name in ("bound", "other", "bad"):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(BOUND))
    return folder


@pytest.fixture(autouse=True)
def there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)


def read(out: str = "out") -> dict[str, Any]:
    return json.loads(Path(out, "adapt.json").read_text())  # type: ignore[no-any-return]


def files(out: str = "out") -> dict[str, int]:
    """Every run and every score of a source's model, and when it was made."""
    folders = (Path(out, "runs"), Path(out, "untouched"))
    return {str(path): path.stat().st_mtime_ns for folder in folders for path in folder.iterdir() if path.is_dir()}


@pytest.fixture
def study(started: list[list[str]]) -> dict[str, Any]:
    """Two methods, two seeds, two fractions, both ways; made by the first test, found again by the others."""
    assert call(*WORDS, "--out", "out") == 0
    # 2 data sets x 2 methods x 2 seeds, and of each 2 fractions of the other data set
    assert len(started) in (0, 8 + 16)
    started.clear()
    return read()


def stages(study: dict[str, Any], way: int) -> dict[tuple[float, bool], dict[str, Any]]:
    return {(stage["share"], stage["scratch"]): made for stage, made in study["directions"][way]["stages"]}


def miou_of(run: str) -> float:
    return float(read_json(Path(run, "scores.json"))[0]["miou"])


def test_both_ways_hold_every_stage_method_and_seed(study: dict[str, Any]) -> None:
    assert study["methods"] == ["bound", "other"]
    assert [(way["source"], way["target"]) for way in study["directions"]] == [
        ("plain", "stained"),
        ("stained", "plain"),
    ]
    for way in range(2):
        made = stages(study, way)
        assert list(made) == [(0.0, False), (0.25, False), (0.5, False), (1.0, True)]
        for (share, _), one in made.items():
            assert [arm["name"] for arm in one["arms"]] == ["bound", "other"]
            assert one["published"] == []
            for arm in one["arms"]:
                assert arm["labels"] == ["seed 0", "seed 1"]
                if share:
                    assert arm["miou"]["values"] == [miou_of(run) for run in arm["runs"]]


def test_a_share_begins_with_the_run_of_its_seed_and_method_on_the_other_data(study: dict[str, Any]) -> None:
    for way, (source, target) in enumerate((("plain", "stained"), ("stained", "plain"))):
        whole = {arm["name"]: arm["runs"] for arm in stages(study, 1 - way)[1.0, True]["arms"]}
        for share in (0.25, 0.5):
            for arm in stages(study, way)[share, False]["arms"]:
                for seed, run in enumerate(arm["runs"]):
                    said = read_json(Path(run, "provenance.json"))
                    assert Path(said["dataset"]["folder"]).name == target
                    assert (said["dataset"]["fraction"], said["seed"]) == (share, seed)
                    assert said["start"] == whole[arm["name"]][seed]
                    assert Path(read_json(Path(said["start"], "provenance.json"))["dataset"]["folder"]).name == source


@pytest.mark.timeout(600)
def test_runs_are_real_and_a_killed_study_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One method, one seed, one fraction, by ``eosin run``: what a share began with, and the score before it."""
    named = SimpleNamespace(Popen=Here, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(cells, "subprocess", named)
    Here.started.clear()
    words = ("compare", "--methods", "bound.yaml", *PAIR, "--fractions", "0.25", "--seeds", "1", "--out", "real")
    assert call(*words) == 0
    assert len(Here.started) == 4
    before, made = files("real"), stages(read("real"), 0)
    (run,) = made[0.25, False]["arms"][0]["runs"]
    said = read_json(Path(run, "provenance.json"))
    record = read_json(Path(run, "steps", "segmenter", "step.json"))
    source = read_json(Path(said["start"], "steps", "segmenter", "step.json"))
    assert record["form"]["inputs"]["start"] == source["content"]
    assert said["dataset"]["training_items"] == 3
    untouched = made[0.0, False]["arms"][0]
    capsys.readouterr()
    assert call("score", said["start"], "--data", "stained", "--json") == 0
    assert read_json(Path(untouched["runs"][0], "score.json")) == json.loads(capsys.readouterr().out)
    shutil.rmtree(run)
    shutil.rmtree(untouched["runs"][0])
    Here.started.clear()
    assert call(*words) == 0
    assert len(Here.started) == 1
    gone = {str(Path(run)), untouched["runs"][0]}
    assert {name: at for name, at in files("real").items() if name not in gone} == {
        name: at for name, at in before.items() if name not in gone
    }
    assert stages(read("real"), 0)[0.0, False]["arms"][0]["miou"] == untouched["miou"]


def test_a_second_call_starts_nothing_and_changes_no_run(
    study: dict[str, Any], started: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    before = files()
    capsys.readouterr()
    assert call(*WORDS, "--out", "out", "--json") == 0
    told = capsys.readouterr()
    assert started == [] and files() == before and told.err == ""
    again = json.loads(told.out)
    assert again["command"] == f"{study['command']} --json"
    for way in range(2):
        for stage, one in stages(again, way).items():
            assert one["arms"] == stages(study, way)[stage]["arms"]


def test_scratch_adds_runs_that_begin_with_nothing(study: dict[str, Any], started: list[list[str]]) -> None:
    assert (
        call(*WORDS[:2], "bound.yaml", *PAIR, "--fractions", "0.25", "--seeds", "1", "--scratch", "--out", "out") == 0
    )
    assert len(started) == 2
    assert all("--start" not in command and "0.25" in command for command in started)
    assert list(stages(read(), 0)) == [(0.0, False), (0.25, False), (0.25, True), (1.0, True)]
    assert ' scratch"' in Path("out", "adapt.svg").read_text()


def test_a_source_that_fails_leaves_the_others(started: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    words = ("compare", "--methods", "bad.yaml,bound.yaml", *PAIR, "--fractions", "0.25", "--seeds", "1")
    assert call(*words, "--out", "lacking") == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("eosin:")]
    assert len(lines) == 2 and all("bad-seed0-" in line and cells.LOG in line for line in lines)
    assert len(started) == 2 + 4  # nothing is begun with a run that failed
    found = read("lacking")
    assert len(found["failures"]) == 2
    for way in range(2):
        for one in stages(found, way).values():
            assert [arm["name"] for arm in one["arms"]] == ["bound"]
            assert one["arms"][0]["versus"] is None
    assert call(*words[:2], "bad.yaml", *words[3:], "--out", "lacking") == 1
    assert "could be made; the first: bad-seed0-" in capsys.readouterr().err


def test_tests_are_corrected_over_a_whole_direction(study: dict[str, Any]) -> None:
    for direction in study["directions"]:
        methods = [arm["versus"] for _, one in direction["stages"] for arm in one["arms"] if arm["versus"]]
        gains = [arm["versus"] for _, one in direction["gains"] for arm in one["arms"] if arm["versus"]]
        assert (len(methods), len(gains)) == (4, 6)
        for family in (methods, gains):
            raw = sorted(test["p"] for test in family)
            stepped, worst = [], 0.0
            for rank, p in enumerate(raw):
                worst = max(worst, min(1.0, p * (len(raw) - rank)))
                stepped.append(worst)
            assert sorted(test["p_holm"] for test in family) == pytest.approx(stepped)
        for name, one in direction["gains"]:
            assert one["baseline"] == "0 %"
            first, *others = one["arms"]
            for arm in others:
                assert arm["versus"]["difference"] == pytest.approx(arm["miou"]["mean"] - first["miou"]["mean"]), name


def test_every_file_that_is_promised_is_written(study: dict[str, Any]) -> None:
    with Path("out", "adapt.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 4 * 2
    assert {row["begun_with"] for row in rows if row["share"] == "1.0"} == {"nothing"}
    with Path("out", "adapt_runs.csv").open(newline="") as file:
        runs = [row for row in csv.DictReader(file) if row["measure"] == "miou"]
    assert len(runs) == 2 * 4 * 2 * 2
    page, text = Path("out", "adapt.html").read_text(), Path("out", "adapt.md").read_text()
    for said in (
        "plain → stained",
        "stained → plain",
        "25 %: other",
        "100 % from scratch: bound",
        "0 %: other",
    ):
        assert said in page and said in text, said
    assert text.count("## plain → stained: against the source's model as it is") == 1
    assert "eosin compare --methods bound.yaml,other.yaml --adapt plain stained" in text
    assert "](adapt.svg)" in text
    assert re.findall(r'(?:src|href)="(?!data:|#)', page) == []


def test_the_box_plot_shows_every_run_where_its_score_is(study: dict[str, Any]) -> None:
    drawn = Path("out", "adapt.svg").read_text()
    assert "var(" not in drawn and drawn.startswith("<svg")
    groups = re.findall(r'<g class="m(\d)( scratch)?"><title>(.*?)</title>(.*?)</g>', drawn)
    assert len(groups) == 2 * 4 * 2
    heights = {}
    for _, _, title, shapes in groups:
        values = [float(value) for value in title.partition(": ")[2].split(", ")]
        dots = [float(y) for y in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', shapes)]
        assert len(values) == len(dots) == 2
        heights |= dict(zip(values, dots, strict=True))
        low, high = re.search(r'<rect .*? y="([\d.]+)" .*? height="([\d.]+)"', shapes).groups()  # type: ignore[union-attr]
        middle = sum(dots) / 2
        assert float(low) + float(high) / 2 == pytest.approx(middle, abs=0.02)
    by_score = [heights[score] for score in sorted(heights)]
    assert by_score == sorted(by_score, reverse=True)  # one axis for both panels, and more is higher


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--adapt", "plain", "plain"), "the same data twice"),
        (("--adapt", "plain", "nowhere"), "nowhere: neither a data set nor folds"),
        (("--adapt", "plain", "debris"), "they must be the same in the same order"),
        (("--adapt", "plain", "folds"), "holds folds"),
        (("--adapt", "plain", "stained", "--data", "plain"), "--adapt takes no --data"),
        (("--adapt", "plain", "stained", "--budget", "minutes=1", "--group", "stroma"), "no --budget, --group"),
        (("--adapt", "plain", "stained", "--fractions", "0.2,0.2"), "each once, as 0.2"),
        (("--adapt", "plain", "stained", "--fractions", "20"), "--fractions 20: give shares above 0 and below 1"),
        (("--adapt", "plain", "stained", "--fractions", "1%"), "write shares from 0 to 1"),
        (("--adapt", "plain", "stained", "--rate", "10"), "--rate 10: give a share"),
        (("--adapt", "plain", "stained", "--rate", "0"), "--rate 0: give a share"),
        (("--adapt", "plain", "stained", "--split", "tset"), "did you mean 'test'"),
        (("--adapt", "plain", "stained", "--set", "seed=3"), "the seeds are 0 to N-1"),
        (("--data", "plain", "--scratch"), "without --adapt there is no --scratch"),
        (("--data", "plain", "--rate", "0"), "without --adapt there is no --rate"),
        (("--data", "plain", "--fractions", "0.1"), "without --adapt there is no --fractions"),
    ],
)
def test_wrong_use_is_one_line_before_anything_is_run(
    words: tuple[str, ...], line: str, started: list[list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("compare", "--methods", "bound.yaml", *words, "--out", "wrong") == 2
    lines = [text for text in capfd.readouterr().err.splitlines() if text.startswith("eosin:")]
    assert len(lines) == 1 and line in lines[0], lines
    assert started == []


def test_a_run_folder_tells_shares_and_starts_apart_and_old_names_stay() -> None:
    plan, data = Plan("a", "bound.yaml"), Dataset.open("plain")
    whole, other = cell(plan, data, 0, Path("r")), cell(plan, data, 1, Path("r"))
    for source in (whole, other):
        deployed(source.folder, data, source.folder.name)
    made = [
        whole,
        cell(plan, data, 0, Path("r"), fraction=0.25),
        cell(plan, data, 0, Path("r"), start=whole, fraction=0.25),
        cell(plan, data, 0, Path("r"), start=other, fraction=0.25),
        cell(plan, data, 0, Path("r"), start=whole, fraction=0.125),
    ]
    assert len({one.folder.name[-8:] for one in made}) == 5
    assert made[2].folder.name.startswith("a-seed0-0.25-") and made[2].start == whole.folder
    assert re.fullmatch(r"a-seed0-[0-9a-f]{8}", whole.folder.name)
    deployed(whole.folder, data, "made anew")
    assert cell(plan, data, 0, Path("r"), start=whole, fraction=0.25).folder != made[2].folder


def test_the_second_training_has_a_tenth_of_the_rate_unless_told(started: list[list[str]]) -> None:
    words = ("compare", "--methods", "bound.yaml", *PAIR, "--fractions", "0.25", "--seeds", "1", "--out", "tenth")
    assert call(*words) == 0
    slow = ["fit.segmenter.lr=1.000000e-04" in command for command in started]
    assert slow == ["--start" in command for command in started] and sum(slow) == 2
    assert read("tenth")["rate"] == 0.1 and "learning rates times 0.1" in Path("tenth", "adapt.md").read_text()


def test_only_what_begins_with_a_source_is_slower(started: list[list[str]]) -> None:
    words = ("compare", "--methods", "bound.yaml", *PAIR, "--fractions", "0.25", "--seeds", "1", "--scratch")
    assert call(*words, "--set", "fit.lr=4.0e-3", "--rate", "0.5", "--out", "slower") == 0
    slow = ["fit.segmenter.lr=2.000000e-03" in command for command in started]
    assert slow == ["--start" in command for command in started] and sum(slow) == 2


def test_each_step_keeps_its_share_of_the_rate() -> None:
    plan = Plan("a", "gland-phantom", ("fit.lr=3.0e-4", "fit.segmenter.lr=2.0e-3"))
    slower = _slower(plan, 0.1)
    fits = [resolve(one.recipe, one.overrides)[0].fit for one in (plan, slower)]
    for step, before in fits[0].items():
        assert fits[1][step] == {**before, "lr": pytest.approx(0.1 * before["lr"], rel=1e-9)}, step
    bound, data = Plan("a", "bound.yaml"), Dataset.open("plain")
    assert cell(_slower(bound, 1), data, 0, Path("r")).folder == cell(bound, data, 0, Path("r")).folder


def test_the_defaults_are_the_papers() -> None:
    assert set(METHODS) == {"gland", "oeem"} and signature(adapt.adapt).parameters["seeds"].default == 5
    assert _shares(sorted(FRACTIONS)) == [0.2, 0.1, 0.05, 0.01]
    with pytest.raises(WrongUse, match="--fractions : give shares"):
        _shares([])
