"""HAMIL: several exits, maps of random views, and three networks of which all answer."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from eosin.core.values import Batch, Clock
from eosin.methods.hamil import ExitMaps, Exits, Hamil
from eosin.parts.backbones.encoder import Encoder
from eosin.parts.cams import Averaged, Transformed
from eosin.parts.losses.kl import KL
from eosin.parts.losses.soft_margin import SoftMargin
from eosin.parts.losses.swv import SWV
from eosin.parts.peers import Peers
from eosin.parts.pooling.gap import GAP
from eosin.parts.pooling.mpfp import MPFP
from eosin.parts.pseudo import RefinedArgmax
from eosin.parts.refine import DenseCrf, WhitePixels
from eosin.parts.segmenters import DeepLabV3Plus
from methods.fake_lab import FakeLab
from oracles import cam as linear
from oracles import gradient_cam as slow
from oracles import losses as loops

CLOCK = Clock(0, 0, 1, 1)
TAGS = torch.tensor([[1.0, 0, 1], [0, 1, float("nan")]])
SMALL: dict[str, Any] = {
    "exits": (1,),
    "tap": 2,
    "output_stride": 32,
    "seg_net": "unet",
    "seg_depth": 3,
    "seg_width": 4,
}


def plan(**options: Any) -> FakeLab:
    lab = FakeLab()
    assert Hamil(**options).plan(lab).name == "segmenter"  # type: ignore[arg-type]
    return lab


def exits(block: int = 2, taps: tuple[int, ...] = (1, 2), compete: Any = "none") -> Exits:
    torch.manual_seed(0)
    encoder = partial(Encoder, "resnet18", taps)
    return Exits(3, encoder, partial(GAP), partial(SoftMargin), compete, block=block).eval()


def images() -> Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_there_is_an_exit_at_each_tap_and_behind_the_block() -> None:
    for block, sizes in ((2, [(8, 12), (4, 6), (4, 6)]), (0, [(8, 12), (4, 6)])):
        net = exits(block)
        assert [tuple(maps.shape[2:]) for maps in net.exits(images())] == sizes
        assert len(net.block) == 3 * block and len(net.earlier) == len(sizes) - 1
        assert [head.in_channels for head in (*net.earlier, net.head)] == [64, 128, 128][: len(sizes)]
    (only,) = exits(0, (2,)).exits(images())
    assert only.shape == (2, 3, 4, 6)


@torch.no_grad()
def test_each_exit_is_a_linear_map_of_its_features() -> None:
    net = exits()
    found = net.exits(images())
    for head, features, maps in zip((*net.earlier, net.head), net.taps(images()), found, strict=True):
        expected = linear.linear_maps(features[0].tolist(), head.weight[:, :, 0, 0].tolist())
        torch.testing.assert_close(maps[0], torch.tensor(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("compete", ["none", "softmax"])
@torch.no_grad()
def test_the_loss_is_the_mean_of_those_of_all_exits(compete: Any) -> None:
    net = exits(compete=compete)
    each = []
    for maps in net.exits(images()):
        pooled = (maps if compete == "none" else maps.softmax(1)).mean((2, 3)).tolist()
        logits = pooled if compete == "none" else [[linear.tag_logit(share) for share in row] for row in pooled]
        each.append(loops.soft_margin(logits, TAGS.tolist()))
    losses = net(Batch(images(), TAGS), CLOCK)
    assert set(losses) == {"tags"} and losses["tags"].item() == pytest.approx(sum(each) / 3, rel=1e-5)
    assert len(set(each)) == 3


@torch.no_grad()
def test_maps_are_divided_by_their_maximum_and_averaged_over_exits() -> None:
    net = exits()
    shown = ExitMaps()(net, images())
    assert shown.shape == (2, 3, 8, 12) and shown.min() >= 0 and shown.max() <= 1
    mean = torch.zeros(3, 8, 12)
    for maps in net.exits(images()):
        by_hand = torch.tensor(slow.by_class(maps[0].tolist()))[None]
        mean += F.interpolate(by_hand, size=(8, 12), mode="bilinear", align_corners=False)[0] / 3
    torch.testing.assert_close(shown[0], mean, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_what_it_predicts_is_the_mean_of_signed_maps_and_of_scores() -> None:
    net = exits()
    up = [F.interpolate(m, size=(8, 12), mode="bilinear", align_corners=False) for m in net.exits(images())]
    torch.testing.assert_close(net.maps(images()), torch.stack(up).mean(0))
    scores = torch.stack([m.mean((2, 3)).sigmoid() for m in net.exits(images())]).mean(0)
    torch.testing.assert_close(net.tag_scores(images()), scores)


def test_a_gradient_reaches_every_exit() -> None:
    net = exits().train()
    net(Batch(images(), TAGS), CLOCK)["tags"].backward()
    for part in (net.block, net.earlier, net.head):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())


class TestHamil:
    def test_it_fits_labels_and_fits(self) -> None:
        lab = plan()
        kinds = [(call.kind, call.name) for call in lab.calls]
        assert kinds == [("fit", "classifier"), ("label", "pseudo"), ("fit", "segmenter")]
        assert lab.call("classifier").masks == {}, "the classifier learns from tags alone"
        assert {key: mask.name for key, mask in lab.call("segmenter").masks.items()} == {"pseudo": "pseudo"}

    def test_the_defaults_are_those_of_the_paper(self) -> None:
        lab = plan()
        rule = lab.call("pseudo").build()
        assert isinstance(rule, RefinedArgmax) and isinstance(rule.source, ExitMaps) and rule.steps == []
        assert isinstance(rule.maker, Transformed) and len(rule.maker.poses) == 20
        peers = lab.call("segmenter").build()
        assert isinstance(peers, Peers) and len(peers.nets) == 3
        assert all(isinstance(net, DeepLabV3Plus) for net in peers.nets)
        assert isinstance(peers.loss, SWV) and (peers.loss.agreed, peers.loss.split) == (2, 0.5)
        assert isinstance(peers.relation, KL) and peers.relation.temperature == 30
        assert (peers.loss_weight, peers.relation_weight) == (1, 0.2)
        assert (peers.teacher, peers.answer) == ("mean", "mean")

    def test_the_options_reach_the_parts(self) -> None:
        lab = plan(**SMALL, block=1, compete="softmax", averaging="fixed", map_scales=(1.0, 0.5), map_views=4)
        net = lab.call("classifier").build()
        assert isinstance(net, Exits) and len(net.block) == 3 and net.compete == "softmax"
        assert net.encoder.channels == [64, 128] and net.head.bias is not None
        maker = lab.call("pseudo").build().maker
        assert isinstance(maker, Averaged) and maker.scales == (1.0, 0.5) and len(maker.views) == 4
        few = plan(**SMALL, transforms=4, spread=0.0, refine="crf", crf_scale=0.5, white=200, white_size=80)
        rule = few.call("pseudo").build()
        assert [scale for scale, _, _ in rule.maker.poses] == [1.0] * 4
        crf, glass = rule.steps
        assert isinstance(crf, DenseCrf) and crf.scale == 0.5
        assert isinstance(glass, WhitePixels) and (glass.above, glass.size) == (200, 80)
        other = plan(**SMALL, omega="inf", relation="none", answer="first", networks=2).call("segmenter").build()
        assert (other.loss.agreed, other.loss.split) == (1, 0) and other.relation is None
        assert other.answer == "first" and len(other.nets) == 2

    def test_it_takes_attention_and_pooling_of_the_gland_method(self) -> None:
        """Its supplement (A5) has both in HAMIL."""
        lab = plan(**SMALL, attention="cca", attention_at=(1, 2), pool="mpfp")
        net = lab.call("classifier").build()
        assert isinstance(net.pool, MPFP) and net.eval().exits(images())[0].shape == (2, 3, 8, 12)
        attended = {
            name.split(".")[2] for name, _ in net.named_parameters() if name.startswith("encoder.net.attention")
        }
        assert len(attended) == 2
        assert {net.rate(name) for name, _ in net.named_parameters() if name.endswith(".gate")} == {10}

    def test_what_it_trains_can_be_built_trained_asked_and_draws(self) -> None:
        lab, image = plan(**SMALL, transforms=3), images()
        for name in lab.names("fit"):
            call = lab.call(name)
            learner = call.build()
            masks = {key: torch.randint(0, 3, (2, 32, 48)) for key in call.masks}
            losses = learner.train()(Batch(image, TAGS, masks), CLOCK)
            assert all(loss.shape == () and loss.isfinite() for loss in losses.values())
            sum(losses.values()).backward()
            assert all(p.grad is not None for p in learner.parameters())
            maps = learner.eval().predict(image)
            torch.testing.assert_close(maps.sum(1), torch.ones(2, 32, 48))
            if name == "classifier":
                rule, allowed = lab.call("pseudo").build(), (TAGS != 0)[:, :, None, None]
                drawn = rule.decide(rule.refine(rule.maps(learner, image), allowed, image), allowed)
                assert drawn.shape == (2, 32, 48) and set(drawn[0].unique().tolist()) <= {0, 2}

    @pytest.mark.parametrize(
        "options",
        [
            {"exits": (4,)},
            {"exits": (2, 1), "tap": 3},
            {"exits": (-1,)},
            {"omega": 0.5},
            {"omega": float("inf")},
            {"omega": "infinite"},
            {"spread": 1.0},
            {"transforms": 0},
            {"networks": 1},
            {"relation": "structure"},
            {"pool": "mpfp", "compete": "softmax"},
        ],
    )
    def test_options_out_of_range_are_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            Hamil(**options)
