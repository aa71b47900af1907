"""What a learner shows of its inside: kept for a few items as it offered it, drawn by a report that knows no method."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from engine.test_scoring import lab_at, shown_by_report, write_many
from engine.toys import SIDE, Toy
from eosin.core.artifact import read_json
from eosin.core.lab import Trained
from eosin.data.dataset import Dataset
from eosin.data.phantom import PhantomSpec, draw_dataset
from eosin.engine.evaluate import Tiling
from eosin.engine.lab import EngineLab
from eosin.engine.views import has_views, worth_a_view
from eosin.engine.weights import load
from eosin.parts.segmenters import Segmenter
from eosin.report.gallery import predictions
from eosin.report.reading import read_run
from eosin.report.views import views
from eosin.slides.image import read_rgb
from eosin.verbs import train
from patches import noise, write_items


class Open(Toy):
    """A toy that shows its logits at half the size, its guess, and how red an image is."""

    def views(self, image: Tensor) -> dict[str, Tensor]:
        logits = self.head(image)
        guess = logits.argmax(1)
        guess[:, 0] = 255
        return {
            "logits": functional.avg_pool2d(logits, 2),
            "guess": guess,
            "redness": image[:, :1],
            "is red": image[:, 0] > 0.5,
        }


class Wrong(Toy):
    """A toy that offers what it is told to."""

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.shape = shape

    def views(self, image: Tensor) -> dict[str, Tensor]:
        return {"odd": image.new_zeros(len(image), *self.shape)}


class Silent(Toy):
    """A toy that could show something and has nothing to show."""

    def views(self, image: Tensor) -> dict[str, Tensor]:
        return {}


def made(run: Path, data: Path, kind: type[Toy] = Open, **more: Any) -> tuple[EngineLab, Trained]:
    lab = lab_at(run, data)
    trained = lab.fit("b", partial(kind, **more))
    for split in ("val", "test"):
        lab.score(trained, split)
        lab.view(trained, split)
    return lab, trained


def kept(run: Path, split: str = "test") -> dict[str, dict[str, np.ndarray]]:
    return {path.stem: dict(np.load(path)) for path in sorted((run / "views" / "b" / split).glob("*.npz"))}


def test_the_views_of_a_few_items_are_kept(tmp_path: Path) -> None:
    run, data = tmp_path / "run", write_many(tmp_path / "data")
    _, trained = made(run, data)
    found, learner = kept(run), load(partial(Open), trained)
    items = Dataset.open(data).items("test")
    assert list(found) == sorted(worth_a_view(items).ids.tolist())
    assert len(found) == len(kept(run, "val")) == 3
    for name, maps in found.items():
        assert list(maps) == ["logits", "guess", "redness", "is red"]
        image = torch.from_numpy(read_rgb(items.path(items.ids.tolist().index(name)))).permute(2, 0, 1)[None] / 255
        with torch.inference_mode():
            offered = learner.views(image)
        whole = functional.interpolate(offered["logits"], (SIDE, SIDE), mode="bilinear", align_corners=False)[0]
        np.testing.assert_allclose(maps["logits"], whole.numpy(), atol=5e-3)
        np.testing.assert_array_equal(maps["guess"], offered["guess"][0].numpy())
        np.testing.assert_allclose(maps["redness"], offered["redness"][0].numpy(), atol=5e-4)
        np.testing.assert_array_equal(maps["is red"], offered["is red"].numpy())
        assert (maps["guess"].dtype, maps["logits"].dtype) == (np.uint8, np.float16)
    record = read_json(run / "views" / "b" / "test" / "step.json")
    assert record["name"] == "view-b-test" and record["notes"]["views"] == ["logits", "guess", "redness", "is red"]
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.npz")}
    made(run, data)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.npz")} == before


@pytest.mark.parametrize(
    ("tags", "shown"),
    [
        ([[1, 0], [1, 1], [0, 1], [1, 1], [1, 1], [1, 1], [1, 1]], [1, 4, 6]),
        ([[1, 0], [1, 1], [np.nan, np.nan], [0, 1]], [0, 1, 3]),
        ([[np.nan, np.nan]] * 5, [0, 2, 4]),
        ([[1, 0], [0, 1]], [0, 1]),
    ],
)
def test_the_items_of_the_most_tissues_are_worth_a_view(tmp_path: Path, tags: list, shown: list[int]) -> None:
    items = write_items(tmp_path, [noise(2, 2)] * len(tags), tags)
    assert worth_a_view(items).ids.tolist() == items.ids[shown].tolist()


def test_large_images_are_viewed_in_tiles_and_kept_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eosin.engine.views.SIDE", 8)
    monkeypatch.setattr(EngineLab, "tiling", Tiling(12, 2))
    seen = []
    views_of = Open.views

    def counted(self: Open, image: Tensor) -> dict[str, Tensor]:
        seen.append(tuple(image.shape[2:]))
        return views_of(self, image)

    monkeypatch.setattr(Open, "views", counted)
    run = tmp_path / "run"
    made(run, write_many(tmp_path / "data"))
    assert set(seen) == {(12, 12)}
    for maps in kept(run).values():
        assert [maps[name].shape for name in ("logits", "guess", "redness")] == [(2, 8, 8), (8, 8), (1, 8, 8)]
        assert (maps["guess"][0] == 255).all() and (maps["guess"][1:4] < 2).all()


def test_learners_without_views_leave_nothing_behind(tmp_path: Path) -> None:
    data = write_many(tmp_path / "data")
    made(tmp_path / "toy", data, Toy)
    assert not (tmp_path / "toy" / "views").exists()
    assert not has_views(partial(Toy)) and has_views(partial(Open)) and not has_views(partial(dict))
    made(tmp_path / "silent", data, Silent)
    assert not list((tmp_path / "silent").rglob("views/**/*.npz"))
    lab, _ = made(tmp_path / "silent", data, Silent)
    shown_by_report(tmp_path / "silent", Dataset.open(data), lab.scores(), "Image")
    assert views(read_run(tmp_path / "silent")) == []


@pytest.mark.parametrize("shape", [(), (SIDE,), (3, 4, 4), (2, 2, 4, 4)], ids=str)
def test_a_view_of_another_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"view 'odd' of Wrong: .*, not \[\d+, 2 or 1, h, w\]"):
        made(tmp_path / "run", write_many(tmp_path / "data"), Wrong, shape=shape)
    assert not list((tmp_path / "run").rglob("views/**/*.npz"))


def test_the_report_shows_the_kept_items_beside_what_was_predicted(tmp_path: Path) -> None:
    run, data = tmp_path / "run", write_many(tmp_path / "data")
    lab, _ = made(run, data)
    shown_by_report(run, Dataset.open(data), lab.scores(), "Image")  # writes what a report reads
    record = read_run(run)
    ((step, page),) = views(record)
    assert step == "b"
    for name in kept(run):
        for what in (f'Image {name}"', f"Truth of {name}:", f"Prediction of {name}:", f'View guess of {name}"'):
            assert page.count(f'alt="{what}') == 1, what
        for tissue in ("red", "blue"):
            assert page.count(f'alt="View logits: {tissue} of {name}: from ') == 1
        assert page.count(f'alt="View redness of {name}: from ') == 1
    assert page.count("<article") == 3
    assert "View" not in predictions(record)


def test_a_whole_run_keeps_the_views_of_its_learners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Segmenter, "views", lambda self, image: {"sure": self.predict(image).amax(1, keepdim=True)})
    draw_dataset(tmp_path / "data", PhantomSpec(patches=8, val=2, test=2, large=0, size=32, patients=6))
    options = ["options.seg_depth=3", "options.seg_width=4", "options.seg_scale=0.5"]
    fit = ["fit.segmenter.epochs=1", "fit.batch=8", "fit.precision=fp32", "fit.augment={crop: 32}"]
    out = train.run("supervised-phantom", tmp_path / "data", tmp_path / "run", [*options, *fit])
    assert {path.parent.name for path in out.glob("views/segmenter/*/*.npz")} == {"val", "test"}
    assert 'id="views-0"' in (out / "report.html").read_text()
    assert "view-segmenter-test" not in (out / "scores.json").read_text()
