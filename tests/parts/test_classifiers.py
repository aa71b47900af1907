"""The tag classifier: its maps, its logits, its gradients, against loops and by hand."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from eosin.core.values import Batch, Clock
from eosin.parts.attention.cca import CCA
from eosin.parts.backbones.encoder import Encoder
from eosin.parts.classifiers import CamClassifier, ReactivatedClassifier
from eosin.parts.losses.reactivation import Reactivation
from eosin.parts.losses.soft_margin import SoftMargin
from eosin.parts.pooling.gap import GAP
from eosin.parts.pooling.highest import HighestMean
from oracles import cam as slow
from oracles import pooling
from oracles import reactivation as second

CLOCK = Clock(0, 0, 1, 1)
K = 3


class Small(nn.Module):
    """Two taps of a little network at strides 1 and 2."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.strides = [4, 5], [1, 2]
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, stride=2, padding=1)

    def forward(self, image: Tensor) -> list[Tensor]:
        fine = self.first(image).relu()
        return [fine, self.second(fine).relu()]


def classifier(pool=GAP, compete="none", encoder=Small, **settings) -> CamClassifier:
    torch.manual_seed(0)
    return CamClassifier(K, partial(encoder), partial(pool), partial(SoftMargin), compete, **settings)


SIGNED = partial(classifier, GAP, "none")
COMPETING = partial(classifier, partial(HighestMean, 0.3), "softmax")
KINDS = {"signed": SIGNED, "competing": COMPETING}


def images(size: tuple[int, int] = (8, 12), count: int = 2) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(1))


def test_signed_maps_average_to_the_logits_exactly() -> None:
    net, image = SIGNED().eval(), images()
    maps = net.maps(image)
    assert maps.shape == (2, K, 4, 6) and maps.dtype == torch.float32
    assert torch.equal(net.logits(maps), maps.mean((2, 3)))
    assert torch.equal(net.tag_scores(image), maps.mean((2, 3)).sigmoid())


@pytest.mark.parametrize("kind", KINDS)
def test_maps_are_the_classifier_at_each_pixel_of_the_last_tap(kind) -> None:
    net, image = KINDS[kind]().eval(), images()
    features = net.encoder(net.normalise(image))[-1]
    bias = net.head.bias.tolist() if kind == "competing" else None
    assert (net.head.bias is None) == (kind == "signed")
    for found, one in zip(net.maps(image), features, strict=True):
        expected = slow.linear_maps(one.tolist(), net.head.weight[:, :, 0, 0].tolist(), bias)
        torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_grad_cam_without_relu_is_the_map_over_its_pixels() -> None:
    """Baselines, section 2: with average pooling and no bias the gradient's channel weights are ``W / (h w)``."""
    net, image = SIGNED().eval(), images()
    features = net.encoder(net.normalise(image))[-1].detach().requires_grad_(True)
    logits = net.logits(net.head(features))
    for k in range(K):
        (gradient,) = torch.autograd.grad(logits[:, k].sum(), features, retain_graph=True)
        grad_cam = (gradient.mean((2, 3), keepdim=True) * features).sum(1)
        torch.testing.assert_close(grad_cam, net.maps(image)[:, k] / (4 * 6))


def test_competing_logits_are_those_of_the_pooled_probability() -> None:
    net, image = COMPETING().eval(), images()
    maps = 4 * net.maps(image)
    shares = [[pooling.highest_mean(rows, 0.3) for rows in slow.softmax_maps(one)] for one in maps.tolist()]
    expected = [[slow.tag_logit(share) for share in row] for row in shares]
    torch.testing.assert_close(net.logits(maps), torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_a_certain_competing_map_has_finite_logits() -> None:
    maps = torch.zeros(1, K, 4, 4)
    maps[:, 0] = 1e4
    logits = COMPETING().logits(maps)
    assert logits.isfinite().all() and logits[0, 0] > 5 and (logits[0, 1:] < -5).all()


def test_the_surest_mistake_still_teaches() -> None:
    """A clamp of the probability has no gradient there, and one of the margin of 10 lies behind it."""
    maps = torch.zeros(1, 2, 4, 4)
    maps[:, 0] = 10.0
    net = CamClassifier(2, partial(Small), partial(GAP), partial(SoftMargin), compete="softmax")
    (gradient,) = torch.autograd.grad(net.loss(net.logits(maps.requires_grad_()), torch.tensor([[0.0, 1.0]])), maps)
    assert (gradient[:, 0] > 0.01).all() and (gradient[:, 1] < -0.01).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(8, 12), (7, 9), (1, 1)])
@pytest.mark.parametrize("scale", [1.0, 0.5, 1.5])
def test_predictions_are_probabilities_of_the_image_size(kind, size, scale) -> None:
    maps = KINDS[kind](scale=scale).eval().predict(images(size))
    assert maps.shape == (2, K, *size) and maps.dtype == torch.float32
    assert (maps >= 0).all()
    torch.testing.assert_close(maps.sum(1), torch.ones(2, *size))


def test_the_scale_is_that_of_what_the_encoder_sees() -> None:
    seen = []

    class Spy(Small):
        def forward(self, image: Tensor) -> list[Tensor]:
            seen.append(tuple(image.shape[2:]))
            return super().forward(image)

    for scale in (1.0, 0.5, 2.0, 4 / 7):
        classifier(encoder=Spy, scale=scale).maps(images((28, 14)))
    assert seen == [(28, 14), (14, 7), (56, 28), (16, 8)]


def test_dropout_drops_whole_channels_in_training_only() -> None:
    net, image = SIGNED(dropout=0.5), images()
    torch.manual_seed(1)
    assert not torch.equal(net.train().maps(image), net.maps(image))
    assert torch.equal(net.eval().maps(image), net.maps(image))


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_the_pooled_maps(kind) -> None:
    net, batch = KINDS[kind]().eval(), Batch(images(), torch.tensor([[1.0, 0, 1], [0, 1, 0]]))
    losses = net(batch, CLOCK)
    assert set(losses) == {"tags"} and losses["tags"].shape == ()
    expected = nn.functional.multilabel_soft_margin_loss(net.logits(net.maps(batch.image)), batch.tags)
    torch.testing.assert_close(losses["tags"], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_tag_removes_exactly_its_gradient(kind) -> None:
    """In the sum over tags: the mean divides by the number of known ones."""
    net, image = KINDS[kind]().eval(), images()
    tags = torch.tensor([[1.0, 0, 1], [0, 1, 0]])

    def gradient(known: Tensor) -> Tensor:
        net.zero_grad()
        (net(Batch(image, known), CLOCK)["tags"] * (~known.isnan()).sum()).backward()
        return torch.cat([p.grad.flatten() for p in net.parameters()])

    def only(i: int, k: int) -> Tensor:
        known = torch.full_like(tags, torch.nan)
        known[i, k] = tags[i, k]
        return known

    whole = gradient(tags)
    for i, k in ((0, 1), (1, 2)):
        without = tags.clone()
        without[i, k] = torch.nan
        torch.testing.assert_close(gradient(without) + gradient(only(i, k)), whole, rtol=1e-3, atol=1e-6)
        assert gradient(only(i, k)).abs().sum() > 0
    assert gradient(torch.full_like(tags, torch.nan)).abs().sum() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_reaches_every_parameter(kind) -> None:
    net = KINDS[kind](encoder=partial(Encoder, "resnet18", (2,), stem_pool=False), scale=0.5).train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # timm begins with the last of each block at 0, which lets nothing through
    net(Batch(images((32, 32)), torch.tensor([[1.0, 0, 1], [0, 1, 0]])), CLOCK)["tags"].backward()
    untouched = [n for n, p in net.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert untouched == []


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_float32_under_autocast(kind) -> None:
    net, batch = KINDS[kind]().eval(), Batch(images(), torch.tensor([[1.0, 0, 1], [0, 1, 0]]))
    with torch.autocast("cpu", torch.bfloat16):
        fast = net(batch, CLOCK)["tags"]
        assert net.predict(batch.image).dtype == torch.float32
    assert fast.dtype == torch.float32
    torch.testing.assert_close(fast, net(batch, CLOCK)["tags"], rtol=0.05, atol=0.01)


# -- re-activated --------------------------------------------------------------------------------------------------

TAGS = torch.tensor([[1.0, 0, 1], [0, 1, 0]])


def reactivated(weight: float = 1.0, **settings) -> ReactivatedClassifier:
    torch.manual_seed(0)
    return ReactivatedClassifier(
        K, partial(Small), partial(GAP), partial(SoftMargin), partial(Reactivation), reactivation=weight, **settings
    )


def test_without_a_weight_it_is_the_plain_classifier() -> None:
    net, plain, image = reactivated(0.0).eval(), SIGNED().eval(), images()
    assert torch.equal(net.maps(image), plain.maps(image)) and torch.equal(
        net.tag_scores(image), plain.tag_scores(image)
    )
    losses = net(Batch(image, TAGS), CLOCK)
    assert set(losses) == {"tags"} and torch.equal(losses["tags"], plain(Batch(image, TAGS), CLOCK)["tags"])
    kept = {key for key in net.state_dict() if not key.startswith("second.")}
    assert kept == set(plain.state_dict()), "so that one can begin with the other's weights"


@pytest.mark.parametrize("product", ["agreed", "printed"])
def test_maps_are_drawn_by_both_classifiers_and_tags_by_the_first(product) -> None:
    net, plain, image = reactivated(product=product).eval(), SIGNED().eval(), images()
    features = net.taps(image)[-1]
    second = net.second.weight if product == "printed" else net.second.weight.clamp(min=0)
    weights = (net.head.weight * second)[:, :, 0, 0]
    for found, one in zip(net.maps(image), features, strict=True):
        expected = slow.linear_maps(one.tolist(), weights.tolist())
        torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-5)
    assert torch.equal(net.tag_scores(image), plain.tag_scores(image))
    assert not torch.equal(net.predict(image), plain.predict(image))


def test_what_both_count_against_a_class_draws_its_map_as_printed_alone() -> None:
    """Two features: the first speaks for class 0, the second against it, by both classifiers."""
    for product, expected in (("printed", [2.0, 12.0]), ("agreed", [2.0, 0.0])):
        net = reactivated(product=product)
        net.head.weight.data.zero_()[0, :2, 0, 0] = torch.tensor([1.0, -3.0])
        net.second.weight.data.zero_()[0, :2, 0, 0] = torch.tensor([2.0, -4.0])
        net.taps = lambda image: [torch.eye(5).view(1, 5, 1, 5)]  # one feature a pixel
        assert net.maps(images())[0, 0, 0, :2].tolist() == expected


def test_the_second_classifier_sees_what_each_map_shows() -> None:
    net, image = reactivated().eval(), images()
    features = net.taps(image)[-1]
    maps = net.classify(features)
    found = net.seconded(features, maps)
    weights = net.second.weight[:, :, 0, 0].tolist()
    for rows, shown, one in zip(found.tolist(), maps.tolist(), features.tolist(), strict=True):
        vectors = second.vectors(shown, one)
        expected = [[sum(w * v for w, v in zip(line, vector, strict=True)) for line in weights] for vector in vectors]
        assert [pytest.approx(row, rel=1e-3, abs=1e-5) for row in expected] == rows
    losses = reactivated(0.5).eval()(Batch(image, TAGS), CLOCK)
    assert losses["reactivation"].item() == pytest.approx(0.5 * second.loss(found.tolist(), TAGS.tolist()), rel=1e-4)


def test_the_second_loss_moves_features_maps_and_the_second_classifier() -> None:
    """Nothing is detached in the released code either: the map is part of what is learnt."""
    net = reactivated().train()
    net(Batch(images(), TAGS), CLOCK)["reactivation"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_all_but_the_second_classifier_go_on_slowly() -> None:
    net = reactivated(slow=0.1)
    rates = {name: net.rate(name) for name, _ in net.named_parameters()}
    assert rates["second.weight"] == 1 and {rate for name, rate in rates.items() if name != "second.weight"} == {0.1}
    assert sorted({group["lr"] for group in net.groups(0.02)}) == [pytest.approx(0.002), 0.02]


def test_reactivated_losses_are_float32_under_autocast() -> None:
    net, batch = reactivated().eval(), Batch(images(), TAGS)
    with torch.autocast("cpu", torch.bfloat16):
        fast = net(batch, CLOCK)
        assert net.predict(batch.image).dtype == torch.float32
    for name, loss in net(batch, CLOCK).items():
        assert fast[name].dtype == torch.float32
        torch.testing.assert_close(fast[name], loss, rtol=0.05, atol=0.01)


def test_gates_of_attention_learn_ten_times_as_fast_and_the_head_as_it_is_told() -> None:
    encoder = partial(Encoder, "resnet18", (2,), attention=CCA, slots=(2,))
    net = classifier(encoder=encoder, head_rate=7.0)
    rates = {name: net.rate(name) for name, _ in net.named_parameters()}
    assert {name for name, rate in rates.items() if rate == 10} == {
        f"encoder.net.attention2.{i}.gate" for i in range(3)
    }
    assert {name for name, rate in rates.items() if rate == 7} == {"head.weight"}
    assert {classifier().rate(name) for name in rates if not name.endswith("gate")} == {1.0}
    (gates,) = (group for group in net.groups(0.1) if group["lr"] == pytest.approx(1.0))
    assert len(gates["params"]) == 3 and gates["weight_decay"] == 0
