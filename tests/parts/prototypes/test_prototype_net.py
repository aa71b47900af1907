"""The learner of prototypes: its terms and their clock, which stages are asked, what it keeps and shows."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eosin.core.values import Batch, Clock
from eosin.parts.backbones.encoder import Encoder
from eosin.parts.losses.diversity import Diversity
from eosin.parts.losses.prototype_contrast import PrototypeContrast
from eosin.parts.losses.soft_margin import SoftMargin
from eosin.parts.pooling.gap import GAP
from eosin.parts.prototypes.bank import drawn
from eosin.parts.prototypes.maps import located
from eosin.parts.prototypes.network import PrototypeNet
from eosin.parts.prototypes.refiner import MaskRefiner
from eosin.parts.prototypes.seen import Fusion
from eosin.parts.prototypes.terms import Apart, Area
from oracles import prototypes as slow

TAGS = torch.tensor([[1.0, 0, 1], [0, 1, float("nan")]])
RANDOM = partial(drawn, 3, 2, 16)
TERMS = {
    "contrast": (0.1, partial(MaskRefiner, partial(PrototypeContrast), pairs=0)),
    "diversity": (0.5, partial(Apart, partial(Diversity), 0.2)),
    "area": (5e-5, partial(Area)),
}


def net(prototypes: Any = RANDOM, **options: Any) -> PrototypeNet:
    torch.manual_seed(0)
    settings = {
        "encoder": partial(Encoder, "resnet18", (1, 2, 3)),
        "stage_weights": (0.0, 0.1, 1.0),
        "fusion": partial(Fusion, (0.0, 0.4, 0.6)),
        "terms": TERMS,
        **options,
    }
    return PrototypeNet(prototypes=prototypes, pool=partial(GAP), loss=partial(SoftMargin), **settings).eval()


def batch(side: int = 64) -> Batch:
    return Batch(torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1)), TAGS)


def at(step: int) -> Clock:
    return Clock(step, 0, 100, 1)


def fixed() -> Tensor:
    return torch.randn(3, 2, 16, generator=torch.Generator().manual_seed(5))


def test_tags_are_the_weighted_losses_of_the_mean_over_prototypes() -> None:
    learner = net()
    second, third = learner.stages(batch().image)
    each = [SoftMargin()(stage.maps.mean((3, 4)).mean(2), TAGS) for stage in (second, third)]
    torch.testing.assert_close(learner(batch(), at(0))["tags"], 0.1 * each[0] + each[1])
    torch.testing.assert_close(second.maps, learner.heads[1].scale * second.cosines)


def test_the_further_terms_begin_after_the_warm_up_and_have_their_weights() -> None:
    learner = net(warmup=0.16)
    assert set(learner(batch(), at(15))) == {"tags"}
    found = learner(batch(), at(16))
    assert set(found) == {"tags", "contrast", "diversity", "area"}
    last = learner.stages(batch().image)[-1]
    torch.testing.assert_close(found["area"], 5e-5 * last.maps.mean())
    mask = located(learner.fusion.located(learner.stages(batch().image)), TAGS, 0.2)
    expected = slow.diversity(last.cosines.flatten(3).tolist(), mask.flatten(1).tolist(), 0.07)
    assert found["diversity"].item() == pytest.approx(0.5 * expected, rel=1e-4, abs=1e-6)


def test_a_stage_without_any_weight_is_not_asked() -> None:
    assert [stage.number for stage in net().stages(batch().image)] == [1, 2]
    assert [stage.number for stage in net(fusion=partial(Fusion, (0.2, 0.2, 0.6))).stages(batch().image)] == [0, 1, 2]


def test_prototypes_learn_or_are_kept_beside_the_weights() -> None:
    learnt, kept = net(), net(fixed)
    assert "prototypes" in dict(learnt.named_parameters()) and "bank" not in learnt.state_dict()
    assert "bank" in kept.state_dict() and "bank" not in dict(kept.named_parameters())
    assert torch.equal(kept.known, fixed())


@pytest.mark.parametrize("prototypes", [RANDOM, fixed], ids=["learnt", "fixed"])
def test_all_that_is_asked_has_a_gradient(prototypes: Any) -> None:
    learner = net(prototypes).train()
    sum(learner(batch(), at(50)).values()).backward()
    parts = {name: p.grad is not None and bool(p.grad.any()) for name, p in learner.named_parameters()}
    assert any(moved for name, moved in parts.items() if name.startswith("encoder."))
    still = {name for name, moved in parts.items() if not moved and not name.startswith("encoder.")}
    assert still == {name for name in parts if name.startswith("heads.0.")}, "the stage that nobody asks"


def test_diversity_does_not_pull_at_the_scale_of_cosines() -> None:
    learner = net(stage_weights=(0, 0, 1.0), terms={"diversity": TERMS["diversity"]}).train()
    learner(batch(), at(50))["diversity"].backward()
    assert learner.heads[2].scale.grad is None or not learner.heads[2].scale.grad
    assert learner.prototypes.grad.any()


@pytest.mark.parametrize("gate", ["none", "predicted"])
@torch.no_grad()
def test_it_predicts_probabilities_at_any_size_without_tags(gate: Any) -> None:
    learner = net(fusion=partial(Fusion, (0.0, 0.4, 0.6), gate=gate))
    for size in ((64, 64), (61, 47)):
        image = torch.rand(2, 3, *size)
        answer = learner.predict(image)
        assert answer.shape == (2, 3, *size) and answer.min() >= 0
        torch.testing.assert_close(answer.sum(1), torch.ones(2, *size))
        scores = learner.tag_scores(image)
        torch.testing.assert_close(scores, learner.scores(learner.stages(image)[-1]).sigmoid())


@torch.no_grad()
def test_it_shows_a_map_for_each_prototype() -> None:
    learner = net()
    shown = learner.views(batch().image)
    second, third = learner.stages(batch().image)
    assert list(shown) == ["prototype 1", "prototype 2"]
    fine = nn.functional.interpolate(second.maps[:, :, 1], size=third.maps.shape[3:], mode="bilinear")
    torch.testing.assert_close(shown["prototype 2"], 0.4 * fine + 0.6 * third.maps[:, :, 1])
