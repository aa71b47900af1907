"""Steps that are trained in rounds: taught by another step, compared on the validation split, told what was noticed."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from engine.toys import Toy, recipe, write_toys
from eosin.core.artifact import Trained, read_json
from eosin.core.errors import EosinError, Stale
from eosin.core.learner import Frozen, Learner
from eosin.core.progress import Silent
from eosin.core.values import Batch, Clock
from eosin.data.dataset import Dataset
from eosin.engine.lab import EngineLab
from eosin.engine.workplace import Workplace
from eosin.recipe import Recipe, family


class Pupil(Toy):
    """A toy that learns the answers of its teacher."""

    teacher: Frozen

    def taught_by(self, teacher: Learner) -> None:
        assert isinstance(teacher, Toy) and not teacher.training
        self.teacher = Frozen(teacher.head)

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {"taught": (self.head(batch.image) - self.teacher(batch.image)).square().mean()}


class Noticing(Toy):
    """A toy that notices the mean of its images, by images with the first class."""

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        there = batch.tags[:, 0] == 1
        self.pair = (batch.image.mean((1, 2, 3)) * there).sum(), there.sum()
        return super().losses(batch, clock)

    def noticed(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {"brightness": self.pair}

    def warning(self, means: Any) -> str | None:
        return "too bright" if means["brightness"] > 0 else None


class Heard(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def lab_at(run: Path, data: Path, made: Recipe | None = None, progress: Any = None) -> EngineLab:
    return EngineLab(Workplace(run, Dataset.open(data), made or recipe(), "tags", progress or Silent()))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_toys(tmp_path / "data")


def weights(step: Trained) -> dict[str, Tensor]:
    return load_file(step.folder / "weights.safetensors")


def test_a_pupil_learns_of_its_teacher_which_is_not_among_its_weights(tmp_path: Path, data: Path) -> None:
    lab = lab_at(tmp_path / "run", data, recipe(epochs=30, select="last", weight_decay=0.0))
    teacher = lab.fit("teacher", partial(Toy))
    pupil = lab.fit("pupil", partial(Pupil), teacher=teacher)
    taught, learnt = weights(teacher), weights(pupil)
    assert learnt.keys() == taught.keys()
    assert not torch.equal(learnt["head.weight"], taught["head.weight"])
    lines = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    losses = [line["losses"]["taught"] for line in lines if line["step"] == "pupil"]
    assert losses[-1] < 0.2 * losses[0]


def test_who_teaches_and_who_begins_are_told_apart(tmp_path: Path, data: Path) -> None:
    """Both are inputs of the same names; with their roles exchanged it is another step."""
    lab = lab_at(tmp_path / "run", data)
    a, b = lab.fit("a", partial(Toy)), lab.fit("b", partial(Toy))
    lab.fit("c", partial(Pupil), start=a, teacher=b)
    again = lab_at(tmp_path / "run", data)
    a, b = again.fit("a", partial(Toy)), again.fit("b", partial(Toy))
    with pytest.raises(Stale):
        again.fit("c", partial(Pupil), start=b, teacher=a)


def test_who_is_taught_by_another_is_another(tmp_path: Path, data: Path) -> None:
    found = []
    for run, teacher in (("one", "a"), ("two", "b")):
        lab = lab_at(tmp_path / run, data)
        steps = {name: lab.fit(name, partial(Toy)) for name in ("a", "b")}
        found.append(weights(lab.fit("c", partial(Pupil), teacher=steps[teacher])))
    assert not torch.equal(found[0]["head.weight"], found[1]["head.weight"])


def test_a_learner_without_need_of_one_refuses_a_teacher(tmp_path: Path, data: Path) -> None:
    lab = lab_at(tmp_path / "run", data)
    with pytest.raises(TypeError, match="Toy learns of no teacher"):
        lab.fit("b", partial(Toy), teacher=lab.fit("a", partial(Toy)))


def test_the_validation_score_is_that_of_the_entry_and_made_once(tmp_path: Path, data: Path) -> None:
    lab = lab_at(tmp_path / "run", data)
    trained = lab.fit("a", partial(Toy))
    assert lab.has_val
    score = lab.val_score(trained)
    record = tmp_path / "run" / "predictions" / "a" / "val" / "step.json"
    assert score == read_json(record)["notes"]["entry"]["miou"]
    before = record.stat().st_mtime_ns
    assert lab.val_score(trained) == score and lab_at(tmp_path / "run", data).val_score(trained) == score
    assert record.stat().st_mtime_ns == before


def test_without_masks_it_is_that_of_the_tags(tmp_path: Path) -> None:
    lab = lab_at(tmp_path / "run", write_toys(tmp_path / "data", masks=False))
    trained = lab.fit("a", partial(Toy))
    assert lab.val_score(trained) == lab.score(trained, "val").notes["entry"]["tags"]["map"]


def test_a_validation_split_that_says_nothing_is_named(tmp_path: Path) -> None:
    lab = lab_at(tmp_path / "run", write_toys(tmp_path / "data", masks=False, vary=False), recipe(select="last"))
    trained = lab.fit("a", partial(Toy))
    with pytest.raises(EosinError, match="split 'val' says nothing of any class"):
        lab.val_score(trained)


def test_rounds_are_trained_by_the_settings_of_their_family(tmp_path: Path, data: Path) -> None:
    made = recipe(pupil={"epochs": 3}, **{"pupil-3": {"epochs": 1}})
    assert [family(step) for step in ("pupil", "pupil-2", "pupil-12", "grad-cam")] == ["pupil"] * 3 + ["grad-cam"]
    assert [made.fit_spec(step).epochs for step in ("teacher", "pupil", "pupil-2", "pupil-3")] == [2, 3, 3, 1]
    lab = lab_at(tmp_path / "run", data, made)
    teacher = lab.fit("teacher", partial(Toy))
    pupil = lab.fit("pupil", partial(Pupil), teacher=teacher)
    lab.fit("pupil-2", partial(Pupil), start=teacher, teacher=pupil)
    lines = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == ["teacher"] * 2 + ["pupil"] * 3 + ["pupil-2"] * 3


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_is_noticed_is_averaged_over_an_epoch_and_told(tmp_path: Path, data: Path, accumulate: int) -> None:
    heard = Heard()
    made = recipe(epochs=1, accumulate=accumulate, augment={"flip": False, "turn": False})
    lab = lab_at(tmp_path / "run", data, made, heard)
    lab.fit("a", partial(Noticing))
    (line,) = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    from eosin.slides.image import read_rgb

    items = Dataset.open(data).items("train")
    bright = [read_rgb(items.path(i)).mean() / 255 for i in range(len(items)) if items.tags[i, 0] == 1]
    assert line["seen"] == {"brightness": pytest.approx(sum(bright) / len(bright), rel=1e-5)}
    assert list(line["losses"]) == ["tags"], "nothing is learnt of it"
    assert heard.lines == ["a, epoch 1: too bright"]


class Late(Toy):
    """A toy of which two parts begin later."""

    def begins(self) -> dict[str, int]:
        return {"a filter": 1, "a teacher": 2}


def test_a_part_that_never_begins_is_told_of(tmp_path: Path, data: Path) -> None:
    heard = Heard()
    lab_at(tmp_path / "run", data, recipe(epochs=2), heard).fit("a", partial(Late))
    assert heard.lines == ["a: a teacher begins with epoch 3, and there are 2: never"]


def test_who_notices_nothing_says_nothing(tmp_path: Path, data: Path) -> None:
    lab = lab_at(tmp_path / "run", data)
    lab.fit("a", partial(Toy))
    assert '"seen"' not in (tmp_path / "run" / "journal.jsonl").read_text()
