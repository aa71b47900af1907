"""Settings of a fit that change how a step is computed, and less data or other weights to begin with."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from engine.toys import Toy, recipe, write_toys
from eosin.core.errors import EosinError, WrongUse
from eosin.core.progress import Silent
from eosin.core.values import Batch, Clock
from eosin.data.dataset import Dataset
from eosin.data.fraction import fraction_of
from eosin.data.phantom import CLASSES
from eosin.engine.device import open_device
from eosin.engine.lab import EngineLab
from eosin.engine.workplace import Start, Workplace
from eosin.parts.cams import Averaged
from eosin.parts.pseudo import TagGatedArgmax
from eosin.recipe import Recipe

RULE = partial(TagGatedArgmax, maker=partial(Averaged))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_toys(tmp_path / "data")


def lab_at(run: Path, data: Path, made: Recipe | None = None, **more: Any) -> EngineLab:
    return EngineLab(Workplace(run, Dataset.open(data), made or recipe(), "tags", Silent(), **more))


def weights(lab: EngineLab, build: partial[Any] | None = None) -> dict[str, torch.Tensor]:
    return load_file(lab.fit("a", build or partial(Toy)).folder / "weights.safetensors")


def close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], atol: float) -> bool:
    return all(torch.allclose(found[name], expected[name], rtol=0, atol=atol) for name in expected)


class Counting(Toy):
    """Remembers the sizes of what went through it."""

    seen: list[int] = []  # noqa: RUF012 - of all its instances

    def losses(self, batch: Batch, clock: Clock) -> dict[str, torch.Tensor]:
        self.seen.append(len(batch))
        return super().losses(batch, clock)


def test_parts_of_a_batch_add_up_to_its_gradient(tmp_path: Path, data: Path) -> None:
    made = {"batch": 12, "optimizer": "sgd", "epochs": 3, "select": "last"}
    whole = weights(lab_at(tmp_path / "whole", data, recipe(**made)))
    Counting.seen.clear()
    parts = weights(lab_at(tmp_path / "parts", data, recipe(accumulate=5, **made)), partial(Counting))
    assert Counting.seen == [2, 2, 3, 2, 3] * 3
    assert close(parts, whole, 1e-6) and not close(parts, weights(lab_at(tmp_path / "0", data, recipe(epochs=1))), 1e-3)
    lines = [[json.loads(t) for t in (tmp_path / r / "journal.jsonl").open()] for r in ("whole", "parts")]
    for a, b in zip(*lines, strict=True):
        assert a["losses"] == pytest.approx(b["losses"], abs=1e-6)


def test_no_part_has_a_single_image() -> None:
    batch = Batch(
        torch.zeros(5, 3, 2, 2), torch.arange(5.0)[:, None], {"m": torch.arange(5)[:, None, None]}, tuple("abcde")
    )
    assert [part.ids for part in batch.parts(9)] == [("a", "b"), ("c", "d", "e")]
    assert [part.masks["m"].flatten().tolist() for part in batch.parts(2)] == [[0, 1], [2, 3, 4]]
    assert torch.equal(torch.cat([part.tags for part in batch.parts(2)]), batch.tags)
    assert batch.parts(1) == [batch] and len(batch) == 5


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_the_same_and_losses_stay_float32(tmp_path: Path, data: Path, precision: str) -> None:
    kept: list[torch.dtype] = []

    class Watched(Toy):
        def losses(self, batch: Batch, clock: Clock) -> dict[str, torch.Tensor]:
            kept.append(self.head(batch.image).dtype)
            losses = super().losses(batch, clock)
            assert all(value.dtype == torch.float32 for value in losses.values())
            return losses

    Watched.__module__, Watched.__qualname__ = __name__, "Toy"
    full = weights(lab_at(tmp_path / "full", data, recipe(epochs=4)))
    half = weights(lab_at(tmp_path / "half", data, recipe(epochs=4, precision=precision)), partial(Watched))
    assert set(kept) == {torch.bfloat16 if precision == "bf16" else torch.float16}
    assert close(half, full, 0.03) and not close(half, full, 1e-7)
    notes = json.loads((tmp_path / "half" / "steps" / "a" / "step.json").read_text())["notes"]
    assert notes["precision"] == precision and notes["processes"] == 1


class Own(torch.nn.Module):
    """A network of one's own; torch leaves those of its library as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Conv2d(3, 2, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.net(image))


class Composed(Toy):
    """A toy whose head is a network of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.head = Own()  # type: ignore[assignment]


class Several(Toy):
    """A toy with a list of networks, as peers are."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = torch.nn.ModuleList([Own(), Own()])

    def predict(self, image: torch.Tensor) -> torch.Tensor:
        return torch.stack([net(image) for net in self.nets]).mean(0).softmax(1)


def test_each_network_of_a_list_is_compiled() -> None:
    learner = Several()
    open_device("fp32").prepare(learner, compiled=True)
    assert all(net._compiled_call_impl is not None for net in learner.nets)


def test_compiled_networks_have_the_same_weights_and_names(tmp_path: Path, data: Path) -> None:
    import torch._dynamo

    build = partial(Composed)
    plain = weights(lab_at(tmp_path / "plain", data, recipe(ema=0.5)), build)
    torch._dynamo.utils.counters.clear()
    compiled = weights(lab_at(tmp_path / "compiled", data, recipe(ema=0.5, compile=True)), build)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    assert compiled.keys() == plain.keys() and close(compiled, plain, 1e-4)


def test_a_run_begins_with_the_weights_of_another(tmp_path: Path, data: Path) -> None:
    first = lab_at(tmp_path / "first", data)
    kept = first.fit("a", partial(Toy))
    first.score(kept, "test")
    first.export("export", kept)
    start = Start.of(tmp_path / "first")
    still = recipe(epochs=1, lr=1e-12, weight_decay=0)
    second = lab_at(tmp_path / "second", data, still, start=start)
    begun = second.fit("a", partial(Toy))
    assert close(weights(second), load_file(kept.folder / "weights.safetensors"), 1e-8)
    assert json.loads((begun.folder / "step.json").read_text())["inputs"] == ["start"]
    second.export("export", begun)
    card = json.loads((tmp_path / "second" / "model" / "card.json").read_text())
    assert card["licences"] == ["data toys: CC0", "began with weights of data toys: CC0"]
    with pytest.raises(WrongUse, match=r"--start .*first: has no trained step 'b' \(known: a\)"):
        second.fit("b", partial(Toy))
    with pytest.raises(
        EosinError, match=r"weights of another network: 2 of 2 entries do not fit \(head.bias, head.weight\)"
    ):
        lab_at(tmp_path / "third", data, still, start=start).fit("a", partial(Toy, classes=3))
    with pytest.raises(WrongUse, match="not a finished run"):
        Start.of(tmp_path / "data")
    with pytest.raises(WrongUse, match="a run cannot begin with itself"):
        start.check(tmp_path / "first", first.classes, ["a"])
    with pytest.raises(WrongUse, match="its tissues are red, blue, these data"):
        start.check(tmp_path / "x", CLASSES, ["a"])
    with pytest.raises(WrongUse, match="has no trained step 'b'"):
        start.check(tmp_path / "x", first.classes, ["a", "b"])
    start.check(tmp_path / "x", first.classes, ["a"])


def test_a_fraction_trains_on_its_items_alone(tmp_path: Path, data: Path) -> None:
    Counting.seen.clear()
    part = fraction_of(Dataset.open(data), 0.3, 0)
    lab = EngineLab(Workplace(tmp_path / "run", part, recipe(batch=4, epochs=2), "tags", Silent()))
    trained = lab.fit("a", partial(Counting))
    assert sum(Counting.seen) == 2 * 4 and len(list(lab.label("drawn", trained, RULE).folder.iterdir())) == 4
    record = json.loads((trained.folder / "step.json").read_text())
    assert record["form"]["data"].startswith("0.3 by seed 0 of ")


def test_a_class_that_was_never_taught_is_drawn_nowhere(tmp_path: Path) -> None:
    data = write_toys(tmp_path / "data")
    lines = (data / "items.csv").read_text().splitlines()
    blind = [",".join([*line.split(",")[:-1], ""]) if ",train," in line else line for line in lines]
    (data / "items.csv").write_text("\n".join(blind) + "\n")  # blue is unknown on every training item
    lab = lab_at(tmp_path / "run", data)
    assert lab.tag_counts == ((8, 4), (0, 0))
    masks = lab.label("drawn", lab.fit("a", partial(Careful)), RULE)
    found = {int(v) for i in range(12) for v in np.unique(np.asarray(Image.open(masks.path(f"train_{i}"))))}
    assert found <= {0, 255}


class Careful(Toy):
    """A toy that leaves unknown tags out."""

    def losses(self, batch: Batch, clock: Clock) -> dict[str, torch.Tensor]:
        known = ~batch.tags.isnan()
        scores = self.head(batch.image).float().mean((2, 3))
        return {"tags": torch.nn.functional.binary_cross_entropy_with_logits(scores[known], batch.tags[known])}
