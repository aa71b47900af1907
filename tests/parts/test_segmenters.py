"""Networks of any image size with weights that must match, and the learner around a segmentation network."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from eosin.core.errors import EosinError, WrongUse
from eosin.core.fingerprint import canonical
from eosin.core.values import Batch, Clock
from eosin.parts.backbones.encoder import Encoder, pretrained_from
from eosin.parts.losses.cross_entropy import PixelCrossEntropy
from eosin.parts.segmenters import (
    NETS,
    DeepLabV3Plus,
    Net,
    PSPNet,
    Pyramid,
    SegFormer,
    Segmenter,
    SmpNet,
    UNet,
    UNetPlusPlus,
    UNetScse,
)

CLOCK = Clock(0, 0, 1, 1)
SHALLOW = partial(UNet, 3, "resnet18", 3, 4)
SMALL: dict[str, Callable[[], SmpNet]] = {  # with the stride of each
    "unet 8": SHALLOW,
    "unetplusplus 16": partial(UNetPlusPlus, 3, "resnet18", 4, 4),
    "pspnet 8": partial(PSPNet, 3, "resnet18", 3, 16),
    "pspnet 16": partial(PSPNet, 3, "tu-resnet18", 4, 16),
    "deeplabv3plus 16": partial(DeepLabV3Plus, 3, "resnet18", 5, 16),
    "deeplabv3plus 8": partial(DeepLabV3Plus, 3, "tu-resnet18", 5, 16, output_stride=8),
    "segformer 32": partial(SegFormer, 3, "mit_b0", 5, 16),
    "segformer 8": partial(SegFormer, 3, "resnet18", 3, 16),
}


@pytest.fixture(scope="module", params=SMALL)
def net(request: pytest.FixtureRequest) -> SmpNet:
    torch.manual_seed(0)
    made = SMALL[request.param]().eval()
    assert made.stride == int(request.param.split()[1])
    return made


@pytest.mark.parametrize("size", [(32, 64), (33, 47), (7, 5), (1, 1)])
@torch.no_grad()
def test_any_size_comes_back(net: SmpNet, size: tuple[int, int]) -> None:
    assert net(torch.rand(2, 3, *size)).shape == (2, 3, *size)


@torch.no_grad()
def test_what_fits_the_stride_is_not_padded_and_the_rest_by_its_border(net: SmpNet) -> None:
    image = torch.rand(1, 3, 32, 64)
    assert torch.equal(net(image), net.net(image))
    odd = image[..., :29, :61]  # no stride divides these, and all have 32 and 64 as the next multiples
    rows, columns = torch.arange(32).clamp(max=28), torch.arange(64).clamp(max=60)
    assert torch.equal(net(odd), net.net(odd[:, :, rows][..., columns])[..., :29, :61])


@torch.no_grad()
def test_mit_is_given_as_much_as_its_attention_needs() -> None:
    torch.manual_seed(0)
    net = PSPNet(3, "mit_b0", 3, 16).eval()
    assert net.stride == 8 and net(torch.rand(1, 3, 9, 40)).shape == (1, 3, 9, 40)
    image = torch.rand(1, 3, 32, 40)
    assert torch.equal(net(image), net.net(image))


def test_a_gradient_reaches_every_weight_of_every_network() -> None:
    for build in SMALL.values():
        torch.manual_seed(0)
        learner = Segmenter(build, partial(PixelCrossEntropy), "pseudo").train()
        for module in learner.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)  # timm begins with the branches of a ResNet at zero
            elif hasattr(module, "drop_prob"):
                module.drop_prob = 0.0  # MiT leaves out whole branches by chance
        learner(batch((64, 64)), CLOCK)["pixels"].backward()  # fewer pixels leave the attention of MiT one key
        untouched = [n for n, p in learner.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
        assert untouched == [], build


@pytest.mark.parametrize("name", ["unet 8", "unetplusplus 16", "pspnet 8", "deeplabv3plus 16", "segformer 32"])
def test_a_tile_can_be_exported_in_batches_of_any_size(name: str) -> None:
    """Of one tile, as a model folder holds it; pyramids with a free size go wrong silently."""
    torch.manual_seed(0)
    net = SMALL[name]().eval()
    example = torch.rand(2, 3, 40, 40)
    program = torch.export.export(net, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)).module()
    for count in (1, 5):
        tiles = torch.rand(count, 3, 40, 40)
        with torch.no_grad():
            torch.testing.assert_close(program(tiles), net(tiles), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "parameters"),
    [
        (partial(PSPNet, 4, "tu-resnest101e"), 2_496_100),  # ARML
        (partial(PSPNet, 2, "tu-resnest200e"), 8_593_762),  # the gland method
        (partial(PSPNet, 4, "tu-resnest101e", 4), 32_191_588),
        (partial(PSPNet, 4, "mit_b1", 3), 1_812_836),  # of 13,318,564 those that learn at stride 8
        (partial(UNet, 4, "mit_b1"), 16_432_580),
        (partial(SegFormer, 4, "mit_b1"), 13_678_276),
    ],
)
def test_networks_of_the_papers_have_their_parameters(build: Callable[[], nn.Module], parameters: int) -> None:
    assert sum(p.numel() for p in build().parameters()) == parameters


@pytest.mark.parametrize(("depth", "width"), [(3, 4), (5, 4)])
def test_depth_and_width_of_a_unet(depth: int, width: int) -> None:
    net = UNet(2, depth=depth, width=width)
    assert net.stride == 2**depth
    channels = [block.conv2[0].out_channels for block in net.net.decoder.blocks]
    assert channels == [width * 2**level for level in reversed(range(depth))]
    kept = [hasattr(getattr(net.net.encoder, f"layer{level}"), "0") for level in (1, 2, 3, 4)]
    assert kept == [level < depth for level in (1, 2, 3, 4)], "levels below the depth are never used"
    assert net.training and all(module.training for module in net.modules())


@pytest.mark.parametrize("kind", [UNetPlusPlus, PSPNet, DeepLabV3Plus, SegFormer])
def test_the_width_is_that_of_the_decoder(kind: Callable[..., SmpNet]) -> None:
    for width in (8, 24):
        assert kind(2, "resnet18", 3, width).net.segmentation_head[0].in_channels == width


@pytest.mark.parametrize(("stride", "cells"), [(16, 4), (8, 8)])
@torch.no_grad()
def test_deeplab_dilates_instead_of_striding(stride: int, cells: int) -> None:
    for encoder in ("resnet18", "tu-resnet18"):
        net = DeepLabV3Plus(2, encoder, width=8, output_stride=stride).eval()  # type: ignore[arg-type]
        assert [f.shape[-1] for f in net.net.encoder(torch.rand(1, 3, 64, 64))][-2:] == [max(4, cells), cells]
    plain = UNet(2).net.encoder
    assert sum(p.numel() for p in net.net.encoder.parameters()) == sum(p.numel() for p in plain.parameters())


def test_every_name_of_an_option_is_a_network_that_takes_the_same() -> None:
    assert set(NETS) == set(get_args(Net))
    for kind in NETS.values():
        assert isinstance(kind(2, "resnet18", 3, 4, "none"), SmpNet)


def test_the_decoder_of_a_scse_unet_weighs_and_that_of_a_unet_does_not() -> None:
    weighing, plain = (
        [m for m in kind(2, "resnet18", 3, 4).net.decoder.modules() if type(m).__name__ == "SCSEModule"]
        for kind in (UNetScse, UNet)
    )
    assert len(weighing) == 6 and not plain


def test_the_unet_of_steps_that_are_done_is_still_the_same_to_a_digest() -> None:
    """Else every finished run would be stale."""
    args = {"classes": 3, "encoder": "resnet18", "depth": 5, "width": 16, "pretrained": "none"}
    name = "eosin.parts.segmenters.UNet"
    assert canonical(partial(UNet, 3)) == {"call": {"class": name, "revision": 0}, "args": args}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (partial(UNet, 2, "resnet81"), r"'resnet81' is not known to SMP \(did you mean 'resnet18'\?\)"),
        (partial(SegFormer, 2, "mit_b9"), r"'mit_b9' is not known to SMP \(did you mean 'mit_b\d'\?\)"),
        (
            partial(PSPNet, 2, "tu-resnst101e"),
            r"'tu-resnst101e' is not known to timm \(did you mean 'tu-resnest101e'\?",
        ),
        (partial(PSPNet, 2, "timm-resnest101e"), r"not known to SMP \(did you mean 'tu-resnest101e'\?\)"),
        (partial(UNetPlusPlus, 2, "mit_b0"), r"'mit_b0' does not fit UNetPlusPlus: .*; take another"),
        (partial(DeepLabV3Plus, 2, "densenet121"), r"'densenet121' does not fit DeepLabV3Plus: .*; take another"),
        (partial(DeepLabV3Plus, 2, "tu-vgg11"), r"'tu-vgg11' does not fit DeepLabV3Plus: AssertionError; take another"),
        (partial(UNet, 2, "tu-vit_tiny_patch16_224"), r"'tu-vit_tiny_patch16_224' does not fit UNet: .*; take another"),
        (
            partial(UNet, 2, "dpn68b", pretrained="imagenet"),
            r"does not fit UNet: .*imagenet.*; take another",
        ),
        (partial(UNet, 2, pretrained="imagnet"), r"pretrained = 'imagnet': give none, imagenet or weights on disk"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(WrongUse, match=message) as caught:
        build()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def whole(encoder: str) -> dict[str, Tensor]:
    """The entries of an uncut network."""
    import segmentation_models_pytorch as smp  # not before eosin, which makes both importable beside a CPU-only torch
    import timm

    torch.manual_seed(3)
    name = encoder.removeprefix("tu-")
    mit = name.startswith("mit_")
    return (smp.encoders.get_encoder(name, weights=None) if mit else timm.create_model(name)).state_dict()


class TestPyramid:
    """PSPNet behind an encoder of ours."""

    stages = partial(Encoder, "resnet18", (2, 3), 8)

    @pytest.mark.parametrize("size", [(32, 48), (33, 47)])
    @torch.no_grad()
    def test_any_size_comes_back(self, size: tuple[int, int]) -> None:
        net = Pyramid(self.stages, 3, 8).eval()
        assert net(torch.rand(2, 3, *size)).shape == (2, 3, *size)

    def test_it_is_that_of_oeem_behind_resnet_38(self) -> None:
        with torch.device("meta"):
            net = Pyramid(partial(Encoder, "resnet38", (6,)), 4)
        assert sum(p.numel() for p in net.encoder.parameters()) == 105_070_912
        level, join = 4096 * 512, (4096 + 4 * 512) * 512 * 9
        assert sum(p.numel() for p in net.levels.parameters()) == 4 * level + 3 * 2 * 512 + 512  # norms, and one bias
        assert sum(p.numel() for p in net.join.parameters()) == join + 2 * 512
        assert sum(p.numel() for p in net.head.parameters()) == 512 * 4 + 4

    def test_a_gradient_reaches_every_weight_also_of_a_single_image(self) -> None:
        learner = Segmenter(partial(Pyramid, self.stages, 3, 8), partial(PixelCrossEntropy), "pseudo").train()
        one = batch((64, 64))
        learner(Batch(one.image[1:], one.tags[1:], {"pseudo": one.masks["pseudo"][1:]}), CLOCK)["pixels"].backward()
        norms = [m.weight for m in learner.modules() if isinstance(m, nn.BatchNorm2d)]
        idle = [n for n, p in learner.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
        assert norms and all("conv" in name or "bn" in name for name in idle), "timm begins with branches at zero"

    @torch.no_grad()
    def test_its_levels_are_means_of_cells_at_the_size_of_the_features(self) -> None:
        net = Pyramid(self.stages, 3, 8, cells=(1, 2)).eval()
        seen = []
        net.join.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
        image = torch.rand(1, 3, 32, 32)
        net(image)
        features = net.encoder(image)[-1]
        assert torch.equal(seen[0][:, :256], features) and seen[0].shape == (1, 256 + 2 * 8, 4, 4)
        one = nn.functional.relu(net.levels[0][1](features.mean((2, 3), keepdim=True)))
        torch.testing.assert_close(seen[0][:, 256:264], one.expand(-1, -1, 4, 4))


class TestWeights:
    @pytest.mark.parametrize(("kind", "encoder"), [(UNet, "resnet18"), (PSPNet, "tu-resnet18"), (SegFormer, "mit_b0")])
    def test_a_file_of_the_whole_network_fills_the_levels_that_are_used(
        self, tmp_path: Path, kind: Callable[..., SmpNet], encoder: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        stored = {key: value.clone() for key, value in whole(encoder).items()}
        save_file({**stored, "head.weight": torch.zeros(1000, 8)}, tmp_path / "w.safetensors")
        with caplog.at_level(logging.INFO):
            net = kind(2, encoder, 3, 4, pretrained_from(str(tmp_path / "w.safetensors"))).net.encoder
        own = (net.model if encoder.startswith("tu-") else net).state_dict()
        assert len(own) < len(stored) and all(torch.equal(value, stored[key]) for key, value in own.items())
        assert f"{len(own)} of the encoder's {len(own)} entries matched" in caplog.text

    @pytest.mark.parametrize("encoder", ["resnet34", "tu-resnet34", "mit_b0"])
    def test_a_file_of_another_network_is_an_error(self, tmp_path: Path, encoder: str) -> None:
        torch.save(whole("resnet18"), tmp_path / "w.pth")
        with pytest.raises(EosinError, match="give the weights of this very network") as caught:
            UNet(2, encoder, 3, 4, pretrained_from(str(tmp_path / "w.pth")))
        assert "\n" not in str(caught.value)

    def test_imagenet_weights_of_smp_are_taken_as_they_come(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from segmentation_models_pytorch import encoders

        torch.manual_seed(1)
        stored = {
            key: value.clone() for key, value in encoders.get_encoder("resnet18", weights=None).state_dict().items()
        }
        stored |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}  # as in the real file
        save_file(stored, tmp_path / "model.safetensors")
        monkeypatch.setattr(encoders, "hf_hub_download", lambda repo, filename, revision: str(tmp_path / filename))
        for kind in (UNet, PSPNet, DeepLabV3Plus, SegFormer, UNetPlusPlus):
            found = kind(2, "resnet18", pretrained="imagenet").net.encoder.state_dict()
            assert found and all(torch.equal(value, stored[key]) for key, value in found.items())

    @pytest.mark.parametrize("encoder", ["resnet18", "mit_b0", "tu-resnet18"])
    def test_without_network_and_cache_it_stops(self, encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
        import timm
        from segmentation_models_pytorch import encoders

        create = timm.create_model

        def offline(*args: Any, pretrained: bool = False, **settings: Any) -> Any:
            if pretrained:
                raise OSError("no route to host")
            return create(*args, **settings)

        monkeypatch.setattr(timm, "create_model", offline)
        monkeypatch.setattr(encoders, "hf_hub_download", partial(offline, pretrained=True))
        with pytest.raises(
            EosinError, match=f"imagenet weights of {encoder} cannot be fetched: set pretrained to"
        ) as it:
            UNet(2, encoder, pretrained="imagenet")
        assert "\n" not in str(it.value)


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
