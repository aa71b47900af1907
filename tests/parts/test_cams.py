"""Class maps: averaged over scales and positions, scaled, and drawn by gradients, against loops and by hand."""

from __future__ import annotations

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eosin.parts import cams
from eosin.parts.backbones.encoder import Encoder
from eosin.parts.cams import Averaged, GradCam, LinearCam, Scaled, Transformed
from eosin.parts.classifiers import CamClassifier
from eosin.parts.losses.soft_margin import SoftMargin
from eosin.parts.pooling.gap import GAP
from eosin.parts.pooling.highest import HighestMean
from oracles import cam as linear
from oracles import gradient_cam as slow
from oracles import pooling


def texture(image: Tensor) -> Tensor:
    """Maps that know up from down and left from right, as a network's do."""
    kernel = torch.tensor([[1.0, 2.0, -1.0], [0.5, -3.0, 0.0], [4.0, 0.25, 1.5]]).expand(2, 3, 3, 3).clone()
    kernel[1] *= torch.tensor([1.0, -1.0, 0.5]).view(3, 1, 1)
    return F.conv2d(image, kernel, padding=1).tanh()


IMAGE = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
WIDE = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(1))


def test_one_view_at_one_scale_is_the_map_itself() -> None:
    assert torch.equal(Averaged()(texture, WIDE), texture(WIDE))


@pytest.mark.parametrize("image", [IMAGE, WIDE], ids=["square", "wide"])
@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.5), (1.0, 1.5)])
@pytest.mark.parametrize("views", [4, 8])
def test_mirrored_images_have_mirrored_maps(views, scales, image) -> None:
    average = partial(Averaged(scales, views), texture)
    maps = average(image)
    assert maps.shape == (2, 2, *image.shape[2:])
    for flip in ((-1,), (-2,), (-2, -1)):
        torch.testing.assert_close(average(image.flip(flip)), maps.flip(flip))
    assert (texture(image.flip(-1)) - texture(image).flip(-1)).abs().max() > 0.1, "one view alone does not have it"


@pytest.mark.parametrize("image", [IMAGE, WIDE], ids=["square", "wide"])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_images_have_turned_maps(turns, image) -> None:
    average = partial(Averaged((1.0, 0.5), views=8), texture)
    torch.testing.assert_close(average(image.rot90(turns, (2, 3))), average(image).rot90(turns, (2, 3)))


def test_two_views_are_those_of_a_mirror_at_the_side() -> None:
    average = partial(Averaged((1.0, 0.5), 2), texture)
    torch.testing.assert_close(average(WIDE.flip(-1)), average(WIDE).flip(-1))
    assert (average(WIDE.flip(-2)) - average(WIDE).flip(-2)).abs().max() > 0.1


@pytest.mark.parametrize(("views", "count"), [(1, 1), (2, 2), (4, 4), (8, 8)])
def test_every_position_is_seen_once(views, count) -> None:
    seen = []

    def spy(image: Tensor) -> Tensor:
        seen.append(image.numpy().tobytes())
        return image

    torch.testing.assert_close(Averaged((1.0,), views)(spy, IMAGE), IMAGE)
    assert len(seen) == len(set(seen)) == count


def test_scales_are_averaged_at_the_size_of_the_image() -> None:
    sizes = []

    def brightness(image: Tensor) -> Tensor:
        sizes.append(tuple(image.shape[2:]))
        return torch.full_like(image[:, :1], len(sizes))

    maps = Averaged((1.0, 0.5, 1.25))(brightness, WIDE)
    assert sizes == [(8, 12), (4, 6), (10, 15)]
    torch.testing.assert_close(maps, torch.full((2, 1, 8, 12), 2.0))


def test_coarse_maps_are_resized_and_float() -> None:
    maps = Averaged(views=4)(lambda image: F.avg_pool2d(image, 4).bfloat16(), IMAGE)
    assert maps.shape == IMAGE.shape and maps.dtype == torch.float32


def test_random_transforms_are_drawn_once_and_as_told() -> None:
    many = Transformed(400, 0.25).poses
    scales = [scale for scale, _, _ in many]
    assert 0.75 <= min(scales) < 0.77 and 1.23 < max(scales) <= 1.25
    assert {flip for _, flip, _ in many} == {(), (-1,), (-2,), (-1, -2)} and {turn for *_, turn in many} == {0, 1, 2, 3}
    assert Transformed(5).poses == Transformed(5).poses == many[:5] != Transformed(5, seed=1).poses
    assert len(Transformed().poses) == 20
    maps = [Transformed(3)(texture, image) for image in (WIDE, WIDE[:1])]
    torch.testing.assert_close(maps[0][:1], maps[1])


@pytest.mark.parametrize("image", [IMAGE, WIDE], ids=["square", "wide"])
def test_what_was_transformed_is_put_back(image) -> None:
    """One position at a time, by undoing each move in turn; and the mean of all is the mean of them."""
    several, singly = Transformed(6, 0.0), []
    for pose in several.poses:
        one = Transformed(1, 0.0)
        one.poses = [pose]
        torch.testing.assert_close(one(lambda x: x, image), image)
        _, flip, turn = pose
        seen = image
        for axis in flip:
            seen = seen.flip(axis)
        maps = texture(seen.rot90(turn, (2, 3))).rot90(4 - turn, (2, 3))
        for axis in flip:
            maps = maps.flip(axis)
        torch.testing.assert_close(one(texture, image), maps)
        singly.append(maps)
    torch.testing.assert_close(several(texture, image), torch.stack(singly).mean(0))
    resized = Transformed(4, 0.25)(lambda x: F.avg_pool2d(x, 2), image)
    assert resized.shape == image.shape and resized.isfinite().all()


MAPS = [[[2.0, 1.0], [0.0, -4.0]], [[0.5, 0.25], [-1.0, 0.0]]]


def test_maps_are_scaled_by_class_or_jointly_by_hand() -> None:
    def scaled(by, maps=MAPS):
        return Scaled(partial(Averaged), by)(lambda image: torch.tensor([maps]), IMAGE[:1, :, :2, :2])[0]

    expected = torch.tensor([[[1.0, 0.5], [0, 0]], [[1, 0.5], [0, 0]]])
    torch.testing.assert_close(scaled("class"), expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(scaled("class"), torch.tensor(slow.by_class(MAPS)))
    torch.testing.assert_close(scaled("joint"), torch.tensor(linear.joint_min_max(MAPS)))
    for by in ("class", "joint"):
        assert torch.equal(scaled(by, [[[0.0] * 2] * 2] * 2), torch.zeros(2, 2, 2)), "0/0 is 0"
    assert torch.equal(scaled("joint", [[[3.0] * 2] * 2] * 2), torch.zeros(2, 2, 2))


def test_scaling_jointly_keeps_the_order_of_classes_and_by_class_need_not() -> None:
    maps = texture(WIDE)
    joint, own = (Scaled(partial(Averaged), by)(texture, WIDE) for by in ("joint", "class"))
    assert torch.equal(joint.argmax(1), maps.argmax(1)) and (joint.amin((1, 2, 3)) == 0).all()
    assert not torch.equal(own.argmax(1), maps.argmax(1))


def test_each_image_is_scaled_by_itself_after_its_views_are_averaged() -> None:
    for by in ("joint", "class"):
        maker = Scaled(partial(Averaged, (1.0,), 4), by)
        both = maker(texture, WIDE)
        for i in range(2):
            torch.testing.assert_close(maker(texture, WIDE[i : i + 1])[0], both[i])
        averaged = Averaged((1.0,), 4)(texture, WIDE)
        torch.testing.assert_close(both, Scaled(lambda: lambda predict, image: image, by)(texture, averaged))


# -- maps by gradients ---------------------------------------------------------------------------------------------


class Two(nn.Module):
    """A little network with two taps; the second one bends, so that gradients differ from pixel to pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.strides = [3, 4], [1, 2]
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 4, 3, stride=2, padding=1)

    def forward(self, image: Tensor) -> list[Tensor]:
        fine = self.first(image).tanh() + 1
        return [fine, self.second(fine).relu()]


def learner(pool=GAP, compete="none") -> CamClassifier:
    torch.manual_seed(3)
    return CamClassifier(2, partial(Two), partial(pool), partial(SoftMargin), compete).eval()


LEARNERS = {"plain": learner, "competing": partial(learner, partial(HighestMean, 0.4), "softmax")}
TAPS = (1, 2)  # what the two taps are called
SMALL = IMAGE[:, :, :6, :4]


def slopes(net: CamClassifier, image: Tensor, k: int, tap: int) -> tuple[list, list]:
    """Features ``[d][i][j]`` of one image at a tap, and how a logit rises with each of them, by small steps."""
    net = copy.deepcopy(net).double()
    weights, bias = net.head.weight[:, :, 0, 0].tolist(), None if net.head.bias is None else net.head.bias.tolist()

    def logit(features: Tensor) -> float:
        last = net.encoder.second(features).relu() if tap == 0 else features
        maps = linear.linear_maps(last[0].tolist(), weights, bias)
        if net.compete == "none":
            return pooling.gap(maps[k])
        return linear.tag_logit(pooling.highest_mean(linear.softmax_maps(maps)[k], 0.4))

    with torch.no_grad():
        features = net.taps(image[None].double())[tap]
        rises = torch.zeros_like(features)
        for at in np.ndindex(*features.shape):
            step = torch.zeros_like(features)
            step[at] = 1e-6
            rises[at] = (logit(features + step) - logit(features - step)) / 2e-6
    return features[0].tolist(), rises[0].tolist()


def by_loops(weigh: str, features: list, rises: list) -> list:
    weights = {
        "mean": lambda: slow.mean_weights(rises),
        "rms": lambda: slow.rms_weights(rises),
        "plus-plus": lambda: slow.plus_plus_weights(features, rises),
    }[weigh]()
    return slow.weighted_map(weights, features)


@pytest.mark.parametrize("weigh", ["mean", "rms", "plus-plus"])
@pytest.mark.parametrize("tap", TAPS)
@pytest.mark.parametrize("kind", LEARNERS)
def test_maps_by_gradients_are_those_of_the_loop(kind, tap, weigh) -> None:
    net = LEARNERS[kind]()
    maps = GradCam(weigh, tap, TAPS)(net, SMALL)
    assert maps.shape == (2, 2, *((6, 4) if tap == 1 else (3, 2))) and maps.max() > 0
    for image, found in zip(SMALL, maps, strict=True):
        for k in range(2):
            expected = by_loops(weigh, *slopes(net, image, k, TAPS.index(tap)))
            torch.testing.assert_close(found[k], torch.tensor(expected), rtol=2e-3, atol=1e-6)


# One channel of 2 x 2, worked by hand.
FEATURE = [[[1.0, 2.0], [0.0, 1.0]]]  # adds up to 4
GRADIENT = [[[0.5, -1.0], [0.0, 0.25]]]


def test_weights_by_hand() -> None:
    """By the formulas of Grad-CAM and Grad-CAM++, with fractions."""
    feature, gradient = torch.tensor([FEATURE]), torch.tensor([GRADIENT])
    weigh = {name: GradCam(name).weights(feature, gradient).item() for name in ("mean", "rms", "plus-plus")}
    assert weigh["mean"] == pytest.approx(-1 / 16)
    assert weigh["rms"] == pytest.approx(-1 / 16 / (math.sqrt((1 / 4 + 1 + 1 / 16) / 4) + 1e-5))
    # a: 1/4 / (1/2 + 4/8) = 1/4, at -1: 1 / (2 - 4) but relu(-1) = 0, at 0: 0/0, 1/16 / (1/8 + 4/64) = 1/3
    assert weigh["plus-plus"] == pytest.approx(1 / 4 * 1 / 2 + 1 / 3 * 1 / 4)
    for name, by_loop in (
        ("mean", slow.mean_weights(GRADIENT)),
        ("rms", slow.rms_weights(GRADIENT)),
        ("plus-plus", slow.plus_plus_weights(FEATURE, GRADIENT)),
    ):
        assert weigh[name] == pytest.approx(by_loop[0])


def test_no_gradient_draws_nothing() -> None:
    feature, gradient = torch.rand(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    for name in ("mean", "rms", "plus-plus"):
        assert torch.equal(GradCam(name).weights(feature, gradient), torch.zeros(2, 3)), f"{name}: 0/0 is 0"
    minus = torch.full((1, 1, 1, 1), -0.5)
    assert GradCam("plus-plus").weights(4 + 0 * minus, minus).item() == 0, "2 g^2 + F g^3 is 0 there, too"


def test_tiny_gradients_keep_their_weights() -> None:
    """Third powers of what 28 x 28 cells leave of a weight are far below what bfloat16 or a careless eps can tell."""
    feature, gradient = torch.rand(1, 2, 28, 28, dtype=torch.float64), torch.rand(1, 2, 28, 28, dtype=torch.float64)
    small = GradCam("plus-plus").weights(feature.float(), 1e-8 * gradient.float())
    torch.testing.assert_close(small.double() * 1e8, gradient.sum((2, 3)) / 2, rtol=1e-4, atol=0)


def test_plain_gradients_of_an_average_pool_are_the_linear_map() -> None:
    """Zhou's maps and Grad-CAM are one and the same there, up to the number of pixels; the mean square cancels."""
    net = learner()
    plain = LinearCam()(net, SMALL)
    torch.testing.assert_close(GradCam("mean")(net, SMALL), plain / 6, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(plain, net.maps(SMALL).clamp(min=0))
    scaled = [
        Scaled(partial(Averaged), "class")(partial(source, net), SMALL) for source in (LinearCam(), GradCam("rms"))
    ]
    torch.testing.assert_close(*scaled, rtol=1e-2, atol=1e-4)


def test_signed_maps_keep_what_speaks_against_a_class() -> None:
    """Of an average pool they are the linear maps over the number of pixels (ARML spec, A4)."""
    net, image = learner().eval(), torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    signed = GradCam("mean", signed=True)(net, image)
    maps = net.maps(image).detach()
    torch.testing.assert_close(signed, maps / maps[0, 0].numel())
    assert (signed < 0).any() and torch.equal(GradCam("mean")(net, image), signed.relu())


@pytest.mark.parametrize("tap", TAPS)
@pytest.mark.parametrize("weigh", ["mean", "rms", "plus-plus"])
def test_gradients_are_taken_where_none_are_recorded(weigh, tap) -> None:
    """In inference mode, of images that were made in it, and under autocast: the same to the last bit."""
    net, source = learner(), GradCam(weigh, tap, TAPS)
    expected = source(net, SMALL)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        made = SMALL.flip(-1).flip(-1)
        assert made.is_inference()
        assert torch.equal(source(net, made), expected)
    with torch.no_grad():
        assert torch.equal(source(net, SMALL), expected)
    assert expected.dtype == torch.float32 and not expected.requires_grad
    assert all(p.grad is None for p in net.parameters()), "no weight is moved by drawing maps"


def test_levels_that_do_not_learn_can_be_asked_too() -> None:
    held = learner()
    held.encoder.requires_grad_(False)
    for tap in TAPS:
        source = GradCam("mean", tap, TAPS)
        assert torch.equal(source(held, SMALL), source(learner(), SMALL))
    assert not SMALL.requires_grad


def test_an_image_does_not_touch_the_maps_of_another() -> None:
    for weigh in ("mean", "rms", "plus-plus"):
        both = GradCam(weigh, 1, TAPS)(learner(), SMALL)
        for i in range(2):
            torch.testing.assert_close(GradCam(weigh, 1, TAPS)(learner(), SMALL[i : i + 1])[0], both[i])


def test_gradients_are_taken_of_a_few_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(5, 3, 6, 4, generator=torch.Generator().manual_seed(5))
    net, whole = learner(), GradCam("plus-plus", 1, TAPS)(learner(), images)
    sizes: list[int] = []
    monkeypatch.setattr(net, "taps", lambda image, taps=net.taps: sizes.append(len(image)) or taps(image))
    monkeypatch.setattr(cams, "PIXELS", 2 * 6 * 4 + 1)
    torch.testing.assert_close(GradCam("plus-plus", 1, TAPS)(net, images), whole)
    assert sizes == [2, 2, 1]


def test_the_last_tap_is_what_is_classified() -> None:
    net = learner()
    for weigh in ("mean", "plus-plus"):
        torch.testing.assert_close(GradCam(weigh)(net, SMALL), GradCam(weigh, 2, TAPS)(net, SMALL))
        assert GradCam(weigh)(net, SMALL).shape != GradCam(weigh, 1, TAPS)(net, SMALL).shape
    with pytest.raises(ValueError, match="3"):
        GradCam("mean", 3, TAPS)


def test_real_encoders_can_be_asked_at_every_tap() -> None:
    """Nothing in them changes a tap in place once it was given out."""
    torch.manual_seed(0)
    for name, taps in (("resnet18", (1, 2, 3)), ("vgg11", (1, 2))):
        encoder = partial(Encoder, name, taps)
        net = CamClassifier(3, encoder, partial(GAP), partial(SoftMargin)).eval()
        image = torch.rand(2, 3, 32, 32)
        for tap, features in zip(taps, net.taps(image), strict=True):
            maps = GradCam("plus-plus", tap, taps)(net, image)
            assert maps.shape == (2, 3, *features.shape[2:]) and maps.isfinite().all() and maps.max() > 0
