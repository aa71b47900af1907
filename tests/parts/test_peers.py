"""Networks that teach each other: one pass each, every role, detached peers, and what is deployed."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from eosin.core.values import Batch, Clock, FitSpec
from eosin.engine.export import Exported
from eosin.engine.optim import optimizer
from eosin.engine.weights import built
from eosin.parts.losses.kl import KL
from eosin.parts.losses.srm import SRM
from eosin.parts.losses.swv import SWV
from eosin.parts.peers import Peers
from eosin.parts.segmenters import UNet
from eosin.predictor.predictor import Predictor
from oracles import peers as slow
from small_model import CLASSES, TILE, model_folder

CLOCK = Clock(0, 0, 1, 1)
SMALL = partial(UNet, 3, "resnet18", 3, 4)


class Colours(nn.Module):
    """A 1x1 convolution that counts how often it is run."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 3, 1)
        self.runs = 0

    def forward(self, image: Tensor) -> Tensor:
        self.runs += 1
        return self.head(image)


def peers(**options: object) -> Peers:
    torch.manual_seed(0)
    settings = {"net": partial(Colours), "loss": partial(SWV, 2.0), "masks": ("pseudo",)} | options
    return Peers(**settings)  # type: ignore[arg-type]


def batch(images: int = 4, size: tuple[int, int] = (3, 4)) -> Batch:
    generator = torch.Generator().manual_seed(0)
    mask = torch.randint(0, 4, (images, *size), generator=generator)
    mask[mask == 3] = 255
    return Batch(torch.rand(images, 3, *size, generator=generator), torch.zeros(images, 3), {"pseudo": mask})


def logits(learner: Peers, one: Batch) -> list[Tensor]:
    return [net.head(learner.normalise(one.image)).detach() for net in learner.nets]  # type: ignore[union-attr, operator]


def test_each_begins_elsewhere_and_all_of_it_follows_from_the_seed() -> None:
    build = partial(Peers, net=SMALL, loss=partial(SWV), masks=("pseudo",))
    first, again, other = (built(build, "segmenter", seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [name for name, value in first.items() if name.startswith("nets.0") and value.ndim == 4]
    assert len(drawn) > 10
    for name in drawn:
        three = [first[name.replace("nets.0", f"nets.{i}")] for i in range(3)]
        assert not any(torch.equal(three[i], three[j]) for i, j in ((0, 1), (0, 2), (1, 2))), name
        assert not torch.equal(first[name], other[name])


@pytest.mark.parametrize("relation", [None, "srm", "kl"])
@pytest.mark.parametrize("teacher", ["each", "mean"])
@pytest.mark.parametrize("omega", [2.0, math.inf])
def test_the_terms_are_those_of_every_network_taught_by_the_others(relation, teacher, omega) -> None:
    made = {None: None, "srm": partial(SRM), "kl": partial(KL, 30.0)}[relation]
    loop = {None: None, "srm": slow.srm, "kl": slow.kl}[relation]
    learner, one = (
        peers(loss=partial(SWV, omega), relation=made, loss_weight=0.8, relation_weight=0.2, teacher=teacher),
        batch(),
    )
    terms = learner(one, CLOCK)
    answers = [found.tolist() for found in logits(learner, one)]
    pixels, related = slow.rotated(answers, one.masks["pseudo"].tolist(), omega, 0.8, loop, 0.2, teacher)
    assert terms["pixels"].item() == pytest.approx(pixels, rel=1e-4)
    assert set(terms) == ({"pixels"} if relation is None else {"pixels", "relation"})
    if relation is not None:
        assert terms["relation"].item() == pytest.approx(related, rel=1e-3, abs=1e-5)


def test_several_masks_have_the_same_share() -> None:
    one = batch()
    both = Batch(one.image, one.tags, {**one.masks, "other": one.masks["pseudo"].flip(0)})
    each = [peers(masks=(name,))(both, CLOCK)["pixels"] for name in ("pseudo", "other")]
    assert each[0] != each[1]
    torch.testing.assert_close(peers(masks=("pseudo", "other"))(both, CLOCK)["pixels"], sum(each) / 2)


def test_one_network_alone_is_plain() -> None:
    learner, one = peers(loss=partial(SWV, 1.0), count=1), batch()
    (answer,) = logits(learner, one)
    expected = nn.functional.cross_entropy(answer, one.masks["pseudo"], ignore_index=255)
    torch.testing.assert_close(learner(one, CLOCK)["pixels"], expected)


def test_each_network_is_run_once_a_step_and_one_alone_where_one_predicts() -> None:
    learner, one = peers(relation=partial(SRM)), batch()
    learner(one, CLOCK)
    assert [net.runs for net in learner.nets] == [1, 1, 1]
    learner.predict(one.image)
    assert [net.runs for net in learner.nets] == [2, 1, 1]
    learner.answer = "mean"
    learner.predict(one.image)
    assert [net.runs for net in learner.nets] == [3, 2, 2]


def test_peers_have_no_gradient_of_a_network_that_they_teach() -> None:
    """The gradient of a network is that of its own terms, computed with its peers' answers as mere numbers."""
    learner, one = peers(relation=partial(SRM), loss_weight=0.8, relation_weight=0.2), batch()
    torch.stack(list(learner(one, CLOCK).values())).sum().backward()
    for a, net in enumerate(learner.nets):
        others = [found for b, found in enumerate(logits(learner, one)) if b != a]
        own = net.head(learner.normalise(one.image))  # type: ignore[union-attr, operator]
        loss = 0.8 * SWV(2.0)(own, one.masks["pseudo"], [other.argmax(1) for other in others])
        loss = loss + 0.2 * (SRM()(own, others[0]) + SRM()(own, others[1])) / 2
        (expected,) = torch.autograd.grad(loss, net.head.weight)  # type: ignore[union-attr]
        torch.testing.assert_close(net.head.weight.grad, expected)  # type: ignore[union-attr]


def test_without_a_say_of_peers_a_network_learns_as_if_it_were_alone() -> None:
    """With omega 1 and no relation, by an optimizer over all of them together."""
    learner, one = peers(loss=partial(SWV, 1.0)), batch()
    alone = peers(loss=partial(SWV, 1.0), count=2)
    alone.nets[0].load_state_dict(learner.nets[0].state_dict())
    for net in (learner, alone):
        optim = optimizer(net, FitSpec(lr=0.1))
        for _ in range(3):
            optim.zero_grad(set_to_none=True)
            net(one, CLOCK)["pixels"].backward()
            optim.step()
    for name, value in learner.nets[0].state_dict().items():
        torch.testing.assert_close(value, alone.nets[0].state_dict()[name])


def test_predictions_are_of_the_first_or_of_the_mean_of_logits() -> None:
    learner, one = peers(), batch()
    answers = torch.stack(logits(learner, one))
    torch.testing.assert_close(learner.predict(one.image), answers[0].softmax(1))
    learner.answer = "mean"
    torch.testing.assert_close(learner.predict(one.image), answers.mean(0).softmax(1))


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_networks_and_masks_are_scaled_alike(scale) -> None:
    learner, one = peers(scale=scale), batch(size=(6, 8))
    seen = []
    learner.loss.register_forward_hook(lambda module, inputs, output: seen.append(inputs))
    learner(one, CLOCK)
    assert len(seen) == 3
    for found, mask, votes in seen:
        size = (round(6 * scale), round(8 * scale))
        assert found.shape[2:] == mask.shape[1:] == size and [vote.shape[1:] for vote in votes] == [size, size]
    maps = learner.predict(one.image)
    assert maps.shape == (4, 3, 6, 8) and torch.allclose(maps.sum(1), torch.ones(4, 6, 8))


def test_a_network_of_its_own_has_running_means_of_its_own() -> None:
    learner, one = peers(net=SMALL), batch(size=(32, 32))
    learner.train()(one, CLOCK)
    means = [net.net.encoder.bn1.running_mean for net in learner.nets]  # type: ignore[union-attr]
    assert not any(torch.equal(means[i], means[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize(("answer", "networks"), [("first", {"0"}), ("mean", {"0", "1", "2"})])
def test_only_the_networks_that_answer_are_deployed(tmp_path: Path, answer: str, networks: set[str]) -> None:
    torch.manual_seed(0)
    learner = Peers(partial(UNet, len(CLASSES), "resnet18", 3, 4), partial(SWV), ("pseudo",), answer=answer).eval()  # type: ignore[arg-type]
    folder = model_folder(tmp_path / "model", Exported(learner))
    predictor = Predictor.load(folder)
    tiles = torch.randint(0, 256, (3, TILE, TILE, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = learner.predict(tiles.permute(0, 3, 1, 2).float() / 255)
    torch.testing.assert_close(predictor(tiles), expected, rtol=0, atol=1e-4)
    stored = (folder / "program.pt2").stat().st_size
    own = sum(value.numel() * value.element_size() for value in learner.nets[0].state_dict().values())
    assert len(networks) * own <= stored <= (len(networks) + 0.5) * own


def test_losses_are_float32_under_autocast() -> None:
    learner, one = peers(relation=partial(SRM)), batch()
    with torch.autocast("cpu", torch.bfloat16):
        assert {term.dtype for term in learner(one, CLOCK).values()} == {torch.float32}
        assert learner.predict(one.image).dtype == torch.float32


def test_views_are_what_each_network_names_and_where_one_differs_from_the_first() -> None:
    learner, one = peers(), batch()
    one = replace(one, image=8 * one.image - 4)  # of many colours, so that the networks agree here and there
    named = [answer.argmax(1) for answer in logits(learner, one)]
    views = learner.views(one.image)
    assert list(views) == ["network 1", "network 2", "network 3", "disagree"]
    assert all(torch.equal(views[f"network {i + 1}"], named[i]) for i in range(3))
    apart = (named[0] != named[1]) | (named[0] != named[2])
    assert torch.equal(views["disagree"], apart[:, None].float()) and 0 < apart.float().mean() < 1
    assert list(peers(count=1).views(one.image)) == ["network 1"], "one has nobody to disagree with"
