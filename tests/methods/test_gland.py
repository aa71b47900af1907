"""The gland method: its plan, that options reach the parts, and the sizes that the paper's networks have."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from eosin.core.classes import Classes, Tissue
from eosin.core.fingerprint import digest
from eosin.core.values import Batch, Clock
from eosin.methods.gland import Gland, PyramidCam
from eosin.methods.supervised import Supervised
from eosin.parts.attention.cca import CCA
from eosin.parts.attention.criss_cross import CrissCross, CrissCrossTwice
from eosin.parts.cams import LinearCam, Scaled
from eosin.parts.classifiers import CamClassifier
from eosin.parts.losses.cross_entropy import PixelCrossEntropy
from eosin.parts.losses.plf import PLF
from eosin.parts.pooling.gap import GAP
from eosin.parts.pooling.highest import HighestMean
from eosin.parts.pooling.mpfp import MPFP
from eosin.parts.pseudo import RefinedArgmax
from eosin.parts.segmenters import PSPNet
from eosin.recipe import ABLATIONS, load, load_ablation, shipped
from eosin.verbs.train import resolve
from methods.fake_lab import FakeLab

SMALL: dict[str, Any] = {"tap": 2, "attention_at": (1, 2), "seg_net": "unet", "seg_depth": 3, "seg_width": 4}
TWO = Classes(tissues=tuple(Tissue(name=name, colour=(i, i, i)) for i, name in enumerate(["rest", "gland"])))


def plan(**options: Any) -> FakeLab:
    lab = FakeLab()
    assert Gland(**options).plan(lab).name == "segmenter"  # type: ignore[arg-type]
    return lab


def images() -> Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))


def classifier(**options: Any) -> CamClassifier:
    torch.manual_seed(0)
    learner: CamClassifier = plan(**{**SMALL, **options}).call("classifier").build()
    return learner


def test_it_fits_labels_and_fits() -> None:
    lab = plan()
    kinds = [(call.kind, call.name) for call in lab.calls]
    assert kinds == [("fit", "classifier"), ("label", "pseudo"), ("fit", "segmenter")]
    assert lab.call("classifier").masks == {}, "the classifier learns from tags alone"


def test_the_mean_of_the_pyramid_is_a_score_too() -> None:
    learner = classifier(pool="pyramid", map_weights="pyramid")
    assert isinstance(learner.pool, MPFP)
    maps = learner.maps(images())
    torch.testing.assert_close(learner.logits(maps), learner.pool.fused(maps).mean((2, 3)))


def test_the_defaults_are_those_of_the_paper() -> None:
    lab = plan()
    made = lab.call("classifier").build()
    for level in (2, 3, 4):
        assert isinstance(made.encoder.net.get_submodule(f"attention{level}"), CCA)
    assert isinstance(made.pool, MPFP) and made.pool.scales == (2, 4, 8, 16) and len(made.pool.fusions) == 3
    assert made.head.bias is None and made.compete == "none", "maps are signed"
    rule = lab.call("pseudo").build()
    assert isinstance(rule, RefinedArgmax) and isinstance(rule.source, LinearCam)
    assert isinstance(rule.maker, Scaled) and rule.maker.by == "class"
    segmenter = lab.call("segmenter").build()
    assert isinstance(segmenter.net, PSPNet) and isinstance(segmenter.loss, PLF) and segmenter.loss.confidence


def test_attention_stands_behind_the_last_three_stages_of_any_network() -> None:
    """Spec B2: stages 4, 5 and 6 of ResNet38, with channels of 512, 1,024 and 4,096."""
    with torch.device("meta"):
        made = plan(encoder="resnet38", tap=6, output_stride=8).call("classifier").build()
    attention = {name: p.numel() for name, p in made.named_parameters() if ".attention" in name}
    assert {name.split(".")[2] for name in attention} == {"attention4", "attention5", "attention6"}
    assert sum(attention.values()) == 1_050_627 + 4_198_403 + 67_125_251


@pytest.mark.parametrize(
    ("attention", "kind"), [("criss-cross", CrissCross), ("criss-cross-twice", CrissCrossTwice), ("cca", CCA)]
)
def test_every_attention_can_be_put_behind_any_stage(attention: str, kind: type) -> None:
    net = classifier(attention=attention, attention_at=(1,)).encoder.net  # type: ignore[attr-defined]
    assert type(net.get_submodule("attention1")) is kind
    assert not any(name.startswith("attention2") for name, _ in net.named_modules())
    assert not any("attention" in name for name, _ in classifier(attention="none").named_parameters())


def test_the_options_reach_the_parts() -> None:
    assert isinstance(classifier(pool="gap").pool, GAP)
    pool = classifier(pool="highest", share=0.3).pool
    assert isinstance(pool, HighestMean) and pool.share == 0.3
    pool = classifier(pyramid=(4, 16), fusion="average").pool
    assert isinstance(pool, MPFP) and pool.scales == (4, 16) and not pool.fusions
    assert classifier(head_rate=10.0).rate("head.weight") == 10
    losses = [plan(**SMALL, seg_loss=loss).call("segmenter").build().loss for loss in ("plf", "oeem", "ce")]
    assert [type(loss) for loss in losses] == [PLF, PLF, PixelCrossEntropy] and not losses[1].confidence
    rule = plan(**SMALL, map_weights="pyramid", scaling="joint", merge=False, band=0.2).call("pseudo").build()
    assert isinstance(rule.source, PyramidCam) and not rule.merge and rule.band == 0.2 and rule.maker.by == "joint"
    assert plan(**SMALL).call("pseudo").build().maker.by == "class", "as printed, equation 4"


def test_labels_are_filtered_from_an_epoch_on() -> None:
    segmenter = plan(**SMALL, filter_begin=2).call("segmenter").build().eval()
    batch = Batch(images(), torch.zeros(2, 3), {"pseudo": torch.randint(0, 3, (2, 32, 48))})
    logits = segmenter.logits(batch.image)
    for epoch in range(4):
        learnt = segmenter.losses(batch, Clock(epoch, epoch, 4, 4))
        expected = (PLF() if epoch >= 2 else PixelCrossEntropy())(logits, batch.masks["pseudo"])
        torch.testing.assert_close(learnt, {"pixels": expected})
    assert plan(**SMALL).call("segmenter").build().begin == 0, "as printed"


def test_what_it_trains_can_be_built_trained_and_asked() -> None:
    lab, image = plan(**SMALL), images()
    tags = torch.tensor([[1.0, 0, 1], [0, 1, float("nan")]])
    for name in lab.names("fit"):
        call = lab.call(name)
        learner = call.build()
        masks = {key: torch.randint(0, 3, (2, 32, 48)) for key in call.masks}
        for gate in (value for key, value in learner.named_parameters() if key.endswith("gate")):
            gate.data.fill_(0.1)
        losses = learner.train()(Batch(image, tags, masks), Clock(0, 0, 1, 1))
        sum(losses.values()).backward()
        assert all(p.grad is not None for p in learner.parameters())
        maps = learner.eval().predict(image)
        torch.testing.assert_close(maps.sum(1), torch.ones(2, 32, 48))


@torch.no_grad()
def test_maps_that_draw_have_passed_the_attention() -> None:
    net = classifier().eval()
    before = LinearCam()(net, images())
    net.encoder.net.get_submodule("attention1.1").gate.fill_(1.0)  # type: ignore[attr-defined]
    after = LinearCam()(net, images())
    assert (after - before).abs().max() > 1e-3 * before.abs().max()


@torch.no_grad()
def test_a_score_is_made_of_what_the_weighed_maps_show_and_what_speaks_against_them() -> None:
    net = classifier().eval()
    maps = net.maps(images())
    shown, fused = PyramidCam()(net, images()), net.pool.fused(maps)  # type: ignore[operator]
    against = (-fused).relu() * (-maps).relu()
    assert (shown >= 0).all() and shown.any() and against.any()
    torch.testing.assert_close(shown.mean((2, 3)) - against.mean((2, 3)), net.logits(maps))


@torch.no_grad()
def test_masks_are_drawn_by_maps_over_their_maximum() -> None:
    """Equation 4: each class reaches 1 somewhere, so that a weak one is drawn, too."""
    net = classifier().eval()
    rule = plan(**SMALL).call("pseudo").build()
    maps = rule.maps(net, images())
    positive = (net.maps(images()) > 0).any(-1).any(-1)
    torch.testing.assert_close(maps.amax((2, 3))[positive], torch.ones(int(positive.sum())), rtol=1e-3, atol=1e-3)
    assert (maps >= 0).all()


@pytest.mark.parametrize("recipe", ["gland-glas", "gland-prog", "gland-ebhi"])
def test_the_segmenter_of_the_paper_has_its_size_and_a_supervised_twin(recipe: str) -> None:
    """Spec B2: 8,593,762 trained parameters for two classes."""
    twin = {"gland-glas": "supervised-glas-pspnet"}.get(recipe, recipe.replace("gland", "supervised"))
    made = []
    for name, kind, supervision in ((recipe, Gland, "tags"), (twin, Supervised, "truth")):
        lab = FakeLab(supervision, TWO)
        options = {**load(name).options, "pretrained": "none", "seg_pretrained": "none"}
        fields = {key: value for key, value in options.items() if key in kind.model_fields}
        kind.model_validate(fields).plan(lab)  # type: ignore[arg-type]
        net: partial[Any] = lab.call("segmenter").build.keywords["net"]
        assert load(name).claim is not None
        made.append((net.func, net.args))
    assert made[0] == made[1], "only masks and loss differ"
    if recipe == "gland-glas":
        net = made[0][0](*made[0][1])
        assert sum(p.numel() for p in net.parameters() if p.requires_grad) == 8_593_762


@pytest.mark.parametrize("name", shipped(ABLATIONS))
def test_every_row_of_an_ablation_can_be_built(name: str) -> None:
    ablation, builders = load_ablation(name), {}
    for row in range(len(ablation.rows)):
        lab, chosen = FakeLab(), resolve(ablation.base, ablation.overrides(row))[1]
        chosen.plan(lab)  # type: ignore[arg-type]
        builders |= {digest(lab.call(step).build): lab.call(step).build for step in lab.names("fit")}
    for build in builders.values():
        build()


@pytest.mark.parametrize("options", [{}, {"pool": "gap", "attention": "none"}])
def test_the_classifier_begins_with_the_weights_of_xavier(options: dict[str, Any]) -> None:
    lab = FakeLab()
    Gland(**options).plan(lab)  # type: ignore[arg-type]
    weight = lab.call("classifier").build().head.weight
    classes, channels = weight.shape[:2]
    assert 0.98 * (6 / (classes + channels)) ** 0.5 < weight.abs().max() <= (6 / (classes + channels)) ** 0.5


@pytest.mark.parametrize(
    "options",
    [
        {"attention": "danet"},
        {"attention_at": ()},
        {"attention_at": (-1,)},
        {"pool": "max"},
        {"pyramid": ()},
        {"pyramid": (0, 2)},
        {"pyramid": (16, 2)},
        {"pyramid": (4, 4)},
        {"fusion": "sum"},
        {"head_rate": 0.0},
        {"seg_loss": "swv"},
        {"map_weights": "pyramid", "pool": "gap"},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Gland(**options)


def test_the_pyramid_is_shown_level_by_level() -> None:
    learner = classifier().eval()
    views = learner.views(images())
    assert list(views) == ["F", "P2", "P4", "P8", "P16", "P'"]
    maps = learner.maps(images())
    assert isinstance(learner.pool, MPFP)
    torch.testing.assert_close(views["F"], maps)
    torch.testing.assert_close(views["P4"], learner.pool.levels(maps)[1])
    torch.testing.assert_close(views["P'"], learner.pool.fused(maps))
    assert bool((views["F"] < 0).any()), "signed"
    assert classifier(pool="gap").views(images()) == {}, "without a pyramid there is nothing to show"
