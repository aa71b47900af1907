"""Steps on disk: made once, found again, refused when stale, and never a path to truth for tags-only methods."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.toys import SIDE, Toy, recipe, write_toys
from eosin.core.artifact import MaskSet
from eosin.core.errors import EosinError, Stale, WrongUse
from eosin.core.fingerprint import file_digest
from eosin.core.progress import Silent
from eosin.core.values import Batch, Clock
from eosin.data.dataset import Dataset
from eosin.engine import loop
from eosin.engine.export import training_domain
from eosin.engine.lab import EngineLab
from eosin.engine.weights import without_weights
from eosin.engine.workplace import Workplace
from eosin.parts.cams import Averaged
from eosin.parts.pseudo import TagGatedArgmax
from eosin.predictor.predictor import Predictor
from eosin.recipe import Recipe

RULE = partial(TagGatedArgmax, maker=partial(Averaged))


def lab_at(run: Path, data: Path, made: Recipe | None = None, supervision: str = "tags") -> EngineLab:
    return EngineLab(Workplace(run, Dataset.open(data), made or recipe(), supervision, Silent()))  # type: ignore[arg-type]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_toys(tmp_path / "data")


def files_of(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        str(p.relative_to(folder)): (file_digest(p), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()
    }


def test_two_stages_are_trained_scored_and_exported(tmp_path: Path, data: Path) -> None:
    run = tmp_path / "run"
    lab = lab_at(run, data, recipe(epochs=30))
    first = lab.fit("a", partial(Toy))
    masks = lab.label("drawn", first, RULE)
    second = lab.fit("b", partial(Toy, mask="drawn"), masks={"drawn": masks})
    for step in (first, second):
        lab.score(step, "test")
    lab.export("export", second)

    assert sorted(p.name for p in masks.folder.iterdir()) == sorted(f"train_{i}.png" for i in range(12))
    assert set(np.unique(np.asarray(Image.open(masks.path("train_0"))))) == {0}  # red only: the tag gate decides
    entries = {e["step"]: e for e in lab.scores() if e["split"] == "test"}
    assert set(entries) == {"a", "b"}
    assert entries["b"]["miou"] > 0.9
    assert entries["b"]["selection"] == "masks"
    assert entries["b"]["n_images"] == 4
    assert sum(map(sum, entries["b"]["confusion"])) == 3 * SIDE**2 + 40**2
    assert np.asarray(Image.open(run / "predictions" / "b" / "test" / "test_0.png")).shape == (40, 40)
    model = Predictor.load(run / "model")
    assert model.card.tile == SIDE
    assert model.card.scores[0]["miou"] == entries["b"]["miou"]
    assert model.card.domain == training_domain(lab.items, SIDE, model.card.mpp)
    assert model.card.domain is not None and model.card.domain.tiles == 12


def test_the_journal_tells_every_epoch_and_the_best_one_is_kept(tmp_path: Path, data: Path) -> None:
    lab = lab_at(tmp_path / "run", data, recipe(epochs=3))
    trained = lab.fit("a", partial(Toy))
    lines = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert all(line["losses"]["tags"] > 0 for line in lines)
    best = max(lines, key=lambda line: line["val"]["miou"])
    notes = json.loads((trained.folder / "step.json").read_text())["notes"]
    assert notes["score"] == best["val"]["miou"]
    assert notes["epoch"] == next(line["epoch"] for line in lines if line["val"]["miou"] == notes["score"])


def test_memory_is_kept_while_a_fit_is_at_work(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    @contextmanager
    def kept() -> Iterator[None]:
        told.append("begun")
        yield
        told.append("ended")

    def step(*arguments: Any) -> dict[str, Tensor]:
        told.append("step")
        return losses(*arguments)

    losses = Toy.losses
    monkeypatch.setattr(Toy, "losses", step)
    monkeypatch.setattr(loop, "kept_memory", kept)
    lab_at(tmp_path / "run", data).fit("a", partial(Toy))
    assert told == ["begun", *["step"] * 6, "ended"]


def test_a_finished_step_is_not_touched_again(tmp_path: Path, data: Path) -> None:
    run = tmp_path / "run"

    def work() -> None:
        lab = lab_at(run, data)
        first = lab.fit("a", partial(Toy))
        lab.label("drawn", first, RULE)
        lab.score(first, "test")
        lab.export("export", first)

    work()
    before = files_of(run)
    work()
    assert files_of(run) == before


def test_another_setting_is_stale_and_says_what_and_which_redo(tmp_path: Path, data: Path) -> None:
    run = tmp_path / "run"
    lab_at(run, data).fit("a", partial(Toy))
    with pytest.raises(Stale, match=r"spec\.lr: 0\.05 -> 0\.06.*--redo a"):
        lab_at(run, data, recipe(lr=0.06)).fit("a", partial(Toy))
    with pytest.raises(Stale, match="--redo a"):
        lab_at(run, data).fit("a", partial(Toy, mask="x"))


def two_stages(
    run: Path,
    data: Path,
    made: Recipe | None = None,
    again: frozenset[str] = frozenset(),
    others: Path | None = None,
) -> EngineLab:
    """The whole chain of a two-stage method, scored and exported."""
    lab = EngineLab(Workplace(run, Dataset.open(data), made or recipe(), "tags", Silent(), again, others=others))
    first = lab.fit("a", partial(Toy))
    masks = lab.label("drawn", first, RULE)
    second = lab.fit("b", partial(Toy, mask="drawn"), masks={"drawn": masks})
    lab.score(second, "test")
    lab.export("export", second)
    return lab


def taken(run: Path) -> dict[str, str | None]:
    """Where each step of a run came from; None if it was made there."""
    records = [json.loads(path.read_text()) for path in sorted(run.rglob("step.json"))]
    return {record["name"]: record["notes"].get("taken") for record in records}


def test_a_step_that_another_run_has_made_is_taken(tmp_path: Path, data: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    first = two_stages(one, data)
    second = two_stages(two, data, others=tmp_path)
    assert set(taken(one).values()) == {None}
    assert taken(two) == dict.fromkeys(taken(one), str(one))
    assert (two / "journal.jsonl").read_text() == (one / "journal.jsonl").read_text()
    assert second.steps.costs() == first.steps.costs(), "what it takes to make them"
    weights = "steps/a/weights.safetensors"
    assert (one / weights).samefile(two / weights)
    before = files_of(two)
    two_stages(two, data, others=tmp_path)
    assert files_of(two) == before


def test_only_equal_steps_are_taken(tmp_path: Path, data: Path) -> None:
    two_stages(tmp_path / "one", data)
    two_stages(tmp_path / "seed", data, recipe().model_copy(update={"seed": 1}), others=tmp_path)
    assert set(taken(tmp_path / "seed").values()) == {None}
    lab = EngineLab(Workplace(tmp_path / "b", Dataset.open(data), recipe(), "tags", Silent(), others=tmp_path))
    lab.fit("a", partial(Toy))
    lab.fit("b", partial(Toy))
    assert taken(tmp_path / "b") == {"a": str(tmp_path / "one"), "b": None}
    assert [line["step"] for line in lab.journal.read()] == ["a"] * 2 + ["b"] * 2


def test_what_is_damaged_or_to_be_redone_is_not_taken(tmp_path: Path, data: Path) -> None:
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    two_stages(one, data)
    shutil.copytree(one, two)
    two_stages(two, data, again=frozenset({"drawn"}), others=tmp_path)
    assert set(taken(two).values()) == {None}
    for run in (one, two):
        with (run / "steps" / "a" / "weights.safetensors").open("ab") as file:
            file.write(b"more")
    (tmp_path / "0").mkdir()
    (one / "steps" / "drawn").rename(tmp_path / "0" / "drawn")
    for number, record in enumerate(("{}", "{", '{"schema": 1}')):
        strange = tmp_path / f"0{number}" / "steps" / "a"
        strange.mkdir(parents=True)
        (strange / "step.json").write_text(record)
    two_stages(three, data, others=tmp_path)
    assert taken(three) == {**dict.fromkeys(taken(one), str(one)), "a": None, "drawn": str(two)}, (
        "the rest was made from the same weights"
    )


def test_what_was_made_from_other_pixels_or_in_another_way_is_not_taken(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_stages(tmp_path / "one", data)
    shutil.copytree(data, tmp_path / "normalised")
    two_stages(tmp_path / "two", tmp_path / "normalised", others=tmp_path)
    monkeypatch.setattr("eosin.engine.workplace.__version__", "0.0.0")
    two_stages(tmp_path / "three", data, others=tmp_path)
    for run in ("two", "three"):
        assert set(taken(tmp_path / run).values()) == {None}


def test_a_taken_fit_has_the_journal_of_its_source(tmp_path: Path, data: Path) -> None:
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    two_stages(one, data)
    lines = (one / "journal.jsonl").read_text().splitlines(keepends=True)
    two.mkdir()
    other = {**json.loads(lines[0]), "losses": {"tags": 9.0}}
    (two / "journal.jsonl").write_text(json.dumps(other) + "\n")  # of a fit that was killed before its checkpoint
    two_stages(two, data, others=tmp_path)
    assert (two / "journal.jsonl").read_text() == "".join(lines)
    for run in (one, two):
        (run / "journal.jsonl").write_text("".join(lines[1:]))
    two_stages(three, data, others=tmp_path)
    assert [taken(three)[name] for name in ("a", "b")] == [None, str(one)], "a fit whose first epoch is lost"


def test_a_taken_step_is_a_folder_of_ones_own(tmp_path: Path, data: Path) -> None:
    two_stages(tmp_path / "one", data)
    for path in (tmp_path / "one").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    two_stages(tmp_path / "two", data, others=tmp_path)
    assert (tmp_path / "two/steps/a").stat().st_mode & 0o200


def test_redo_does_a_step_and_all_that_is_made_from_it_again(tmp_path: Path, data: Path) -> None:
    run = tmp_path / "run"
    two_stages(run, data)
    before = files_of(run)
    two_stages(run, data, again=frozenset({"drawn"}))
    after = files_of(run)
    again = {name for name in after if after[name] != before.get(name)}
    assert not any(name.startswith("steps/a/") for name in again)
    folders = ("steps/drawn", "steps/b", "predictions/b/test", "model")
    assert {f"{folder}/step.json" for folder in folders} <= again
    with pytest.raises(WrongUse, match="did you mean 'drawn'"):
        two_stages(run, data, again=frozenset({"drwn"}))


def test_a_refused_redo_has_lost_nothing(tmp_path: Path, data: Path) -> None:
    run = tmp_path / "run"
    two_stages(run, data)
    before = files_of(run)
    with pytest.raises(Stale, match="--redo a"):
        two_stages(run, data, recipe(lr=0.06), again=frozenset({"b"}))
    assert files_of(run) == before


def test_what_was_made_from_other_content_is_stale_even_with_equal_settings(tmp_path: Path, data: Path) -> None:
    run = tmp_path / "run"
    two_stages(run, data)
    record = json.loads((run / "steps" / "a" / "step.json").read_text())
    (run / "steps" / "a" / "step.json").write_text(json.dumps({**record, "content": "another"}))
    with pytest.raises(Stale, match=r"drawn: made with other settings \(inputs\.a: .*--redo drawn"):
        two_stages(run, data)


def test_a_folder_without_its_record_is_named(tmp_path: Path, data: Path) -> None:
    run = tmp_path / "run"
    two_stages(run, data)
    (run / "steps" / "drawn" / "step.json").unlink()
    with pytest.raises(EosinError, match="drawn: not a finished step"):
        two_stages(run, data)


def test_truth_of_training_and_pixels_of_test_masks_do_not_change_a_weight(tmp_path: Path, data: Path) -> None:
    other = write_toys(tmp_path / "other")
    for split in ("train", "test"):
        for path in (other / "masks").glob(f"{split}_*.png"):
            shape = np.asarray(Image.open(path)).shape
            Image.fromarray(np.random.default_rng(0).integers(0, 2, shape, np.uint8)).save(path)
    digests = [
        {
            step: file_digest(two_stages(tmp_path / name, where).trained[step].folder / "weights.safetensors")
            for step in "ab"
        }
        for name, where in (("one", data), ("two", other))
    ]
    assert digests[0] == digests[1]


def test_a_lab_of_tags_refuses_training_scores_and_masks_from_elsewhere(tmp_path: Path, data: Path) -> None:
    lab = lab_at(tmp_path / "run", data)
    first = lab.fit("a", partial(Toy))
    with pytest.raises(EosinError, match="refused"):
        lab.score(first, "train")
    forged = MaskSet("truth", data / "masks", "0" * 64)
    with pytest.raises(EosinError, match="refused"):
        lab.fit("b", partial(Toy, mask="truth"), masks={"truth": forged})
    assert not hasattr(lab, "dataset")


def test_data_that_cannot_teach_is_refused(tmp_path: Path) -> None:
    data = write_toys(tmp_path / "data")
    text = (data / "items.csv").read_text().splitlines()
    blank = [",".join([*line.split(",")[:-2], "", ""]) if "train_" in line else line for line in text]
    (data / "items.csv").write_text("\n".join(blank) + "\n")
    with pytest.raises(EosinError, match="no training item has a known tag"):
        lab_at(tmp_path / "run", data)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tmp_path: Path, data: Path) -> None:
    weights = {}
    for run, seed in (("one", 0), ("two", 0), ("three", 1)):
        lab = lab_at(tmp_path / run, data, recipe().model_copy(update={"seed": seed}))
        weights[run] = file_digest(lab.fit("a", partial(Toy)).folder / "weights.safetensors")
    assert weights["one"] == weights["two"] != weights["three"]


def test_training_truth_is_refused_to_methods_of_tags_and_given_to_the_upper_bound(tmp_path: Path, data: Path) -> None:
    with pytest.raises(EosinError, match="refused"):
        lab_at(tmp_path / "run", data).truth()
    lab = lab_at(tmp_path / "run", data, recipe(epochs=30), "truth")
    trained = lab.fit("b", partial(Toy, mask="truth"), masks={"truth": lab.truth()})
    lab.score(trained, "test")
    assert lab.scores()[0]["miou"] > 0.9


def test_training_truth_is_not_even_opened_by_methods_of_tags(tmp_path: Path, data: Path) -> None:
    for mask in (data / "masks").glob("train_*.png"):
        mask.write_bytes(b"not an image")
    lab = lab_at(tmp_path / "run", data)
    first = lab.fit("a", partial(Toy))
    lab.label("drawn", first, RULE)
    with pytest.raises(EosinError, match="train_"):
        spoiled = lab_at(tmp_path / "other", data, supervision="truth")
        spoiled.fit("b", partial(Toy, mask="truth"), masks={"truth": spoiled.truth()})


def test_without_any_mask_selection_and_scores_are_by_tags(tmp_path: Path) -> None:
    lab = lab_at(tmp_path / "run", write_toys(tmp_path / "data", masks=False))
    trained = lab.fit("a", partial(Toy))
    lab.score(trained, "test")
    entry = lab.scores()[0]
    assert trained.selection == "tags"
    assert entry["protocol"] == "tags"
    assert 0 <= entry["tags"]["map"] <= 1
    assert "miou" not in entry


@pytest.mark.parametrize(("select", "words"), [("masks", "with masks"), ("tags", "cannot choose")])
def test_a_selection_that_the_data_cannot_carry_is_an_error(tmp_path: Path, select: str, words: str) -> None:
    data = write_toys(tmp_path / "data", masks=False, vary=False)
    with pytest.raises(WrongUse, match=words):
        lab_at(tmp_path / "run", data, recipe(select=select)).fit("a", partial(Toy))
    assert lab_at(tmp_path / "auto", data).fit("a", partial(Toy)).selection == "last"


def test_a_loss_that_is_not_finite_stops_with_term_and_items(tmp_path: Path, data: Path) -> None:
    with pytest.raises(EosinError, match=r"a: loss 'bad' is nan at step 1 \(items train_"):
        lab_at(tmp_path / "run", data).fit("a", partial(Toy, poison=1.0))
    assert not (tmp_path / "run" / "steps" / "a").exists()


@pytest.mark.parametrize(
    "setting",
    [
        {"ema": 0.5},
        {"clip": 1e-4},
        {"items": 4},
        {"sampler": "balanced"},
        {"schedule": "constant"},
        {"warmup": 0.5},
        {"optimizer": "sgd"},
        {"weight_decay": 0.5},
        {"batch": 6},
        {"augment": {"stain": 0.5}},
        {"precision": "bf16"},
    ],
    ids=str,
)
def test_no_setting_of_a_fit_is_inert(tmp_path: Path, data: Path, setting: dict[str, object]) -> None:
    spec = {"select": "last", "schedule": "poly", "weight_decay": 0.01}
    plain = lab_at(tmp_path / "plain", data, recipe(**spec)).fit("a", partial(Toy))
    changed = lab_at(tmp_path / "changed", data, recipe(**{**spec, **setting})).fit("a", partial(Toy))
    assert file_digest(plain.folder / "weights.safetensors") != file_digest(changed.folder / "weights.safetensors")


def test_start_continues_from_another_steps_weights(tmp_path: Path, data: Path) -> None:
    lab = lab_at(tmp_path / "run", data, recipe(epochs=1, lr=1e-9))
    first = lab.fit("a", partial(Toy))
    second = lab.fit("b", partial(Toy), start=first)
    a, b = (load_file(s.folder / "weights.safetensors") for s in (first, second))
    assert all(np.allclose(a[k], b[k], atol=1e-6) for k in a)
    assert second.digest != first.digest


class Given(Toy):
    """A toy that was given numbers, as prototypes are, which are part of its state and do not learn."""

    given = ("numbers",)

    def __init__(self, number: float) -> None:
        super().__init__()
        self.register_buffer("numbers", torch.full((3,), number))


def test_what_a_learner_was_given_is_not_replaced_by_what_it_starts_with(tmp_path: Path, data: Path) -> None:
    lab = lab_at(tmp_path / "run", data, recipe(epochs=1, lr=1e-9))
    first = lab.fit("a", partial(Given, 1.0))
    second = load_file(lab.fit("b", partial(Given, 2.0), start=first).folder / "weights.safetensors")
    assert second.pop("numbers").tolist() == [2, 2, 2]
    before = load_file(first.folder / "weights.safetensors")
    assert all(torch.allclose(value, before[name], atol=1e-6) for name, value in second.items())


class Normed(Toy):
    """A toy with a norm over what it pools: of one image there is one value per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2)

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        pooled = self.norm(self.head(batch.image).mean((2, 3), keepdim=True))
        return {"tags": pooled.square().mean()}


def test_a_network_that_cannot_learn_from_one_image_says_so(tmp_path: Path, data: Path) -> None:
    with pytest.raises(EosinError, match=r"fit\.a\.batch = 1: a norm .* cannot learn from one image; take 2 or more"):
        lab_at(tmp_path / "one", data, recipe(batch=1)).fit("a", partial(Normed))
    lab_at(tmp_path / "two", data, recipe(batch=2, accumulate=2)).fit("a", partial(Normed))


def test_pretrained_weights_are_not_read_again_for_a_finished_step() -> None:
    build = partial(Net, encoder=partial(Net, pretrained="imagenet"), width=3)
    bare = without_weights(build)
    assert bare.keywords["encoder"].keywords == {"pretrained": "none"}
    assert bare.keywords["width"] == 3
    assert build.keywords["encoder"].keywords == {"pretrained": "imagenet"}
    assert without_weights(partial(Net, None, 2, "weights.pth")).keywords["pretrained"] == "none"  # given by position


class Net:
    """Something with weights."""

    def __init__(self, encoder: object = None, width: int = 1, pretrained: str = "none") -> None: ...


def test_another_ignore_value_than_255_is_left_out_of_training_and_scores(tmp_path: Path) -> None:
    data = write_toys(tmp_path / "data")
    (data / "dataset.yaml").write_text((data / "dataset.yaml").read_text().replace("ignore: 255", "ignore: 9"))
    for path in (data / "masks").glob("*.png"):
        mask = np.asarray(Image.open(path)).copy()
        mask[:4] = 9
        Image.fromarray(mask).save(path)
    lab = lab_at(tmp_path / "run", data, recipe(epochs=30), "truth")
    trained = lab.fit("b", partial(Toy, mask="truth"), masks={"truth": lab.truth()})
    lab.score(trained, "test")
    entry = lab.scores()[0]
    assert entry["miou"] > 0.9
    assert sum(map(sum, entry["confusion"])) == 3 * SIDE * (SIDE - 4) + 40 * 36


def test_make_and_keep_are_steps_too(tmp_path: Path, data: Path) -> None:
    lab = lab_at(tmp_path / "run", data)
    made = lab.make("list", "names", write_names)
    assert (made.folder / "names.txt").read_text() == "red blue"
    kept = lab.keep("whole", partial(Toy))
    lab.score(kept, "test")
    assert kept.selection == "last"
    assert lab.scores()[0]["step"] == "whole"


def write_names(folder: Path) -> None:
    (folder / "names.txt").write_text("red blue")
