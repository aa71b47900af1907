"""MLPS: its plan, that options reach the parts, and what its learners do with them."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from eosin.core.values import Batch, Clock
from eosin.methods.mlps import Mlps
from eosin.parts.attention.dropout_attention import DropoutAttention
from eosin.parts.cams import GradCam, Scaled
from eosin.parts.classifiers import CamClassifier, ErasedClassifier
from eosin.parts.losses.cross_entropy import PixelCrossEntropy
from eosin.parts.losses.soft_margin import SoftMargin
from eosin.parts.pooling.gap import GAP
from eosin.parts.refine import WhitePixels
from eosin.parts.segmenters import DeepLabV3Plus, ManyMasksSegmenter
from methods.fake_lab import FakeLab

SMALL: dict[str, Any] = {
    "tap": 2,
    "map_taps": (0, 1, 2),
    "output_stride": 32,
    "seg_net": "unet",
    "seg_depth": 3,
    "seg_width": 4,
}
TAGS = torch.tensor([[1.0, 0, 1], [0, 1, float("nan")]])


def plan(**options: Any) -> FakeLab:
    lab = FakeLab()
    assert Mlps(**options).plan(lab).name == "segmenter"  # type: ignore[arg-type]
    return lab


def images() -> Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))


def test_it_fits_labels_by_each_layer_and_fits() -> None:
    lab = plan()
    kinds = [(call.kind, call.name) for call in lab.calls]
    labels = [("label", f"pseudo-{tap}") for tap in (2, 3, 4)]
    assert kinds == [("fit", "classifier"), *labels, ("fit", "segmenter")]
    assert lab.call("classifier").masks == {}, "the classifier learns from tags alone"
    assert list(lab.call("segmenter").masks) == ["pseudo-2", "pseudo-3", "pseudo-4"]
    assert all([s.name for s in lab.call(name).sources] == ["classifier"] for _, name in labels)


def test_the_defaults_are_those_of_the_paper() -> None:
    lab = plan()
    made = lab.call("classifier").build()
    assert isinstance(made, ErasedClassifier) and isinstance(made.erase, DropoutAttention)
    assert (made.erase.begin, made.erase.decay, made.erase.least) == (3, 0.98, 0.65)
    assert made.encoder.channels == [128, 256, 512] and isinstance(made.pool, GAP) and made.compete == "none"
    for index, tap in enumerate((2, 3, 4)):
        rule = lab.call(f"pseudo-{tap}").build()
        assert isinstance(rule.source, GradCam) and rule.source.weigh == "mean" and rule.source.signed
        assert rule.source.index == (-1 if tap == 4 else index)
        assert isinstance(rule.maker, Scaled) and rule.maker.by == "joint" and not rule.steps
    segmenter = lab.call("segmenter").build()
    assert isinstance(segmenter, ManyMasksSegmenter) and isinstance(segmenter.net, DeepLabV3Plus)
    assert segmenter.weights == {"pseudo-2": 0.2, "pseudo-3": 0.2, "pseudo-4": 0.6}


def test_the_options_reach_the_parts() -> None:
    lab = plan(**SMALL, pda_begin=1, pda_decay=0.9, pda_least=0.5, white=200.0, white_size=30, head_rate=10.0)
    made = lab.call("classifier").build()
    assert (made.erase.begin, made.erase.decay, made.erase.least) == (1, 0.9, 0.5)
    assert made.rate("head.weight") == 10 and made.rate("encoder.net.conv1.weight") == 1
    (step,) = lab.call("pseudo-1").build().steps
    assert isinstance(step, WhitePixels) and (step.above, step.size) == (200, 30)
    assert type(plan(**SMALL, pda=False).call("classifier").build()) is CamClassifier
    one = plan(**{**SMALL, "map_taps": (1,), "mask_weights": (1.0,)})
    assert one.names("label") == ["pseudo-1"] and one.call("classifier").build().encoder.channels == [64, 128]


def test_what_it_trains_can_be_built_trained_asked_and_draws() -> None:
    lab, image = plan(**SMALL), images()
    for name in lab.names("fit"):
        call = lab.call(name)
        learner = call.build()
        masks = {key: torch.randint(0, 3, (2, 32, 48)) for key in call.masks}
        losses = learner.train()(Batch(image, TAGS, masks), Clock(5, 5, 9, 9))
        assert all(loss.shape == () and loss.isfinite() for loss in losses.values())
        sum(losses.values()).backward()
        assert all(p.grad is not None for p in learner.parameters())
        torch.testing.assert_close(learner.eval().predict(image).sum(1), torch.ones(2, 32, 48))
        for label in lab.names("label") if name == "classifier" else ():
            rule = lab.call(label).build()
            allowed = (TAGS != 0)[:, :, None, None]
            mask = rule.decide(rule.refine(rule.maps(learner, image), allowed, image), allowed)
            assert mask.shape == (2, 32, 48) and set(mask[0].unique().tolist()) <= {0, 2}


def test_empty_glass_is_left_out_of_every_mask() -> None:
    lab, image = plan(**SMALL, white=200.0, white_size=4), images() / 2
    image[:, :, :8, :8] = 1.0
    learner, allowed = lab.call("classifier").build().eval(), (TAGS != 0)[:, :, None, None]
    for label in lab.names("label"):
        rule = lab.call(label).build()
        mask = rule.decide(rule.refine(rule.maps(learner, image), allowed, image), allowed)
        assert (mask[:, :8, :8] == 255).all() and (mask[:, 8:] != 255).all()


class TestErasedClassifier:
    @staticmethod
    def made() -> ErasedClassifier:
        torch.manual_seed(0)
        learner: ErasedClassifier = plan(**SMALL).call("classifier").build()
        return learner.eval()

    def test_in_the_first_epochs_it_is_a_plain_one(self) -> None:
        net, batch = self.made(), Batch(images(), TAGS)
        plain = CamClassifier.losses(net, batch, Clock(0, 2, 9, 9))
        assert torch.equal(net(batch, Clock(0, 2, 9, 9))["tags"], plain["tags"])
        assert not torch.equal(net(batch, Clock(0, 3, 9, 9))["tags"], plain["tags"])

    def test_later_its_features_are_erased_before_they_are_classified(self) -> None:
        net, batch, clock = self.made(), Batch(images(), TAGS), Clock(5, 5, 9, 9)
        features = net.taps(batch.image)[-1]
        shown = F.conv2d(features, net.head.weight).relu()
        kept = torch.where(shown > 0.98**5 * shown.amax((2, 3), keepdim=True), 0.0, shown).mean(1, keepdim=True)
        logits = F.conv2d(features * kept, net.head.weight).mean((2, 3))
        torch.testing.assert_close(net(batch, clock)["tags"], SoftMargin()(logits, TAGS))

    @torch.no_grad()
    def test_maps_and_scores_are_of_all_it_sees(self) -> None:
        net = self.made()
        maps = F.conv2d(net.taps(images())[-1], net.head.weight)
        torch.testing.assert_close(net.maps(images()), maps)
        torch.testing.assert_close(net.tag_scores(images()), maps.mean((2, 3)).sigmoid())


def test_the_loss_of_several_masks_is_their_weighted_sum() -> None:
    net = ManyMasksSegmenter(partial(nn.Conv2d, 3, 3, 1), partial(PixelCrossEntropy), {"a": 0.25, "b": 0.75}, scale=0.5)
    masks = {
        name: torch.randint(0, 3, (2, 16, 16), generator=torch.Generator().manual_seed(i))
        for i, name in ((0, "a"), (1, "b"))
    }
    masks["b"][:, :8] = 255
    image = torch.rand(2, 3, 16, 16)
    losses = net(Batch(image, TAGS, masks), Clock(0, 0, 1, 1))
    logits = net.logits(image)
    for name, weight in (("a", 0.25), ("b", 0.75)):
        small = masks[name][:, 1::2, 1::2]
        torch.testing.assert_close(losses[name], weight * F.cross_entropy(logits, small, ignore_index=255))


@pytest.mark.parametrize(
    "options",
    [
        {"map_taps": (2, 4)},
        {"map_taps": (), "mask_weights": ()},
        {"map_taps": (3, 2, 4)},
        {"map_taps": (3, 4, 5)},
        {"tap": 3},
        {"mask_weights": (-0.2, 0.6, 0.6)},
        {"mask_weights": (0, 0, 0)},
        {"pda_decay": 0.0},
        {"pda_least": 1.5},
        {"white": 255.0},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Mlps(**options)
