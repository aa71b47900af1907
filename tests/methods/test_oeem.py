"""OEEM: joined stages, signed maps, and options that reach the parts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from eosin.core.fingerprint import digest
from eosin.core.values import Batch, Clock
from eosin.methods.oeem import Joined, Oeem, SignedArgmax
from eosin.parts.backbones.encoder import Encoder
from eosin.parts.cams import Averaged
from eosin.parts.classifiers import CamClassifier
from eosin.parts.losses.cross_entropy import PixelCrossEntropy
from eosin.parts.losses.plf import PLF
from eosin.parts.losses.soft_margin import SoftMargin
from eosin.parts.pooling.gap import GAP
from eosin.parts.pooling.mpfp import MPFP
from eosin.parts.segmenters import PSPNet, UNet
from methods.fake_lab import FakeLab
from oracles import cam as slow

SMALL: dict[str, Any] = {"taps": (1, 2), "seg_net": "unet", "seg_depth": 3, "seg_width": 4}
STAGES = partial(Encoder, "resnet18", (1, 2))


def plan(**options: Any) -> FakeLab:
    lab = FakeLab()
    assert Oeem(**options).plan(lab).name == "segmenter"  # type: ignore[arg-type]
    return lab


def classifier(classes: int = 3) -> CamClassifier:
    torch.manual_seed(0)
    return CamClassifier(classes, partial(Joined, STAGES), partial(GAP), partial(SoftMargin)).eval()


def images() -> Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_joined_stages_lie_one_after_another_at_the_size_of_the_first() -> None:
    joined = Joined(STAGES).eval()
    assert joined.channels == [64 + 128] and joined.strides == [4]
    fine, coarse = joined.encoder(images())
    (features,) = joined(images())
    assert features.shape == (2, 192, 8, 12) and torch.equal(features[:, :64], fine)
    expected = F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
    torch.testing.assert_close(features[:, 64:], expected)


@torch.no_grad()
def test_stages_of_one_size_are_joined_as_they_are() -> None:
    joined = Joined(partial(Encoder, "resnet18", (2, 3, 4), 8)).eval()
    taps = joined.encoder(images())
    assert [tuple(tap.shape[2:]) for tap in taps] == [(4, 6)] * 3 and joined.channels == [896]
    torch.testing.assert_close(joined(images())[0], torch.cat(taps, 1))


@torch.no_grad()
def test_a_map_is_the_sum_of_what_each_stage_says() -> None:
    """The classifier is linear, so that of joined features is the sum of one for each stage."""
    net = classifier()
    fine, coarse = net.encoder.encoder(net.normalise(images()))
    weights = net.head.weight[:, :, 0, 0]
    for found, a, b in zip(net.maps(images()), fine, coarse, strict=True):
        first = torch.tensor(slow.linear_maps(a.tolist(), weights[:, :64].tolist()))
        second = torch.tensor(slow.linear_maps(b.tolist(), weights[:, 64:].tolist()))
        second = F.interpolate(second[None], scale_factor=2.0, mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(found, first + second, rtol=1e-4, atol=1e-4)


class TestSignedArgmax:
    rule = SignedArgmax(partial(Averaged))

    @torch.no_grad()
    def test_it_draws_with_the_maps_as_they_are(self) -> None:
        net = classifier()
        expected = F.interpolate(net.maps(images()), size=(32, 48), mode="bilinear", align_corners=False)
        maps = self.rule.maps(net, images())
        assert torch.equal(maps, expected) and (maps < 0).any()

    @torch.no_grad()
    def test_scales_are_averaged_before_anything_else(self) -> None:
        net, scales = classifier(), (1.0, 1.25, 2.0)
        seen = []
        for scale in scales:
            size = [round(side * scale) for side in (32, 48)]
            scaled = F.interpolate(images(), size=size, mode="bilinear", align_corners=False)
            seen.append(F.interpolate(net.maps(scaled), size=(32, 48), mode="bilinear", align_corners=False))
        maps = SignedArgmax(partial(Averaged, scales)).maps(net, images())
        torch.testing.assert_close(maps, torch.stack(seen).mean(0))

    def test_the_best_of_the_present_classes_wins_also_below_zero(self) -> None:
        maps = torch.tensor([[[[-1.0, -3.0]], [[-2.0, -2.5]], [[9.0, 9.0]]]])
        allowed = torch.tensor([[True, True, False]])[:, :, None, None]
        assert self.rule.decide(maps, allowed).tolist() == [[[0, 1]]]


class TestOeem:
    def test_it_fits_labels_and_fits(self) -> None:
        lab = plan()
        kinds = [(call.kind, call.name) for call in lab.calls]
        assert kinds == [("fit", "classifier"), ("label", "pseudo"), ("fit", "segmenter")]
        assert lab.call("classifier").masks == {}, "the classifier learns from tags alone"
        assert {key: mask.name for key, mask in lab.call("segmenter").masks.items()} == {"pseudo": "pseudo"}

    def test_the_options_reach_the_parts(self) -> None:
        lab = plan(taps=(1, 3), output_stride=16, scale=0.5, map_scales=(1.0, 2.0), map_views=4, merge=False)
        made = lab.call("classifier").build()
        assert made.encoder.channels == [64 + 256] and made.encoder.strides == [4]
        assert isinstance(made.pool, GAP) and made.head.bias is None and made.scale == 0.5
        rule = lab.call("pseudo").build()
        assert isinstance(rule, SignedArgmax) and not rule.merge
        assert rule.maker.scales == (1.0, 2.0) and len(rule.maker.views) == 4
        segmenter = lab.call("segmenter").build()
        assert isinstance(segmenter.net, PSPNet) and segmenter.net.stride == 8

    def test_attention_and_pooling_of_the_gland_method_can_be_put_in(self) -> None:
        made = plan(**SMALL, attention="cca", attention_at=(1, 2), pool="mpfp").call("classifier").build()
        assert isinstance(made.pool, MPFP) and made.encoder.channels == [64 + 128]
        gates = [name for name, _ in made.named_parameters() if name.endswith("gate")]
        assert len(gates) == 6 and all(made.rate(name) == 10 for name in gates)
        assert not any("attention" in name for name, _ in plan(**SMALL).call("classifier").build().named_parameters())

    def test_easy_pixels_weigh_more_without_the_confidence_of_a_later_method(self) -> None:
        loss = plan(**SMALL).call("segmenter").build().loss
        assert isinstance(loss, PLF) and not loss.confidence
        segmenter = plan(**SMALL, seg_loss="ce").call("segmenter").build()
        assert isinstance(segmenter.loss, PixelCrossEntropy) and isinstance(segmenter.net, UNet)

    @pytest.mark.parametrize(("option", "step"), [("pretrained", "classifier"), ("seg_pretrained", "segmenter")])
    def test_a_weight_file_counts_by_its_content(self, tmp_path: Path, option: str, step: str) -> None:
        digests = []
        for content in (b"1", b"2", b"1"):
            (tmp_path / "w.pth").write_bytes(content)
            digests.append(digest(plan(**{option: str(tmp_path / "w.pth")}).call(step).build))
        assert digests[0] == digests[2] != digests[1]

    def test_what_it_trains_can_be_built_trained_and_asked(self) -> None:
        lab, image = plan(**SMALL), images()
        tags = torch.tensor([[1.0, 0, 1], [0, 1, float("nan")]])
        for name in lab.names("fit"):
            call = lab.call(name)
            learner = call.build()
            masks = {key: torch.randint(0, 3, (2, 32, 48)) for key in call.masks}
            losses = learner.train()(Batch(image, tags, masks), Clock(0, 0, 1, 1))
            assert all(loss.shape == () and loss.isfinite() for loss in losses.values())
            sum(losses.values()).backward()
            assert all(p.grad is not None for p in learner.parameters())
            maps = learner.eval().predict(image)
            assert maps.shape == (2, 3, 32, 48)
            torch.testing.assert_close(maps.sum(1), torch.ones(2, 32, 48))

    @pytest.mark.parametrize(
        "options",
        [
            {"taps": ()},
            {"taps": (3, 2)},
            {"taps": (2, 2)},
            {"taps": (-1, 2)},
            {"map_scales": ()},
            {"map_scales": (0.0,)},
            {"output_stride": 4},
            {"seg_net": "pspnet2"},
            {"seg_loss": "plf"},
            {"seg_depth": 2},
        ],
    )
    def test_options_out_of_range_are_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            Oeem(**options)
