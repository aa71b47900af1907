"""One vector per training item: the reader is asked for every image, in the order of the items, beside its tags."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.toys import Toy, recipe, write_toys
from eosin.core.artifact import Vectors
from eosin.core.errors import Stale
from eosin.core.progress import Silent
from eosin.data.dataset import Dataset
from eosin.engine.lab import EngineLab
from eosin.engine.weights import without_weights
from eosin.engine.workplace import Workplace
from eosin.slides.image import read_rgb


class Colour(nn.Module):
    """The mean colour of an image, times a factor."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, image: Tensor) -> Tensor:
        return self.factor * image.mean((2, 3))


class Answers(nn.Module):
    """What a learner says of an image, on average."""

    def __init__(self, learner: Toy) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, image: Tensor) -> Tensor:
        assert not self.training and not torch.is_grad_enabled()
        return self.learner.predict(image).mean((2, 3))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toys(tmp_path_factory.mktemp("toys"))


def lab_at(run: Path, data: Path) -> EngineLab:
    run.mkdir(exist_ok=True)
    return EngineLab(Workplace(run, Dataset.open(data), recipe(epochs=1), "tags", Silent()))


def test_each_item_has_its_vector_and_its_tags(tmp_path: Path, data: Path) -> None:
    lab = lab_at(tmp_path / "run", data)
    made = lab.describe("vectors", partial(Colour))
    kept = load_file(made.folder / Vectors.FILE)
    items = Dataset.open(data).items("train")
    expected = np.stack([read_rgb(items.path(i)).mean((0, 1)) / 255 for i in range(len(items))])
    np.testing.assert_allclose(kept["vectors"].numpy(), expected, atol=1e-5)
    np.testing.assert_array_equal(kept["tags"].numpy(), items.tags)


def test_with_a_source_the_reader_is_given_its_learner(tmp_path: Path, data: Path) -> None:
    lab = lab_at(tmp_path / "run", data)
    source = lab.fit("toy", partial(Toy))
    vectors = load_file(lab.describe("vectors", partial(Answers), source).folder / Vectors.FILE)["vectors"]
    torch.testing.assert_close(vectors.sum(1), torch.ones(len(vectors)))


def test_it_is_made_once_and_another_reader_makes_it_stale(tmp_path: Path, data: Path) -> None:
    first = lab_at(tmp_path / "run", data).describe("vectors", partial(Colour))
    assert lab_at(tmp_path / "run", data).describe("vectors", partial(Colour)) == first
    with pytest.raises(Stale, match=r"factor: 1\.0 -> 2\.0"):
        lab_at(tmp_path / "run", data).describe("vectors", partial(Colour, 2.0))


def test_the_same_vectors_have_the_same_bytes(tmp_path: Path, data: Path) -> None:
    made = [lab_at(tmp_path / name, data).describe("vectors", partial(Colour)) for name in ("a", "b")]
    assert made[0].digest == made[1].digest


def test_weights_within_mappings_and_sequences_are_not_read_again_either() -> None:
    build = partial(Holder, terms={"a": (0.1, partial(Guided, pretrained="imagenet"))}, many=[partial(Guided, "w.pth")])
    terms, many = (without_weights(build).keywords[key] for key in ("terms", "many"))
    assert terms["a"][0] == 0.1 and terms["a"][1].keywords == {"pretrained": "none"}
    assert many[0].keywords == {"pretrained": "none"}


class Guided:
    """Something with weights."""

    def __init__(self, pretrained: str = "none") -> None: ...


class Holder:
    """Something that holds others."""

    def __init__(self, terms: object = None, many: object = None) -> None: ...
