"""What WSInfer and QuPath make of an exported tag classifier are the probabilities of its tags."""

from __future__ import annotations

import io
import json
import re
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from eosin.core.classes import Classes, Tissue
from eosin.core.errors import EosinError, WrongUse
from eosin.core.learner import Learner
from eosin.core.values import Batch, Clock
from eosin.engine.export import TagOdds, tag_probabilities, tissue
from eosin.predictor import parity as measuring
from eosin.predictor.export import export_wsinfer
from eosin.predictor.formats.wsinfer import places
from eosin.predictor.spec import Card, Export
from small_model import CLASSES, TILE, card, model_folder


class Tagger(Learner):
    """Tags that are independent of each other, from sure to unsure; ``sure`` drives them to 0 and 1 exactly."""

    def __init__(self, sure: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, len(CLASSES))
        self.sure = sure

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        raise NotImplementedError

    def predict(self, image: Tensor) -> Tensor:
        raise NotImplementedError

    def tag_scores(self, image: Tensor) -> Tensor:
        # Sizes as Python numbers, which a plain trace would get wrong.
        half = [max(1, round(side * 0.5)) for side in image.shape[-2:]]
        small = nn.functional.interpolate(image, size=half, mode="bilinear", antialias=True)
        return (self.sure * 8 * self.head(self.net(small).mean((2, 3)))).sigmoid()


def exported(model: Path, target: Path, learner: Learner) -> Export:
    odds = [TagOdds(learner, tag) for tag in range(len(Card.read(model).classes))]
    return export_wsinfer(model, target, odds, tag_probabilities(learner), tissue(TILE), "classifier")


@pytest.fixture(scope="module")
def made(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "sent"
    exported(plain, folder, Tagger().eval())
    return folder


def as_wsinfer_does(folder: Path, tiles: Tensor) -> np.ndarray:
    """Its steps by hand: the transform of config.json on a PIL image, the model, a softmax over all outputs."""
    config = json.loads((folder / "config.json").read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.jit.load(folder / "torchscript_model.pt", map_location="cpu").eval()
    batch = []
    for tile in tiles.numpy():
        image: Any = Image.fromarray(tile)
        for step in config["transform"]:
            if step["name"] == "Resize":
                image = image.resize((step["arguments"]["size"],) * 2, Image.Resampling.BILINEAR)
            elif step["name"] == "ToTensor":
                image = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)
        batch.append(image)
    with torch.no_grad():
        logits = model(torch.stack(batch))
    assert logits.shape == (len(tiles), config["num_classes"])  # with one output, QuPath would always answer 1
    return torch.nn.functional.softmax(logits, dim=1).numpy()


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_its_softmax_gives_the_probability_of_each_tag(made: Path, batch: int) -> None:
    tiles = tissue(TILE, batch)
    with torch.no_grad():
        expected = Tagger().eval().tag_scores(tiles.permute(0, 3, 1, 2).float() / 255).numpy()
    assert expected.std() > 0.1 and abs(expected.sum(1) - 1).min() > 0.05, "these tags would not tell"
    for tag, name in enumerate(("tumour", "stroma", "white-background")):
        found = as_wsinfer_does(made / "wsinfer" / name, tiles)
        np.testing.assert_allclose(found[:, 1], expected[:, tag], atol=1e-6)
        np.testing.assert_allclose(found[:, 0], 1 - expected[:, tag], atol=1e-6)


@pytest.mark.parametrize("sure", [1.0, 1e4])
def test_log_odds_are_exact_also_where_a_tag_is_certain(sure: float) -> None:
    learner, image = Tagger(sure).eval(), torch.rand(6, 3, TILE, TILE)
    with torch.no_grad():
        scores = learner.tag_scores(image)
        for tag in range(len(CLASSES)):
            odds = TagOdds(learner, tag)(image)
            assert odds.isfinite().all()
            torch.testing.assert_close(odds.softmax(1)[:, 1], scores[:, tag], atol=1e-6, rtol=0)
    assert sure == 1.0 or {0.0, 1.0} <= set(scores.flatten().tolist())


def test_config_is_as_the_model_zoo_wants_it(made: Path) -> None:
    """By its schema 1.0: these keys, of these types, and no other transforms than these."""
    config = json.loads((made / "wsinfer" / "tumour" / "config.json").read_text())
    assert config["spec_version"] == "1.0"
    assert config["class_names"] == ["no tumour", "tumour"] and config["num_classes"] == 2
    assert (config["patch_size_pixels"], config["spacing_um_px"]) == (TILE, 0.5)
    assert isinstance(config["architecture"], str)
    for step in config["transform"]:
        assert step["name"] in ("Resize", "ToTensor", "Normalize") and set(step) <= {"name", "arguments"}
    assert config["licences"] == ["CC0-1.0"] and config["use"] == "research use only"


def test_the_card_lists_files_agreement_and_step(made: Path, plain: Path) -> None:
    export = Card.read(made).exports["wsinfer"]
    assert export.made_with == "classifier"
    assert len(export.files) == 2 * len(CLASSES)
    assert all((made / name).is_file() for name in export.files)
    assert export.parity.max_difference <= 1e-4 and export.parity.argmax_agreement >= 0.999
    assert Card.read(made).digest == Card.read(plain).digest


def test_other_classes_leave_no_files_of_the_old_ones(plain: Path, tmp_path: Path) -> None:
    target = shutil.copytree(plain, tmp_path / "model")
    (target / "wsinfer" / "fat").mkdir(parents=True)
    exported(target, target, Tagger().eval())
    assert sorted(p.name for p in (target / "wsinfer").iterdir()) == ["stroma", "tumour", "white-background"]


def test_a_classifier_that_differs_leaves_nothing(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "MOST_DIFFERENCE", -1.0)
    with pytest.raises(EosinError, match="as wsinfer the model differs"):
        exported(plain, tmp_path / "sent", Tagger().eval())
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_the_size_of_a_pixel_is_refused(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model", mpp=None)
    with pytest.raises(WrongUse, match="size of a pixel"):
        exported(model, tmp_path / "sent", Tagger().eval())
    assert list(tmp_path.iterdir()) == [model]


def test_tags_of_like_names_get_folders_of_their_own() -> None:
    names = ("Fat deep", "fat-deep", "Ωμ", "fat")
    tissues = tuple(Tissue(name=name, colour=(i, 0, 0)) for i, name in enumerate(names))
    assert places(card(classes=Classes(tissues=tissues))) == [
        "wsinfer/fat-deep.0",
        "wsinfer/fat-deep.1",
        "wsinfer/tag",
        "wsinfer/fat",
    ]


def test_torchscript_tells_nothing_of_the_machine_that_made_it(made: Path) -> None:
    data = (made / "wsinfer" / "tumour" / "torchscript_model.pt").read_bytes()
    names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    assert any(name.endswith("data.pkl") for name in names) and not any("debug" in name for name in names)
    assert str(Path(__file__).parent).encode() not in data and b"site-packages" not in data


def test_nobody_is_told_that_torchscript_is_old(plain: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exported(plain, tmp_path / "sent", Tagger().eval())
    assert capfd.readouterr() == ("", "")


def test_torchscript_is_known_in_one_file() -> None:
    source = Path(__file__).parents[2] / "src" / "eosin"
    knowing = [p.name for p in source.rglob("*.py") if re.search(r"torch\.jit|TorchScript", p.read_text())]
    assert set(knowing) - {"archive.py", "export.py"} == {"wsinfer.py"}
