"""Grad-CAM++, HistoSegNet and ReCAM: their plans, and that every option reaches the part it is for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from eosin.core.fingerprint import digest
from eosin.core.values import Batch, Clock
from eosin.methods.cam import Cam
from eosin.methods.grad_cam_pp import GradCamPlusPlus
from eosin.methods.histosegnet import HistoSegNet
from eosin.methods.method import Method
from eosin.methods.recam import ReCam
from eosin.parts.cams import Averaged, GradCam, LinearCam, Scaled
from eosin.parts.classifiers import ReactivatedClassifier
from eosin.parts.pooling.highest import HighestMean
from eosin.parts.pseudo import RefinedArgmax
from eosin.parts.refine import Constant, DenseCrf, EmptyGlass, Remainder, Subtracted, WhitePixels
from methods.fake_lab import FakeLab

THREE = (GradCamPlusPlus, HistoSegNet, ReCam)
SMALL: dict[str, Any] = {"tap": 1, "seg_depth": 3, "seg_width": 4}


def planned(method: Method) -> FakeLab:
    lab = FakeLab()
    assert method.plan(lab).name == "segmenter"  # type: ignore[arg-type]
    return lab


def rule(method: Method) -> RefinedArgmax:
    found = planned(method).call("pseudo").build()
    assert isinstance(found, RefinedArgmax)
    return found


@pytest.mark.parametrize("kind", THREE)
def test_the_plan_is_that_of_the_paper(kind: type[Method]) -> None:
    lab = planned(kind())
    trained = list(kind.steps)
    assert lab.names("fit") == trained and trained[-1] == "segmenter"
    assert [s.name for s in lab.call("pseudo").sources] == [trained[-2]], "the last classifier draws"
    assert all(not lab.call(step).masks for step in trained[:-1]), "classifiers learn from tags alone"
    assert {key: mask.name for key, mask in lab.call("segmenter").masks.items()} == {"pseudo": "pseudo"}


@pytest.mark.parametrize("kind", THREE)
def test_what_is_trained_can_be_built_trained_asked_and_draws(kind: type[Method]) -> None:
    lab = planned(kind.model_validate(SMALL))
    generator = torch.Generator().manual_seed(0)
    image, tags = torch.rand(2, 3, 32, 32, generator=generator), torch.tensor([[1.0, 0, 1], [0, 1, float("nan")]])
    for step in lab.names("fit"):
        call = lab.call(step)
        learner = call.build()
        masks = {key: torch.randint(0, 3, (2, 32, 32), generator=generator) for key in call.masks}
        losses = learner.train()(Batch(image, tags, masks), Clock(0, 0, 1, 1))
        assert losses and all(loss.shape == () and loss.isfinite() for loss in losses.values())
        maps = learner.eval().predict(image)
        torch.testing.assert_close(maps.sum(1), torch.ones(2, 32, 32))
        if step == lab.call("pseudo").sources[0].name:
            chosen, allowed = lab.call("pseudo").build(), (tags != 0)[:, :, None, None]
            drawn = chosen.decide(chosen.refine(chosen.maps(learner, image), allowed, image), allowed)
            assert drawn.shape == (2, 32, 32) and set(drawn[0].unique().tolist()) <= {0, 2, 255}
            assert len(drawn.unique()) > 1


@pytest.mark.parametrize("kind", THREE)
def test_the_second_stage_is_that_of_cam(kind: type[Method]) -> None:
    """Only so does a comparison tell masks apart, and nothing else."""
    ours, cam = (planned(method).call("segmenter").build for method in (kind(), Cam()))
    assert digest(ours) == digest(cam)


@pytest.mark.parametrize("kind", THREE)
def test_the_options_of_both_stages_reach_the_parts(kind: type[Method]) -> None:
    options = {"scale": 0.5, "dropout": 0.25, "pool": "highest", "share": 0.3, "positive": "balanced", "tap": 1}
    maps = {"map_scales": (1.0, 0.5), "map_views": 4, "band": 0.1, "merge": False}
    segmenter = {"seg_net": "pspnet", "seg_depth": 3, "seg_width": 32, "seg_scale": 0.5}
    lab = planned(kind.model_validate({**options, **maps, **segmenter}))
    classifier = lab.call("classifier").build()
    assert classifier.scale == 0.5 and classifier.dropout.p == 0.25
    assert isinstance(classifier.pool, HighestMean) and classifier.pool.share == 0.3
    assert classifier.loss.positive.tolist() == pytest.approx([1 / 3, 1, 10])
    chosen = lab.call("pseudo").build()
    assert chosen.band == 0.1 and not chosen.merge
    averaged = chosen.maker.maker if isinstance(chosen.maker, Scaled) else chosen.maker
    assert isinstance(averaged, Averaged) and averaged.scales == (1.0, 0.5) and len(averaged.views) == 4
    net = lab.call("segmenter").build()
    assert type(net.net).__name__ == "PSPNet" and net.scale == 0.5


class TestGradCamPlusPlus:
    def test_its_options_choose_weights_tap_and_scaling(self) -> None:
        plain = rule(GradCamPlusPlus())
        assert isinstance(plain.source, GradCam) and plain.source.weigh == "plus-plus" and plain.source.index == -1
        assert isinstance(plain.maker, Scaled) and plain.maker.by == "joint" and not plain.scored and not plain.steps
        other = rule(GradCamPlusPlus(weights="grad-cam", scaling="class", map_tap=2, tap=3))
        assert other.source.weigh == "mean" and other.source.index == 0 and other.maker.by == "class"
        assert isinstance(rule(GradCamPlusPlus(scaling="none")).maker, Averaged)

    def test_maps_of_a_finer_tap_need_it_of_the_encoder(self) -> None:
        image = torch.rand(1, 3, 64, 64)
        for options, taps in (({"map_tap": 1}, 2), ({"map_tap": 2}, 1), ({}, 1)):
            lab = planned(GradCamPlusPlus(tap=2, **options))
            classifier = lab.call("classifier").build().eval()
            assert len(classifier.taps(image)) == taps
            fine = 16 if taps == 2 else 8
            assert lab.call("pseudo").build().source(classifier, image).shape == (1, 3, fine, fine)

    def test_a_tap_beyond_the_classifier_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="map_tap = 4 is beyond the classifier, which ends at tap = 3"):
            GradCamPlusPlus(tap=3, map_tap=4)

    def test_white_pixels_are_left_out_on_demand(self) -> None:
        (step,) = rule(GradCamPlusPlus(white=200, white_size=80)).steps
        assert isinstance(step, WhitePixels) and (step.above, step.size) == (200, 80)


class TestHistoSegNet:
    def test_all_adjustments_stand_in_the_order_of_the_paper(self) -> None:
        chosen = rule(HistoSegNet(refine="crf", crf_smooth=(1, 2), crf_edges=(3, 4, 5), crf_steps=6, crf_scale=0.5))
        glass, other, subtracted, crf = chosen.steps
        assert isinstance(glass, EmptyGlass) and glass.peak == 0.75
        assert isinstance(other, Remainder) and (other.factor, other.power) == (0.05, 1.0)
        assert isinstance(subtracted, Subtracted) and subtracted.spare_last
        assert isinstance(crf, DenseCrf) and crf.smooth == (1, 2) and crf.edges == (3, 4, 5)
        assert (crf.steps, crf.scale) == (6, 0.5)
        assert isinstance(chosen.source, GradCam) and chosen.source.weigh == "rms" and chosen.scored
        assert isinstance(chosen.maker, Scaled) and chosen.maker.by == "class"

    def test_each_adjustment_can_be_left_out(self) -> None:
        assert [type(step) for step in rule(HistoSegNet()).steps] == [EmptyGlass, Remainder, Subtracted], "no CRF"
        bare = rule(HistoSegNet(background=0, other=0, subtract=False, scored=False))
        assert bare.steps == [] and not bare.scored
        (subtracted,) = rule(HistoSegNet(background=0, other=0)).steps
        assert not subtracted.spare_last, "only the map of other tissue is spared"

    def test_the_crf_of_the_paper_is_the_default(self) -> None:
        crf = rule(HistoSegNet(refine="crf")).steps[-1]
        assert vars(crf) == vars(DenseCrf()) and crf.smooth == (3, 30) and crf.edges == (10, 20, 50) and crf.steps == 5


class TestReCam:
    def test_the_second_classifier_is_trained_after_the_first(self) -> None:
        lab = planned(ReCam(reactivation=0.5, slow=0.2, product="printed"))
        plain, second = lab.call("classifier").build(), lab.call("recam").build()
        assert isinstance(plain, ReactivatedClassifier) and (plain.reactivation, plain.slow) == (0, 1)
        assert isinstance(second, ReactivatedClassifier) and (second.reactivation, second.slow) == (0.5, 0.2)
        assert second.product == "printed" and planned(ReCam()).call("recam").build().product == "agreed"
        assert [s.name for s in lab.call("recam").sources] == ["classifier"]
        shapes = [{key: value.shape for key, value in net.state_dict().items()} for net in (plain, second)]
        assert shapes[0] == shapes[1], "one begins with the weights of the other"

    def test_its_maps_are_linear_scaled_and_of_several_scales(self) -> None:
        chosen = rule(ReCam())
        assert isinstance(chosen.source, LinearCam) and chosen.maker.by == "class" and chosen.steps == []
        assert chosen.maker.maker.scales == (1.0, 0.5, 1.5, 2.0) and len(chosen.maker.maker.views) == 2

    def test_background_and_white_pixels_are_left_out_on_demand(self) -> None:
        constant, white = rule(ReCam(background=0.21, white=200)).steps
        assert isinstance(constant, Constant) and constant.value == 0.21 and isinstance(white, WhitePixels)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (GradCamPlusPlus, {"weights": "layer-cam"}),
        (GradCamPlusPlus, {"white": 255}),
        (GradCamPlusPlus, {"map_scales": ()}),
        (HistoSegNet, {"crf_smooth": (0, 30)}),
        (HistoSegNet, {"crf_edges": (10, 20)}),
        (HistoSegNet, {"crf_scale": 2}),
        (HistoSegNet, {"other": -0.1}),
        (ReCam, {"reactivation": -1}),
        (ReCam, {"slow": 0}),
        (ReCam, {"map_views": 3}),
        (ReCam, {"compete": "softmax"}),
    ],
)
def test_options_out_of_range_are_refused(kind: type[Method], options: dict) -> None:
    with pytest.raises(ValidationError):
        kind.model_validate(options)
