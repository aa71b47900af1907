"""U-Nets of any image size, and the learner around a segmentation network."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from eosin.core.errors import WrongUse
from eosin.core.values import Batch, Clock
from eosin.parts.losses.cross_entropy import PixelCrossEntropy
from eosin.parts.segmenters import Segmenter, UNet

CLOCK = Clock(0, 0, 1, 1)
SHALLOW = partial(UNet, 3, "resnet18", 3, 4)


@pytest.fixture(scope="module")
def unet() -> UNet:
    torch.manual_seed(0)
    return SHALLOW().eval()


@pytest.mark.parametrize("size", [(16, 24), (17, 30), (7, 5), (1, 1)])
@torch.no_grad()
def test_any_size_comes_back(unet: UNet, size: tuple[int, int]) -> None:
    assert unet(torch.rand(2, 3, *size)).shape == (2, 3, *size)


@torch.no_grad()
def test_what_fits_the_stride_is_not_padded_and_the_rest_by_its_border(unet: UNet) -> None:
    image = torch.rand(1, 3, 16, 24)
    assert torch.equal(unet(image), unet.net(image))
    odd = image[..., :13, :21]
    rows, columns = torch.arange(16).clamp(max=12), torch.arange(24).clamp(max=20)
    assert torch.equal(unet(odd), unet.net(odd[:, :, rows][..., columns])[..., :13, :21])


@pytest.mark.parametrize(("depth", "width"), [(3, 4), (5, 4)])
def test_depth_and_width(depth: int, width: int) -> None:
    net = UNet(2, depth=depth, width=width)
    assert net.stride == 2**depth
    channels = [block.conv2[0].out_channels for block in net.net.decoder.blocks]
    assert channels == [width * 2**level for level in reversed(range(depth))]
    kept = [hasattr(getattr(net.net.encoder, f"layer{level}"), "0") for level in (1, 2, 3, 4)]
    assert kept == [level < depth for level in (1, 2, 3, 4)], "levels below the depth are never used"
    assert net.training and all(module.training for module in net.modules())


def test_an_unknown_encoder_names_the_nearest() -> None:
    with pytest.raises(WrongUse, match=r"encoder 'resnet81' is not known to SMP \(did you mean 'resnet18'\?\)"):
        UNet(2, "resnet81")


class Colours(nn.Module):
    """A 1x1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Conv2d(3, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(image)


def segmenter(scale: float = 1.0) -> Segmenter:
    return Segmenter(partial(Colours), partial(PixelCrossEntropy), "pseudo", scale)


def batch(size: tuple[int, int] = (6, 10)) -> Batch:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, *size, generator=generator)
    mask = torch.randint(0, 3, (2, *size), generator=generator)
    mask[0, :2] = 255
    return Batch(image, torch.zeros(2, 3), {"pseudo": mask, "other": torch.zeros_like(mask)})


def test_the_loss_is_that_of_the_named_mask() -> None:
    learner, one = segmenter(), batch()
    losses = learner(one, CLOCK)
    logits = learner.net.head(learner.normalise(one.image))
    assert set(losses) == {"pixels"}
    expected = nn.functional.cross_entropy(logits, one.masks["pseudo"], ignore_index=255)
    torch.testing.assert_close(losses["pixels"], expected)


def test_pixels_that_are_left_out_have_no_gradient() -> None:
    learner, one = segmenter(), batch()
    image = one.image.clone().requires_grad_(True)
    learner(Batch(image, one.tags, one.masks), CLOCK)["pixels"].backward()
    touched = image.grad.abs().sum(1) > 0
    assert torch.equal(touched, one.masks["pseudo"] != 255)


@pytest.mark.parametrize("scale", [1.0, 0.5, 4 / 7, 2.0])
@pytest.mark.parametrize("size", [(6, 10), (7, 7)])
def test_predictions_are_probabilities_of_the_image_size(size, scale) -> None:
    maps = segmenter(scale).predict(batch(size).image)
    assert maps.shape == (2, 3, *size) and (maps >= 0).all()
    torch.testing.assert_close(maps.sum(1), torch.ones(2, *size))


def test_the_network_and_its_mask_are_scaled_alike() -> None:
    learner = segmenter(1 / 3)
    image = torch.zeros(1, 3, 9, 9)
    mask = torch.zeros(1, 9, 9, dtype=torch.long)
    mask[:, 1::3, 1::3] = torch.tensor([[0, 1, 2], [255, 0, 1], [2, 2, 2]])  # the middle of each 3 x 3 pixels
    one = Batch(image, torch.zeros(1, 3), {"pseudo": mask})
    seen = []
    learner.loss.register_forward_hook(lambda module, inputs, output: seen.append(inputs))
    learner(one, CLOCK)
    logits, target = seen[0]
    assert logits.shape == (1, 3, 3, 3)
    assert target.tolist() == [[[0, 1, 2], [255, 0, 1], [2, 2, 2]]]


def test_losses_are_float32_under_autocast() -> None:
    learner, one = segmenter(), batch()
    with torch.autocast("cpu", torch.bfloat16):
        assert learner(one, CLOCK)["pixels"].dtype == torch.float32
        assert learner.predict(one.image).dtype == torch.float32


def test_a_gradient_reaches_every_parameter() -> None:
    learner = Segmenter(SHALLOW, partial(PixelCrossEntropy), "pseudo").train()
    learner(batch((16, 16)), CLOCK)["pixels"].backward()
    untouched = [n for n, p in learner.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert untouched == []
