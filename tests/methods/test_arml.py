"""ARML: features re-activated from an epoch on and whenever maps are drawn, masks per tap, three networks."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from eosin.core.values import Batch, Clock, FitSpec
from eosin.engine.optim import optimizer
from eosin.methods.arml import Arml, Relocalization, Relocalized, SignedCam
from eosin.methods.cam import Cam
from eosin.parts.backbones.encoder import Encoder
from eosin.parts.cams import GradCam, Scaled
from eosin.parts.losses.correlation import Correlation
from eosin.parts.losses.kl import KL
from eosin.parts.losses.point_wise import PointWise
from eosin.parts.losses.soft_margin import SoftMargin
from eosin.parts.losses.srm import SRM
from eosin.parts.losses.swv import SWV
from eosin.parts.peers import Peers
from eosin.parts.pooling.gap import GAP
from eosin.parts.pseudo import RefinedArgmax
from eosin.parts.refine import WhitePixels
from eosin.parts.segmenters import PSPNet, Pyramid, UNet
from methods.fake_lab import FakeLab
from oracles import attention as slow
from oracles import cam as linear
from oracles import pooling

TAGS = torch.tensor([[1.0, 0, 1], [0, 1, float("nan")]])
SMALL: dict[str, Any] = {"tap": 2, "seg_net": "unet", "seg_depth": 3, "seg_width": 4}


def clock(epoch: int) -> Clock:
    return Clock(epoch, epoch, 10, 10)


def plan(**options: Any) -> FakeLab:
    lab = FakeLab()
    assert Arml(**options).plan(lab).name == "segmenter"  # type: ignore[arg-type]
    return lab


def classifier(
    attention: Any = "criss-cross", reactivation: bool = True, begin: int = 2, **options: Any
) -> Relocalized:
    torch.manual_seed(0)
    ars = partial(Relocalization, attention=attention, reactivation=reactivation)
    return Relocalized(
        3, partial(Encoder, "resnet18", (1, 2)), partial(GAP), partial(SoftMargin), ars, begin, **options
    )


def stirred(net: Relocalized) -> Relocalized:
    """The same with an attention and a gate that do something."""
    torch.manual_seed(1)
    nn.init.constant_(net.ars.attention.gate, 0.7)
    nn.init.normal_(net.ars.reactivation.conv.weight, std=0.1)
    return net


def images(side: int = 32) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def loss(net: Relocalized, epoch: int) -> Tensor:
    return net(Batch(images(), TAGS), clock(epoch))["tags"]


class TestRelocalized:
    @torch.no_grad()
    def test_it_begins_as_a_plain_classifier(self) -> None:
        net = classifier().eval()
        plain = net.encoder(net.normalise(images()))
        assert all(torch.equal(a, b) for a, b in zip(net.taps(images()), plain, strict=True))
        assert torch.equal(loss(net, 0), loss(net, 9))

    @torch.no_grad()
    def test_the_last_features_pass_attention_and_gate_as_the_loops_have_it(self) -> None:
        net = stirred(classifier()).eval()
        fine, coarse = net.encoder(net.normalise(images()))
        first, refined = net.taps(images())
        assert torch.equal(first, fine)
        attention = net.ars.attention
        parts = zip(
            attention.project.weight.split(attention.widths),
            attention.project.bias.split(attention.widths),
            strict=True,
        )
        projections = [(weight.tolist(), bias.tolist()) for weight, bias in parts]
        crossed = slow.criss_cross(coarse[0].tolist(), *projections, gate=0.7)
        expected = torch.tensor(slow.reactivated(crossed, net.ars.reactivation.conv.weight[0, 0].tolist()))
        torch.testing.assert_close(refined[0], expected, rtol=1e-3, atol=1e-4)

    @torch.no_grad()
    def test_it_is_off_in_the_first_epochs_of_training_and_on_whenever_maps_are_drawn(self) -> None:
        net = stirred(classifier(begin=2)).eval()
        off, on = loss(net, 1), loss(net, 2)
        assert torch.equal(loss(net, 0), off) and torch.equal(loss(net, 9), on) and (on - off).abs() > 1e-3
        torch.testing.assert_close(net.logits(net.maps(images())), net.tag_scores(images()).logit())
        assert torch.equal(on, net.loss(net.logits(net.maps(images())), TAGS))

    def test_it_does_not_learn_before_its_epoch_and_does_then(self) -> None:
        """Neither by a gradient nor by decay of weights that have none."""
        net = classifier(begin=2)
        optim = optimizer(net, FitSpec(lr=1e-2, weight_decay=0.1))
        begin = {name: value.clone() for name, value in net.ars.named_parameters()}
        moved: dict[int, set[str]] = {}
        for epoch in (0, 1, 2, 3):
            optim.zero_grad(set_to_none=True)
            loss(net, epoch).backward()
            optim.step()
            moved[epoch] = {name for name, value in net.ars.named_parameters() if not torch.equal(value, begin[name])}
        assert moved[1] == set() and moved[2] >= {"attention.gate", "reactivation.conv.weight"}
        assert moved[3] == set(begin)

    def test_the_gate_learns_ten_times_as_fast(self) -> None:
        net = classifier(head_rate=3.0)
        rates = {name: net.rate(name) for name, _ in net.named_parameters()}
        assert rates.pop("ars.attention.gate") == 10 and rates.pop("head.weight") == 3 and set(rates.values()) == {1}
        groups = {id(p): group for group in net.groups(0.01) for p in group["params"]}
        gate = groups[id(net.ars.attention.gate)]
        assert gate["lr"] == pytest.approx(0.1) and gate["weight_decay"] == 0

    @torch.no_grad()
    def test_classes_may_compete_for_the_refined_pixels(self) -> None:
        net = stirred(classifier(compete="softmax")).eval()
        nn.init.normal_(net.head.bias)
        maps = net.head(net.taps(images())[-1]).tolist()
        for logits, single in zip(net.logits(net.maps(images())).tolist(), maps, strict=True):
            shares = [pooling.gap(plane) for plane in linear.softmax_maps(single)]
            assert logits == pytest.approx([linear.tag_logit(s) for s in shares], rel=1e-4)

    def test_each_half_can_be_left_out(self) -> None:
        assert list(dict(classifier(attention="none").ars.named_children())) == ["reactivation"]
        assert list(dict(classifier(reactivation=False).ars.named_children())) == ["attention"]
        plain = classifier(attention="none", reactivation=False)
        assert len(plain.ars) == 0 and torch.equal(loss(plain, 0), loss(plain, 9))


class TestArml:
    def test_it_fits_labels_and_fits(self) -> None:
        lab = plan()
        kinds = [(call.kind, call.name) for call in lab.calls]
        assert kinds == [("fit", "classifier"), ("label", "pseudo"), ("fit", "segmenter")]
        assert lab.call("classifier").masks == {}, "the classifier learns from tags alone"
        assert {key: mask.name for key, mask in lab.call("segmenter").masks.items()} == {"pseudo": "pseudo"}

    def test_the_defaults_are_those_of_the_paper(self) -> None:
        lab = plan()
        net = lab.call("classifier").build()
        assert isinstance(net, Relocalized) and net.begin == 2 and net.head.bias is None and len(net.ars) == 2
        assert isinstance(net.pool, GAP)
        rule = lab.call("pseudo").build()
        assert isinstance(rule, RefinedArgmax) and isinstance(rule.source, SignedCam) and rule.steps == []
        assert isinstance(rule.maker, Scaled) and rule.maker.by == "joint"
        peers = lab.call("segmenter").build()
        assert isinstance(peers, Peers) and len(peers.nets) == 3 and peers.masks == ("pseudo",)
        assert all(isinstance(net, PSPNet) and net.stride == 8 for net in peers.nets)
        assert isinstance(peers.loss, SWV) and (peers.loss.agreed, peers.loss.split) == (2, 0.5)
        assert isinstance(peers.relation, SRM) and (peers.relation.distance, peers.relation.angle) == (30, 60)
        assert (peers.loss_weight, peers.relation_weight) == (0.8, 0.2)
        assert (peers.teacher, peers.answer) == ("each", "first")

    @pytest.mark.parametrize("colours", ["plain", "imagenet"])
    def test_colours_are_shifted_in_both_stages_or_in_none(self, colours: str) -> None:
        lab, image = plan(**SMALL, colours=colours), torch.rand(1, 3, 8, 8)
        stages = [lab.call(step).build() for step in ("classifier", "segmenter")]
        assert [torch.equal(one.normalise(image), image) for one in stages] == [colours == "plain"] * 2

    @pytest.mark.parametrize(
        ("relation", "kind"),
        [("structure", SRM), ("point", PointWise), ("kl", KL), ("crl", Correlation), ("none", type(None))],
    )
    def test_the_second_loss_can_be_chosen(self, relation: str, kind: type) -> None:
        peers = plan(**SMALL, relation=relation, alpha=3, beta=6, temperature=4, omega="inf").call("segmenter").build()
        assert isinstance(peers.relation, kind) and (peers.loss.agreed, peers.loss.split) == (1, 0)
        if relation == "structure":
            assert (peers.relation.distance, peers.relation.angle) == (3, 6)
        if relation == "kl":
            assert peers.relation.temperature == 4

    def test_one_network_alone_is_the_plain_second_stage(self) -> None:
        plain = {"colours": "imagenet", "networks": 1, "omega": 1, "relation": "none", "vote_weight": 1}
        peers = plan(**SMALL, **plain).call("segmenter").build()
        assert len(peers.nets) == 1 and peers.relation is None
        lab = FakeLab()
        Cam(**{key: value for key, value in SMALL.items() if key != "tap"}).plan(lab)  # type: ignore[arg-type]
        twin = lab.call("segmenter").build()
        twin.net.load_state_dict(peers.nets[0].state_dict())
        one = Batch(images(), TAGS, {"pseudo": torch.randint(0, 3, (2, 32, 32))})
        torch.testing.assert_close(peers.eval()(one, clock(0))["pixels"], twin.eval()(one, clock(0))["pixels"])
        torch.testing.assert_close(peers.predict(images()), twin.predict(images()))

    @torch.no_grad()
    def test_maps_are_signed_and_scaled_together(self) -> None:
        lab = plan(**SMALL)
        torch.manual_seed(0)
        net = lab.call("classifier").build().eval()
        rule = lab.call("pseudo").build()
        signed = SignedCam()(net, images())
        assert torch.equal(signed, net.maps(images())) and signed.min() < 0
        maps = rule.maps(net, images())
        assert [(one.min().item(), one.max().item()) for one in maps] == [(0, 1)] * 2, "over all classes of an image"

    def test_masks_of_several_taps_are_steps_of_their_own(self) -> None:
        lab = plan(**{**SMALL, "tap": 3}, mask_taps=(1, 3))
        assert lab.names("label") == ["pseudo-1", "pseudo-3"]
        peers = lab.call("segmenter")
        assert {key: mask.name for key, mask in peers.masks.items()} == {n: n for n in ("pseudo-1", "pseudo-3")}
        assert peers.build().masks == ("pseudo-1", "pseudo-3")
        net = lab.call("classifier").build().eval()
        assert len(net.taps(images())) == 2
        for name, side in (("pseudo-1", 8), ("pseudo-3", 2)):
            source = lab.call(name).build().source
            assert isinstance(source, GradCam) and source.signed
            assert source(net, images()).shape == (2, 3, side, side)

    def test_a_mask_of_the_last_tap_is_the_plain_one(self) -> None:
        """Gradients through nothing but a mean: Grad-CAM there differs by the number of pixels alone."""
        net = plan(**SMALL).call("classifier").build().eval()
        plain, graded = (
            plan(**SMALL, mask_taps=taps).call(name).build() for taps, name in (((), "pseudo"), ((2,), "pseudo-2"))
        )
        with torch.inference_mode():
            found = [rule.maps(net, images()) for rule in (plain, graded)]
        torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)

    def test_white_pixels_are_left_out_on_demand(self) -> None:
        (glass,) = plan(**SMALL, white=200, white_size=80).call("pseudo").build().steps
        assert isinstance(glass, WhitePixels) and (glass.above, glass.size) == (200, 80)

    @pytest.mark.parametrize(
        ("options", "kind", "stride"),
        [
            ({"seg_encoder": "tu-resnest14d"}, PSPNet, 8),
            ({"seg_encoder": "mit_b1"}, PSPNet, 8),
            ({"seg_encoder": "mit_b0", "seg_net": "unet", "seg_depth": 5, "seg_width": 4}, UNet, 32),
            ({"seg_encoder": "resnet38", "seg_width": 8}, Pyramid, 8),
        ],
    )
    def test_the_networks_of_the_papers_first_table_can_be_had(self, options: Any, kind: type, stride: int) -> None:
        build = plan(**options, networks=2, omega=1).call("segmenter").build
        with torch.device("meta" if kind is Pyramid else "cpu"):
            net = build.keywords["net"]()
        assert isinstance(net, kind)
        assert (net.encoder.strides[-1] if isinstance(net, Pyramid) else net.stride) == stride

    @pytest.mark.parametrize(("depth", "channels"), [(3, 512), (4, 1024), (5, 4096)])
    def test_the_depth_of_resnet_38_is_that_of_its_features(self, depth: int, channels: int) -> None:
        build = plan(seg_encoder="resnet38", seg_depth=depth).call("segmenter").build
        with torch.device("meta"):
            assert build.keywords["net"]().encoder.channels == [channels]

    @pytest.mark.parametrize("options", [{}, {"mask_taps": (1, 2)}])
    def test_what_it_trains_can_be_built_trained_asked_and_draws(self, options: Any) -> None:
        lab, image = plan(**SMALL, **options), images()
        image, tags = torch.cat([image, image.flip(-1)]), torch.cat([TAGS, TAGS])
        for name in lab.names("fit"):
            call = lab.call(name)
            learner = call.build()
            masks = {key: torch.randint(0, 3, (4, 32, 32)) for key in call.masks}
            losses = learner.train()(Batch(image, tags, masks), clock(2))
            assert all(term.shape == () and term.isfinite() for term in losses.values())
            sum(losses.values()).backward()
            assert all(p.grad is not None for p in learner.parameters())
            maps = learner.eval().predict(image)
            torch.testing.assert_close(maps.sum(1), torch.ones(4, 32, 32))
            if name == "classifier":
                allowed = (tags != 0)[:, :, None, None]
                for label in lab.names("label"):
                    rule = lab.call(label).build()
                    with torch.inference_mode():
                        drawn = rule.decide(rule.refine(rule.maps(learner, image), allowed, image), allowed)
                    assert drawn.shape == (4, 32, 32) and set(drawn[0].unique().tolist()) <= {0, 2}

    @pytest.mark.parametrize(
        "options",
        [
            {"mask_taps": (5,)},
            {"mask_taps": (2, 2)},
            {"networks": 1},
            {"networks": 1, "omega": 1},
            {"networks": 0},
            {"networks": 2},
            {"seg_encoder": "resnet38", "seg_net": "unet"},
            {"omega": 0.9},
            {"omega": ".inf"},
            {"relation": "relation"},
            {"alpha": 0, "beta": 0},
            {"vote_weight": 0},
            {"attention": "cca"},
            {"compete": "sigmoid"},
            {"ars_begin": -1},
        ],
    )
    def test_options_out_of_range_are_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            Arml(**options)
