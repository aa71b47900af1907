"""What the card says of training tiles is measured on the middle of a bounded number of training images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.toys import write_toys
from eosin.data.dataset import Dataset, Items
from eosin.engine import export
from eosin.engine.export import training_domain
from eosin.predictor.domain import domain_of, measure
from eosin.slides.image import read_rgb


@pytest.fixture
def items(tmp_path: Path) -> Items:
    found = Dataset.open(write_toys(tmp_path / "data")).items("train")
    rng = np.random.default_rng(0)
    for index in range(len(found)):
        pixels = rng.integers(10 * index, 200, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(found.path(index))
    return found


def test_the_middle_of_every_image_is_measured(items: Items) -> None:
    middles = [read_rgb(items.path(index))[5:15, 10:20] for index in range(len(items))]
    assert training_domain(items, 10, 0.5) == domain_of(measure(np.stack(middles)), 0.5)
    whole = [read_rgb(items.path(index)) for index in range(len(items))]
    assert training_domain(items, 64, None) == domain_of(measure(np.stack(whole)), None)


def test_no_more_images_are_read_than_it_takes(items: Items, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MEASURED", 3)
    read: list[Path] = []
    monkeypatch.setattr(export, "read_rgb", lambda path: read.append(path) or read_rgb(path))
    found = training_domain(items, 10, 0.5)
    assert found is not None and found.tiles == 3
    assert read == [items.path(0), items.path(6), items.path(11)]


def test_images_of_glass_have_no_domain(items: Items) -> None:
    for index in range(len(items)):
        Image.new("RGB", (20, 20), (250, 250, 250)).save(items.path(index))
    assert training_domain(items, 10, 0.5) is None
