"""TPRO: maps by likeness at several stages, texts of a user or learnt ones, and knowledge tokens."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from eosin.core.errors import EosinError, WrongUse
from eosin.core.values import Batch, Clock
from eosin.methods.tpro import ShownMaps, TextPrompted, Texts, Tpro
from eosin.parts.losses.soft_margin import SoftMargin
from eosin.parts.pseudo import RefinedArgmax
from eosin.parts.refine import WhitePixels
from eosin.parts.segmenters import SegFormer
from methods.fake_lab import FakeLab

NAN = float("nan")
TAGS = torch.tensor([[1.0, 0, 1], [0, 1, NAN]])
CLOCK = Clock(0, 0, 10, 10)
SMALL: dict[str, Any] = {"encoder": "mit_b0", "width": 16, "seg_net": "unet", "seg_encoder": "resnet18"}


def plan(**options: Any) -> FakeLab:
    lab = FakeLab()
    assert Tpro(**options).plan(lab).name == "segmenter"  # type: ignore[arg-type]
    return lab


def built(**options: Any) -> TextPrompted:
    torch.manual_seed(0)
    learner: TextPrompted = plan(**{**SMALL, **options}).call("classifier").build()
    return learner


def images(side: int = 64) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_file({"labels": torch.randn(3, 10), "knowledge": torch.randn(4, 7)}, tmp_path / "texts.safetensors")
    return tmp_path / "texts.safetensors"


def test_it_fits_labels_and_fits() -> None:
    lab = plan()
    kinds = [(call.kind, call.name) for call in lab.calls]
    assert kinds == [("fit", "classifier"), ("label", "pseudo"), ("fit", "segmenter")]
    rule = lab.call("pseudo").build()
    assert isinstance(rule, RefinedArgmax) and isinstance(rule.source, ShownMaps) and rule.steps == []
    assert lab.call("segmenter").build.keywords["net"].args[1] == "mit_b3"
    assert isinstance(plan(seg_encoder="mit_b0").call("segmenter").build().net, SegFormer)
    (glass,) = plan(white=200).call("pseudo").build().steps
    assert isinstance(glass, WhitePixels) and (glass.above, glass.size) == (200, 80)


@torch.no_grad()
def test_maps_are_products_with_class_vectors_of_each_stage() -> None:
    learner = built().eval()
    stages = learner.stages(images())
    assert [tuple(maps.shape) for maps in stages] == [(2, 3, side, side) for side in (8, 4, 4)]
    taps = learner.encoder(learner.normalise(images()))
    for head, tap, maps in zip(learner.heads, taps, stages, strict=True):
        first, _, second = head.project
        vector = second(F.relu(first(learner.labels[1, 0])))
        pixel = tap[0, :, 1, 2]
        torch.testing.assert_close(maps[0, 1, 1, 2], pixel @ vector / pixel.norm() / 0.07)


def test_the_loss_is_the_weighted_sum_over_stages() -> None:
    learner = built().eval()
    found = learner(Batch(images(), TAGS), CLOCK)
    each = [SoftMargin()(maps.mean((2, 3)), TAGS) for maps in learner.stages(images())]
    torch.testing.assert_close(found["tags"], 0.1 * each[0] + each[1] + each[2])
    found["tags"].backward()
    assert learner.labels.grad is not None and learner.labels.grad.abs().max() > 0
    none = built(stage_weights=(0, 0, 1)).eval()
    torch.testing.assert_close(none(Batch(images(), TAGS), CLOCK)["tags"], each[2])


@torch.no_grad()
def test_stages_are_fused_at_the_finest_one() -> None:
    learner = built(fusion=(0.1, 0.1, 0.8)).eval()
    fine, *coarse = learner.stages(images())
    larger = [F.interpolate(maps, (8, 8), mode="bilinear", align_corners=False) for maps in coarse]
    fused = 0.1 * fine + 0.1 * larger[0] + 0.8 * larger[1]
    torch.testing.assert_close(learner.fused([fine, *coarse]), fused)
    maps = F.interpolate(fused, (64, 64), mode="bilinear", align_corners=False).softmax(1)
    torch.testing.assert_close(learner.predict(images()), maps)
    shown = learner.shown(images())
    assert shown.min() >= 0 and shown.max() <= 1
    last = learner.stages(images())[-1].relu()
    alone = built(fusion=(0, 0, 1)).eval().shown(images())
    larger_last = F.interpolate(last / (last.amax((2, 3), keepdim=True) + 1e-5), (8, 8), mode="bilinear")
    torch.testing.assert_close(alone, larger_last)
    torch.testing.assert_close(learner.tag_scores(images()), learner.stages(images())[-1].mean((2, 3)).sigmoid())
    assert list(learner.views(images())) == ["stage 1", "stage 2", "stage 3"]


@torch.no_grad()
def test_knowledge_tokens_are_seen_at_the_last_stage_alone() -> None:
    plain, learner = built().eval(), built(knowledge=True, knowledge_tokens=5).eval()
    assert plain.knowledge is None and learner.knowledge is not None
    assert learner.knowledge.knowledge.shape == (5, 16)
    learner.load_state_dict(plain.state_dict(), strict=False)
    pairs = list(zip(plain.stages(images()), learner.stages(images()), strict=True))
    assert torch.equal(*pairs[0]) and torch.equal(*pairs[1]) and not torch.allclose(*pairs[2])


def test_texts_of_a_user_are_taken_and_do_not_learn(file: Path) -> None:
    learner = built(texts=str(file), knowledge=True)
    names = dict(learner.named_parameters())
    assert "labels" not in names and "knowledge.knowledge" not in names
    assert learner.given == ("labels", "knowledge.knowledge") and not built(knowledge=True).given
    assert learner.labels.shape == (3, 1, 10)
    torch.testing.assert_close(learner.labels.norm(dim=2), torch.full((3, 1), 10**0.5))
    assert learner.knowledge is not None and learner.knowledge.knowledge.shape == (4, 7)
    torch.testing.assert_close(learner.knowledge.knowledge.norm(dim=1), torch.full((4,), 7**0.5))
    assert built(texts=str(file)).knowledge is None
    learner(Batch(images(), TAGS), CLOCK)["tags"].backward()
    assert {"labels", "knowledge.knowledge"} <= set(learner.state_dict())


def test_a_step_knows_a_file_of_texts_by_its_content(file: Path) -> None:
    before = plan(**SMALL, texts=str(file)).call("classifier").build.keywords["texts"].keywords["file"]
    save_file({"labels": torch.ones(3, 10)}, file)
    after = plan(**SMALL, texts=str(file)).call("classifier").build.keywords["texts"].keywords["file"]
    assert before.digest != after.digest and before.path == after.path


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        ({"labels": torch.ones(2, 4), "knowledge": torch.ones(1, 4)}, "2 labels for 3 classes"),
        ({"labels": torch.ones(3, 4)}, "no finite matrix 'knowledge'"),
        ({"knowledge": torch.ones(3, 4)}, "no finite matrix 'labels'"),
        ({"labels": torch.ones(3), "knowledge": torch.ones(1, 4)}, "no finite matrix 'labels'"),
        ({"labels": torch.full((3, 4), NAN), "knowledge": torch.ones(1, 4)}, "no finite matrix 'labels'"),
        ({"labels": torch.eye(3, 4), "knowledge": torch.zeros(1, 4)}, "'knowledge' without rows of zeros"),
    ],
)
def test_a_file_without_the_vectors_is_refused(tmp_path: Path, stored: dict[str, Tensor], told: str) -> None:
    save_file(stored, tmp_path / "texts.safetensors")
    with pytest.raises(EosinError, match=told):
        built(texts=str(tmp_path / "texts.safetensors"), knowledge=True)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="no such file"):
        plan(texts=str(tmp_path / "texts.safetensors"))


def test_learnt_vectors_are_standard_normal() -> None:
    torch.manual_seed(0)
    made = partial(Texts, file=None, width=512, known=True, tokens=16)(4)
    assert made.labels.std().item() == pytest.approx(1, abs=0.05) and made.labels.shape == (4, 1, 512)
    assert made.knowledge is not None and made.knowledge.shape == (16, 512)


@pytest.mark.parametrize(
    "options",
    [
        {"fusion": (1.0, 1.0)},
        {"stage_weights": (1.0, 1.0, 0.0)},
        {"fusion": (0.0, 0.0, 0.0)},
        {"taps": (1, 2)},
        {"taps": (), "fusion": (), "stage_weights": ()},
        {"knowledge_tokens": 0},
        {"projection": "none"},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Tpro(**options)
