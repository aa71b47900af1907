"""What is scored of a split beside its counts, by what temperature, and which items a report may show."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine.toys import SIDE, Toy, first_class, recipe, write_toys
from eosin.core.artifact import write_json
from eosin.core.classes import Classes, Tissue
from eosin.core.errors import EosinError
from eosin.core.progress import Silent
from eosin.data.contract import Objects
from eosin.data.dataset import Dataset, Row, write_dataset
from eosin.data.module import WeakView
from eosin.engine import evaluate
from eosin.engine.device import open_device
from eosin.engine.evaluate import Tiling, score_tags
from eosin.engine.lab import EngineLab
from eosin.engine.scoring import Scoring, worth_a_look
from eosin.engine.weights import load
from eosin.engine.workplace import Workplace
from eosin.metrics.boundary import BoundaryTally
from eosin.metrics.calibration import fit_temperature
from eosin.metrics.objects import ObjectTally
from eosin.metrics.protocols import PROTOCOLS, Strict, Subject, tag_scores
from eosin.parts.cams import Averaged
from eosin.parts.pseudo import TagGatedArgmax
from eosin.predictor.predictor import Predictor
from eosin.report.gallery import predictions
from eosin.report.reading import read_run

RULE = partial(TagGatedArgmax, maker=partial(Averaged))
NUMBERED = Objects(tissue="blue", folder="objects")


def lab_at(run: Path, data: Path, protocol: str = "strict", again: frozenset[str] = frozenset()) -> EngineLab:
    made = recipe(epochs=3).model_copy(update={"protocol": protocol})
    return EngineLab(Workplace(run, Dataset.open(data), made, "tags", Silent(), again))


def write_many(
    folder: Path, test: int = 20, ignore: int = 255, truth: bool = True, objects: Objects | None = None
) -> Path:
    """Noisy halves of red and blue; a corner of every mask is ignored, all of the first test item's."""
    rng = np.random.default_rng(0)
    rows = []
    for split, count in (("train", 8), ("val", 6), ("test", test)):
        for i in range(count):
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[:, rng.integers(3, SIDE - 3) :] = 1
            noise = rng.integers(-110, 110, (SIDE, SIDE, 3))
            image = np.where(mask[..., None] == 0, [200, 60, 60], [60, 60, 200]) + noise
            mask[: 3 if i or split != "test" else SIDE, :] = ignore
            name = f"{split}_{i}"
            for kind, pixels in (("images", np.clip(image, 0, 255)), ("masks", mask), ("objects", mask == 1)):
                (folder / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / kind / f"{name}.png")
            where = f"masks/{name}.png" if truth and split != "train" else ""
            rows.append(Row(name, split, f"images/{name}.png", where, patient=name, tags=[1.0, float(i % 3 > 0)]))
    classes = Classes(
        tissues=(Tissue(name="red", colour=(220, 40, 40)), Tissue(name="blue", colour=(40, 40, 220))), ignore=ignore
    )
    write_dataset(
        folder, name="many", classes=classes, rows=rows, mpp=0.5, licence="CC0", citation="none", objects=objects
    )
    return folder


def masks_of(folder: Path, dataset: Dataset, split: str) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Id, prediction and truth of every labelled item."""
    truth = dataset.truth(split)
    assert truth is not None
    ids = [str(dataset.items(split).ids[i]) for i in truth.index]
    paths = [(name, folder / f"{name}.png", truth.path(k)) for k, name in enumerate(ids)]
    return [(name, np.asarray(Image.open(a)), np.asarray(Image.open(b))) for name, a, b in paths]


def test_entries_tell_boundaries_objects_confidence_and_tags(tmp_path: Path) -> None:
    data = write_many(tmp_path / "data", objects=NUMBERED)
    lab = lab_at(tmp_path / "run", data)
    step = lab.score(lab.fit("a", partial(Toy)), "test")
    entry, dataset = step.notes["entry"], Dataset.open(data)
    boundary, objects = BoundaryTally(dataset.classes, 0.5), ObjectTally(0.5)
    for name, predicted, truth in masks_of(step.folder, dataset, "test"):
        boundary.add(predicted, truth)
        objects.add(predicted == 1, np.asarray(Image.open(data / "objects" / f"{name}.png")))
    assert entry["boundary"] == boundary.entry()
    assert entry["boundary"]["hd_um"]["red"] == pytest.approx(entry["boundary"]["hd"]["red"] / 2)
    assert entry["objects"] == objects.entry()
    assert entry["objects"]["truth"] > 10
    assert sum(bin_["pixels"] for bin_ in entry["calibration"]["bins"]) == sum(map(sum, entry["confusion"]))
    with np.load(step.folder / "counts.npz") as kept:
        assert kept["counts"].sum(0).tolist() == entry["confusion"]
        assert kept["patients"].tolist() == kept["ids"].tolist()
    learner = load(lab.build_of(lab.trained["a"]), lab.trained["a"])
    images = torch.stack([torch.as_tensor(np.array(Image.open(data / "images" / f"test_{i}.png"))) for i in range(20)])
    with torch.inference_mode():
        scores = learner.tag_scores(images.permute(0, 3, 1, 2).float() / 255).numpy()
    wanted = tag_scores(dataset.classes, scores, dataset.items("test").tags)
    assert entry["tags"]["map"] == pytest.approx(wanted["map"], abs=1e-5)
    assert entry["miou"] is not None


class Sees(Toy):
    """Says how bright the brightest pixel of an image is, and keeps what it was asked."""

    asked: list[tuple[int, ...]]

    def tag_scores(self, image: torch.Tensor) -> torch.Tensor:
        self.asked.append(tuple(image.shape))
        return image.mean(1).flatten(1).amax(1, keepdim=True) * torch.tensor([[1.0, 0.5]])


@pytest.mark.parametrize(
    ("size", "tiles"),
    [((64, 64), 1), ((40, 64), 1), ((65, 30), 2), ((64, 113), 3), ((150, 100), 6)],  # tiles of 64 px every 48
)
def test_images_larger_than_a_tile_have_the_highest_tag_scores_of_their_tiles(
    size: tuple[int, int], tiles: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "TAG_PIXELS", 3 * 64 * 64)
    rows, (height, width), rng = [], size, np.random.default_rng(1)
    (tmp_path / "images").mkdir()
    for i in range(5):  # one bright pixel each, also at the last row and column
        pixels = np.zeros((height, width, 3), np.uint8)
        y, x = (height - 1, width - 1) if i == 4 else (int(rng.integers(height)), int(rng.integers(width)))
        pixels[y, x] = 50 * i + 20
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
        rows.append(Row(str(i), "test", f"images/{i}.png", "", patient=str(i), tags=[1.0, 1.0]))
    classes = Classes(tissues=(Tissue(name="red", colour=(220, 40, 40)), Tissue(name="blue", colour=(40, 40, 220))))
    write_dataset(tmp_path, name="spots", classes=classes, rows=rows, mpp=0.5, licence="CC0", citation="none")
    learner = Sees()
    learner.asked = []
    view = WeakView(Dataset.open(tmp_path).items("test"), None, 0)
    found = score_tags(learner, view, Tiling(64, 8), open_device("fp32"))
    brightest = np.array([50 * i + 20 for i in range(5)], np.float32)[:, None] / 255
    assert found == pytest.approx(brightest * np.array([1, 0.5], np.float32))
    assert sum(asked[0] for asked in learner.asked) == 5 * tiles
    assert all(asked[0] * asked[2] * asked[3] <= evaluate.TAG_PIXELS for asked in learner.asked), "more at a time"
    assert {asked[2:] for asked in learner.asked} == {(min(height, 64), min(width, 64))}


def test_data_without_numbered_objects_have_no_object_scores(tmp_path: Path) -> None:
    lab = lab_at(tmp_path / "run", write_toys(tmp_path / "data"))
    entry = lab.score(lab.fit("a", partial(Toy)), "test").notes["entry"]
    assert "objects" not in entry
    assert entry["boundary"]["miou"] is not None


def test_objects_of_another_size_than_the_mask_are_named(tmp_path: Path) -> None:
    data = write_many(tmp_path / "data", objects=NUMBERED)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(data / "objects" / "val_2.png")
    lab = lab_at(tmp_path / "run", data)
    with pytest.raises(EosinError, match=r"val_2\.png: \(4, 4\) px where the mask has \(16, 16\)"):
        lab.score(lab.fit("a", partial(Toy)), "val")


def test_the_temperature_is_fitted_on_val_alone_and_carried_on(tmp_path: Path) -> None:
    data = write_many(tmp_path / "data")
    lab = lab_at(tmp_path / "run", data)
    trained = lab.fit("a", partial(Toy))
    tested = lab.score(trained, "test").notes["entry"]["calibration"]
    validated = lab.score(trained, "val").notes["entry"]["calibration"]
    lab.export("export", trained)
    dataset, learner = Dataset.open(data), load(lab.build_of(trained), trained)
    found = []
    for name, _, truth in masks_of(tmp_path / "run" / "predictions" / "a" / "val", dataset, "val"):
        image = torch.as_tensor(np.array(Image.open(data / "images" / f"{name}.png"))).permute(2, 0, 1)[None]
        with torch.inference_mode():
            maps = learner.predict(image.float() / 255)[0].numpy()
        found += [(maps[:, y, x], truth[y, x]) for y, x in zip(*np.nonzero(truth != 255), strict=True)]
    temperature = fit_temperature(np.stack([p for p, _ in found]), np.array([t for _, t in found]))
    assert validated["temperature"] == pytest.approx(temperature, rel=1e-3)
    assert temperature != pytest.approx(1, abs=0.05)
    assert tested["temperature"] == validated["temperature"]
    assert validated["ece_tempered"] is None  # it would be judged by what it was fitted to
    assert tested["ece_tempered"] is not None and tested["ece_tempered"] != tested["ece"]
    assert Predictor.load(tmp_path / "run" / "model").card.temperature == validated["temperature"]


def test_without_masks_on_val_there_is_no_temperature(tmp_path: Path) -> None:
    data = write_many(tmp_path / "data")
    rows = (data / "items.csv").read_text().splitlines()
    bare = [re.sub(r"masks/val_\d+\.png", "", row) for row in rows]
    (data / "items.csv").write_text("\n".join(bare) + "\n")
    lab = lab_at(tmp_path / "run", data)
    trained = lab.fit("a", partial(Toy))
    entry = lab.score(trained, "test").notes["entry"]
    lab.export("export", trained)
    assert entry["calibration"]["temperature"] is None and entry["calibration"]["ece"] is not None
    assert lab.score(trained, "val").notes["entry"]["protocol"] == "tags"
    assert Predictor.load(tmp_path / "run" / "model").card.temperature is None


@pytest.mark.parametrize("temperature", [None, 2.5])
def test_a_model_that_is_scored_later_keeps_its_temperature(tmp_path: Path, temperature: float | None) -> None:
    dataset = Dataset.open(write_many(tmp_path / "data"))
    subject = Subject("many", "val", "model", "last")
    task = Scoring(dataset, subject, Strict(dataset.classes), Tiling(SIDE, 0), temperature)
    entry = task.entry(first_class, lambda: None)
    assert entry["calibration"]["temperature"] == temperature
    assert (entry["calibration"]["ece_tempered"] is None) == (temperature is None)


def test_a_split_without_truth_is_predicted_by_a_run_and_refused_by_score(tmp_path: Path) -> None:
    data = write_many(tmp_path / "data", truth=False)
    lab = lab_at(tmp_path / "run", data)
    step = lab.score(lab.fit("a", partial(Toy)), "test")
    assert set(step.notes["entry"]) >= {"tags", "n_images"}
    assert not {"confusion", "boundary", "calibration"} & set(step.notes["entry"])
    assert not (step.folder / "counts.npz").exists()
    assert len(list(step.folder.glob("*.png"))) == 20

    def never(tiles: torch.Tensor) -> torch.Tensor:
        raise AssertionError("predicted before the masks were found to be missing")

    dataset = Dataset.open(data)
    task = Scoring(dataset, Subject("many", "test", "a", "last"), Strict(dataset.classes), Tiling(SIDE, 0), None)
    with pytest.raises(EosinError, match="split 'test' has no masks"):
        task.entry(never, lambda: None)


class Seeing(Strict):
    name, uses_truth = "seeing", True

    def prepare(self, probabilities: Any, truth: Any = None) -> torch.Tensor:
        assert truth is not None
        return torch.as_tensor(np.where(truth == self.classes.ignore, 0, truth), dtype=torch.uint8)


class Blind(Strict):
    name = "blind"

    def prepare(self, probabilities: Any, truth: Any = None) -> torch.Tensor:
        assert truth is None
        return super().prepare(probabilities)


@pytest.mark.parametrize("protocol", [Seeing, Blind])
def test_only_protocols_that_say_so_get_the_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: type[Strict]
) -> None:
    monkeypatch.setitem(PROTOCOLS, protocol.name, protocol)
    lab = lab_at(tmp_path / "run", write_many(tmp_path / "data"), protocol.name)
    entry = lab.score(lab.fit("a", partial(Toy)), "test").notes["entry"]
    assert entry["uses_truth"] is protocol.uses_truth
    assert (entry["miou"] == 1) is protocol.uses_truth


def test_training_items_are_never_predicted_for_a_weak_method(tmp_path: Path) -> None:
    lab = lab_at(tmp_path / "run", write_many(tmp_path / "data"))
    first = lab.fit("a", partial(Toy))
    with pytest.raises(EosinError, match="training masks; that is refused"):
        lab.score(first, "train")
    lab.label("drawn", first, RULE)
    for split in ("val", "test"):
        lab.score(first, split)
        lab.illustrate(first, split)
    assert not list((tmp_path / "run" / "predictions").rglob("train*"))


def test_a_score_that_is_redone_is_redone_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, run = write_many(tmp_path / "data"), tmp_path / "run"

    def work(again: frozenset[str] = frozenset()) -> None:
        lab = lab_at(run, data, again=again)
        first = lab.fit("a", partial(Toy))
        lab.label("drawn", first, RULE)
        for split in ("val", "test"):
            lab.score(first, split)
            lab.illustrate(first, split)

    work()
    written = []
    write = Scoring.write

    def counted(self: Scoring, *rest: Any) -> Any:
        written.append(self.subject.split)
        return write(self, *rest)

    monkeypatch.setattr(Scoring, "write", counted)
    work()
    assert written == []
    work(frozenset({"score-a-val"}))
    assert written == ["val", "test"]  # the test split by the temperature of the validation split


def shown_by_report(run: Path, dataset: Dataset, entries: list[dict[str, Any]], kind: str) -> set[str]:
    """The items whose masks of a step stand in the report's gallery."""
    said = {"name": dataset.name, "digest": dataset.digest, "folder": str(dataset.folder)}
    write_json(run / "scores.json", entries)
    write_json(run / "provenance.json", {"final": "b", "dataset": said, "method": "toy"})
    (run / "recipe.yaml").write_text("method: toy\n")
    return set(re.findall(rf'alt="{kind} of (\w+):', str(predictions(read_run(run)))))


@pytest.mark.parametrize("more", [0, 9])
@pytest.mark.parametrize(
    ("protocol", "change"),
    [
        ("strict", {}),
        ("strict", {"truth": False}),
        ("strict", {"test": 5}),
        ("tissue-drop", {"ignore": 2}),
        ("tissue-fp", {"ignore": 2}),
        ("tissue-fp-tags", {"ignore": 2}),
        ("mil-patch", {}),
    ],
    ids=str,
)
def test_masks_of_label_steps_are_drawn_for_what_the_report_shows(
    tmp_path: Path, protocol: str, change: dict[str, Any], more: int
) -> None:
    run, data = tmp_path / "run", write_many(tmp_path / "data", **change)
    lab = lab_at(run, data, protocol)
    first = lab.fit("a", partial(Toy))
    masks = lab.label("drawn", first, RULE)
    for k in range(more):  # steps whose maps stand in the gallery too, so that fewer items have room
        lab.score(lab.keep(f"kept{k}", partial(Toy)), "test")
    final = lab.fit("b", partial(Toy, mask="drawn"), masks={"drawn": masks})
    lab.score(first, "test")
    lab.score(final, "test")
    lab.illustrate(final, "test")
    drawn = {path.stem for path in (run / "predictions" / "drawn" / "test").glob("*.png")}
    shown = shown_by_report(run, Dataset.open(data), lab.scores(), r"Pseudo mask \(drawn\)")
    assert drawn == shown
    count = 5 - 1 if change.get("test") else 12 if not more else 96 // (more + 5)
    assert len(drawn) == count
    assert shown == shown_by_report(run, Dataset.open(data), lab.scores(), "Prediction")
    items = Dataset.open(data).items("test")
    for name in drawn:  # by the tags: red alone where blue is known to be absent
        mask = np.asarray(Image.open(run / "predictions" / "drawn" / "test" / f"{name}.png"))
        if items.tags[items.ids == name][0, 1] == 0:
            assert set(np.unique(mask)) <= {0, 255}


def test_nothing_scores_the_masks_of_label_steps(tmp_path: Path) -> None:
    lab = lab_at(tmp_path / "run", write_many(tmp_path / "data"))
    first = lab.fit("a", partial(Toy))
    lab.label("drawn", first, RULE)
    lab.illustrate(first, "test")
    assert {entry["step"] for entry in lab.scores()} == {"a"}
    record = json.loads((tmp_path / "run" / "predictions" / "drawn" / "test" / "step.json").read_text())
    assert "entry" not in record["notes"]


@pytest.mark.parametrize(("columns", "count"), [(1, 12), (6, 12), (7, 10), (30, 3), (200, 2)])
def test_as_many_items_are_worth_a_look_as_have_room(tmp_path: Path, columns: int, count: int) -> None:
    items = Dataset.open(write_many(tmp_path / "data")).items("test")
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, (20, 2, 2))
    counts[3] = 0  # nothing is known of it
    counts[5] = [[0, 9], [9, 0]]
    counts[6] = [[9, 0], [0, 9]]
    np.savez(tmp_path / "counts.npz", ids=items.ids, patients=items.patients, counts=counts)
    shown = worth_a_look(tmp_path, items, columns).ids.tolist()
    assert len(shown) == count
    assert "test_3" not in shown
    assert {"test_5", "test_6"} <= set(shown)  # the worst and the best
    assert shown == [str(name) for name in items.ids if name in shown]
