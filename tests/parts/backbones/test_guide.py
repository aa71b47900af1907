"""An encoder that never learns: where its weights come from, what it is shown, and that gradients pass through it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import timm
import torch

from eosin.core.errors import EosinError, WrongUse
from eosin.parts.backbones.encoder import pretrained_from
from eosin.parts.backbones.guide import FrozenGuide

NAME = "resnet10t"  # 512 channels, made for 176 px


def images(side: int = 64) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_it_is_no_part_of_what_is_trained_and_kept() -> None:
    guide = FrozenGuide(NAME, 128).train()
    assert not list(guide.parameters()) and not guide.state_dict() and not guide.frozen.net.training


def test_gradients_reach_the_weights_and_the_network_stays() -> None:
    torch.manual_seed(0)
    guide = FrozenGuide(NAME, 512)
    before = copy.deepcopy(guide.frozen.net.state_dict())
    weights = torch.full((2, 1, 64, 64), 0.5, requires_grad=True)
    guide(images(), weights).square().sum().backward()
    assert weights.grad.any()
    assert all(torch.equal(value, before[key]) for key, value in guide.frozen.net.state_dict().items())
    assert all(p.grad is None for p in guide.frozen.net.parameters())


@torch.no_grad()
def test_where_nothing_has_a_weight_it_is_shown_the_mean_colour() -> None:
    guide = FrozenGuide(NAME, 512)
    nothing = guide(images(), torch.zeros(2, 1, 64, 64))
    mean = guide.normalise.mean.expand(2, 3, 64, 64)
    torch.testing.assert_close(nothing, guide(mean, torch.ones(2, 1, 64, 64)), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_any_size_is_resized_to_that_of_the_network() -> None:
    guide, seen = FrozenGuide(NAME, 512), []
    guide.frozen.net.register_forward_pre_hook(lambda net, given: seen.append(tuple(given[0].shape[2:])))
    guide(images(50), torch.ones(2, 1, 50, 50))
    assert seen == [guide.size] == [(176, 176)]


@torch.no_grad()
def test_a_network_with_a_layer_before_its_head_can_guide() -> None:
    assert FrozenGuide("mobilenetv3_small_050", 64)(images(), torch.ones(2, 1, 64, 64)).shape == (2, 64)


@torch.no_grad()
@pytest.mark.parametrize("width", [64, 512, 600])
def test_another_width_is_reached_by_a_fixed_orthogonal_projection(width: int) -> None:
    one, other = FrozenGuide(NAME, width), FrozenGuide(NAME, width)
    assert one(images(), torch.ones(2, 1, 64, 64)).shape == (2, width)
    assert torch.equal(one.projection, other.projection), "it does not depend on the state of random numbers"
    small = one.projection.T @ one.projection if width <= 512 else one.projection @ one.projection.T
    torch.testing.assert_close(small, torch.eye(min(width, 512)), atol=1e-5, rtol=0)


@torch.no_grad()
def test_without_weights_all_guides_of_a_name_are_the_same_network() -> None:
    before = torch.get_rng_state()
    one = FrozenGuide(NAME, 512)
    assert torch.equal(before, torch.get_rng_state()), "what is drawn after it does not depend on it"
    torch.manual_seed(1)
    seen = [guide(images(), torch.ones(2, 1, 64, 64)) for guide in (one, FrozenGuide(NAME, 512))]
    assert torch.equal(*seen)


def test_it_runs_as_autocast_says_and_answers_in_float32() -> None:
    guide, seen = FrozenGuide(NAME, 64), []
    guide.frozen.net.layer4.register_forward_hook(lambda net, given, answer: seen.append(answer.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        answer = guide(images(), torch.ones(2, 1, 64, 64))
    assert seen == [torch.bfloat16] and answer.dtype == torch.float32


@torch.no_grad()
def test_weights_of_a_file_are_taken_and_others_refused(tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole = timm.create_model(NAME)
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    guide = FrozenGuide(NAME, 512, pretrained_from(str(tmp_path / "w.pth")))
    shown = guide.normalise(torch.nn.functional.interpolate(images(), size=(176, 176), mode="bilinear"))
    expected = whole.eval().forward_head(whole.forward_features(shown), pre_logits=True)
    torch.testing.assert_close(guide(images(), torch.ones(2, 1, 64, 64)), expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(EosinError, match="entries match"):
        FrozenGuide("resnet18", 512, pretrained_from(str(tmp_path / "w.pth")))


@pytest.mark.parametrize("name", ["resnet10", "resnet18.foo"])
def test_an_unknown_network_names_the_nearest(name: str) -> None:
    with pytest.raises(WrongUse, match=f"guide '{name}' is not known to timm"):
        FrozenGuide(name, 512)
