"""Out-of-fold doubt: held-out items stay unseen, groups whole, finished folds as they are, the run untouched."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor
from torch.nn import functional

from engine.toys import Toy, recipe, write_toys
from eosin.core.errors import Stale, WrongUse
from eosin.core.fingerprint import file_digest
from eosin.core.lab import Lab
from eosin.core.progress import SILENT, Progress
from eosin.core.values import Batch, Clock
from eosin.data.dataset import Dataset
from eosin.engine.lab import EngineLab
from eosin.engine.suspects import FOLDS, FinishedSteps, deal_folds, rank
from eosin.engine.workplace import Workplace
from eosin.recipe import Recipe

TRAIN = 40
EPOCHS = 4
SETTINGS = recipe(epochs=EPOCHS, lr=0.1, select="last")
SEEN: list[set[str]] = []


class Witness(Toy):
    """A toy that notes whom it is trained on; a new entry for each learner that is made."""

    def __init__(self) -> None:
        super().__init__()
        SEEN.append(set())

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        SEEN[-1] |= set(batch.ids)
        return super().losses(batch, clock)


def rewrite(data: Path, change: Callable[[int, dict[str, str]], None]) -> None:
    """Change the training lines of ``items.csv``, each with its number."""
    with (data / "items.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    for number, line in enumerate(line for line in lines if line["split"] == "train"):
        change(number, line)
    with (data / "items.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = write_toys(tmp_path / "data", train=TRAIN)
    rewrite(folder, lambda number, line: line.update(patient=f"p{number // 5}"))
    return folder


def plan(lab: Lab) -> None:
    lab.fit("a", partial(Toy))


def ranked(
    run: Path, data: Path, plan: Callable[[Lab], None] = plan, made: Recipe = SETTINGS, progress: Progress = SILENT
) -> dict[str, Any]:
    """Run a plan, rank its items, and read what was written."""
    place = Workplace(run, Dataset.open(data), made, "tags", progress)
    lab = EngineLab(place)
    plan(lab)
    said: dict[str, Any] = json.loads(rank(place, lab).read_text())
    return said


def files_of(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        str(p.relative_to(folder)): (file_digest(p), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()
    }


def test_flipped_tags_come_on_top(tmp_path: Path, data: Path) -> None:
    flipped = {3: "red", 16: "blue", 31: "red"}

    def flip(number: int, line: dict[str, str]) -> None:
        if number in flipped:
            line[flipped[number]] = str(1 - int(line[flipped[number]]))

    rewrite(data, flip)
    said = ranked(tmp_path / "run", data)
    assert {key: said[key] for key in ("schema", "step", "folds", "grouped_by")} == {
        "schema": 1,
        "step": "a",
        "folds": 5,
        "grouped_by": "patient",
    }
    top = said["items"][: len(flipped)]
    assert {item["id"]: item["class"] for item in top} == {f"train_{i}": name for i, name in flipped.items()}
    assert len(said["items"]) == len({item["id"] for item in said["items"]}) == TRAIN
    assert [item["doubt"] for item in said["items"]] == sorted((i["doubt"] for i in said["items"]), reverse=True)
    items = Dataset.open(data).items("train")
    given = dict(zip(items.ids.tolist(), items.tags.tolist(), strict=True))
    for item in said["items"]:
        assert item["tag"] == given[item["id"]][["red", "blue"].index(item["class"])]
        assert 0 <= item["score"] <= 1
        assert 0 <= item["doubt"] <= 1
    with (tmp_path / "run" / "suspects" / "suspects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({(row["id"], row["class"]) for row in rows}) == 2 * TRAIN
    assert [row["id"] for row in rows[: len(flipped)]] == [item["id"] for item in top]


def test_a_fold_is_scored_by_a_model_that_never_saw_it_nor_its_patients(tmp_path: Path, data: Path) -> None:
    SEEN.clear()
    ranked(tmp_path / "run", data, lambda lab: lab.fit("a", partial(Witness)) and None)
    trained = SEEN[-FOLDS:]
    everyone = {f"train_{i}" for i in range(TRAIN)}
    held = []
    for number, seen in enumerate(trained, start=1):
        with np.load(tmp_path / "run" / "suspects" / f"fold-{number}" / "evidence.npz") as kept:
            held.append(set(kept["ids"].tolist()))
        assert seen == everyone - held[-1]
        patients = [{int(name.removeprefix("train_")) // 5 for name in some} for some in (seen, held[-1])]
        assert not patients[0] & patients[1]
    assert sorted(name for some in held for name in some) == sorted(everyone)


def test_folds_are_even_and_groups_whole(data: Path) -> None:
    items = Dataset.open(data).items("train")
    folds = deal_folds(items, 0)
    assert folds.unit == "patient"
    assert all(len(set(folds.of[items.patients == patient])) == 1 for patient in set(items.patients))
    sizes = np.bincount(folds.of)
    assert len(sizes) == FOLDS
    assert sizes.max() - sizes.min() <= 5
    assert (deal_folds(items, 0).of == folds.of).all()
    assert (deal_folds(items, 1).of != folds.of).any()


@pytest.mark.parametrize(
    ("cells", "unit"),
    [
        (lambda n: {"patient": f"p{n % 4}", "slide": f"s{n % 4}-{n % 8}"}, "slide"),  # four patients cannot fill five
        (lambda n: {"patient": "", "slide": "", "parent": f"image-{n // 6}"}, "parent"),
        (lambda n: {"patient": ""}, "item"),
        (lambda n: {"patient": f"p{n // 6}" if n < 24 else "", "slide": f"s{n // 3}"}, "patient"),
    ],
    ids=["few patients", "images alone", "nothing known", "some patients unknown"],
)
def test_the_coarsest_unit_that_can_be_dealt_is_never_split(
    data: Path, cells: Callable[[int], dict[str, str]], unit: str
) -> None:
    rewrite(data, lambda number, line: line.update(cells(number)))
    items = Dataset.open(data).items("train")
    folds = deal_folds(items, 0)
    assert folds.unit == unit
    for column in (items.patients, items.slides, items.parents)[{"patient": 0, "slide": 1}.get(unit, 2) :]:
        for name in set(column) - {""}:
            assert len(set(folds.of[column == name])) == 1, name


def test_too_few_items_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="4 training images are too few for 5 folds"):
        ranked(tmp_path / "run", write_toys(tmp_path / "few", train=4))


class Killed(Exception):
    """Stands for a process that is gone."""


class Killer:
    """Kills the process when a task of that name begins."""

    def __init__(self, task: str) -> None:
        self.task = task

    def start(self, what: str, total: int) -> Callable[[int, str], None]:
        if what == self.task:
            raise Killed
        return lambda done, note: None

    def say(self, line: str) -> None: ...


def test_a_killed_ranking_goes_on_and_a_finished_one_stays(tmp_path: Path, data: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(Killed):
        ranked(run, data, progress=Killer("fold-3"))
    assert not (run / "suspects" / "suspects.json").exists()
    before = files_of(run / "suspects")
    assert {"fold-1/step.json", "fold-2/step.json"} <= before.keys()
    assert "fold-3/step.json" not in before
    said = ranked(run, data)
    after = files_of(run / "suspects")
    whole = {name for name in before if name.startswith("fold-")}
    assert {name: after[name] for name in whole} == {name: before[name] for name in whole}
    assert said == ranked(tmp_path / "other", data)  # as if nothing had happened
    ranked(run, data)
    made = {name for name in after if name.startswith(("fold-", "journal"))}
    again = files_of(run / "suspects")
    assert {name: again[name] for name in made} == {name: after[name] for name in made}
    lines = [json.loads(line) for line in (run / "suspects" / "journal.jsonl").read_text().splitlines()]
    assert [(line["step"], line["epoch"]) for line in lines] == [
        (f"fold-{k}", e) for k in range(1, 6) for e in range(EPOCHS)
    ]


def test_the_run_keeps_its_bytes(tmp_path: Path, data: Path) -> None:
    run = tmp_path / "run"
    place = Workplace(run, Dataset.open(data), SETTINGS, "tags", SILENT)
    lab = EngineLab(place)
    lab.score(lab.fit("a", partial(Toy)), "test")
    for name in ("scores.json", "report.html", "provenance.json", "recipe.yaml"):
        (run / name).write_text("{}")
    before = files_of(run)
    rank(place, lab)
    after = files_of(run)
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("suspects/") for name in after.keys() - before.keys())


def test_unknown_tags_are_never_suspects(tmp_path: Path, data: Path) -> None:
    def forget(number: int, line: dict[str, str]) -> None:
        if number % 4 == 0:
            line["red"] = ""
        if number % 8 == 0:
            line["blue"] = ""

    rewrite(data, forget)
    said = ranked(tmp_path / "run", data, lambda lab: lab.fit("a", partial(KnownOnly)) and None)
    named = {(item["id"], item["class"]) for item in said["items"]}
    assert not {(f"train_{i}", "red") for i in range(0, TRAIN, 4)} & named
    assert {item["id"] for item in said["items"]} == {f"train_{i}" for i in range(TRAIN) if i % 8}


class KnownOnly(Toy):
    """A toy that learns from known tags alone."""

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        known = ~batch.tags.isnan()
        logits = self.head(batch.image).float().mean((2, 3))
        signs = batch.tags.nan_to_num() * 2 - 1
        return {"tags": functional.softplus(-logits * signs)[known].sum() / known.sum().clamp(min=1)}


def test_folds_of_other_settings_are_stale_and_the_mend_is_said(tmp_path: Path, data: Path) -> None:
    run = tmp_path / "run"
    ranked(run, data)
    place = Workplace(
        run, Dataset.open(data), recipe(epochs=EPOCHS, lr=0.06, select="last"), "tags", SILENT, frozenset({"a"})
    )
    lab = EngineLab(place)
    plan(lab)
    with pytest.raises(Stale, match=r"spec\.lr: 0\.1 -> 0\.06.*: remove .*suspects and rank again"):
        rank(place, lab)


def test_the_first_step_of_tags_alone_is_ranked(tmp_path: Path, data: Path) -> None:
    def several(lab: Lab) -> None:
        lab.keep("whole", partial(Toy))
        first = lab.fit("first", partial(Toy))
        lab.fit("second", partial(Toy), start=first)

    assert ranked(tmp_path / "run", data, several)["step"] == "first"
    with pytest.raises(WrongUse, match="no step that is trained by tags alone"):
        ranked(tmp_path / "kept", data, lambda lab: lab.keep("whole", partial(Toy)) and None)


def test_truth_is_no_matter_of_tags(tmp_path: Path, data: Path) -> None:
    place = Workplace(tmp_path / "run", Dataset.open(data), recipe(epochs=1), "truth", SILENT)
    lab = EngineLab(place)
    lab.fit("b", partial(Toy, mask="truth"), masks={"truth": lab.truth()})
    with pytest.raises(WrongUse, match="no step that is trained by tags alone"):
        rank(place, lab)


def test_finished_steps_are_found_and_never_made(tmp_path: Path, data: Path) -> None:
    run = tmp_path / "run"
    place = Workplace(run, Dataset.open(data), SETTINGS, "tags", SILENT)
    plan(EngineLab(place))
    before = files_of(run)
    again = EngineLab(place)
    again.steps = FinishedSteps(run)
    plan(again)
    with pytest.raises(WrongUse, match="step 'b' is not finished"):
        again.fit("b", partial(Toy))
    assert files_of(run) == before
