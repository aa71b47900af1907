"""A ViT with distillation tokens: what attends to what, weights, grids and sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from eosin.core.errors import EosinError, WrongUse
from eosin.parts.backbones.distilled import DistilledViT, regridded
from eosin.parts.backbones.encoder import pretrained_from

TINY = "vit_tiny_patch16_224"


def made(**options: Any) -> DistilledViT:
    torch.manual_seed(0)
    return DistilledViT(**{"name": TINY, "side": 2, "depth": 1, "drop_path": 0.0, **options}).eval()


def image(height: int = 32, width: int = 32, count: int = 1) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("tokens", "shape", "length"), [("patch", (2, 192, 2, 3), 13), ("global", (2, 192), 8), ("none", None, 7)]
)
@torch.no_grad()
def test_the_sequence_is_class_tokens_and_patches(tokens: str, shape: tuple[int, ...] | None, length: int) -> None:
    net = made(tokens=tokens)
    seen: list[Tensor] = []
    net.net.norm.register_forward_hook(lambda m, inputs, output: seen.append(output))
    features, told = net(image(32, 48, 2))
    assert features.shape == (2, 192, 2, 3) and (told is None if shape is None else told.shape == shape)
    assert seen[0].shape == (2, length, 192)
    assert torch.equal(features.flatten(2).transpose(1, 2), seen[0][:, -6:])
    if tokens == "patch":
        assert torch.equal(told.flatten(2).transpose(1, 2), seen[0][:, 1:7])


def test_it_has_the_size_of_the_paper() -> None:
    """The released network carries two classifiers of 1,000 photographs' classes, too, which it never calls."""
    with torch.device("meta"):
        net = DistilledViT()
    assert sum(value.numel() for value in net.parameters()) == 22_586_192 - 2 * (384 * 1000 + 1000)
    assert net.net.blocks[-1].drop_path1.drop_prob == pytest.approx(0.1)
    assert net.net.blocks[1].drop_path1.drop_prob == pytest.approx(0.1 / 11)


@torch.no_grad()
def test_without_tokens_it_is_the_network_of_timm() -> None:
    net = made(tokens="none", side=3)
    whole = timm.create_model(TINY, img_size=48, depth=1, num_classes=0).eval()
    whole.load_state_dict(net.net.state_dict())
    expected = whole.forward_features(image(48, 48))[:, 1:].transpose(1, 2).unflatten(2, (3, 3))
    torch.testing.assert_close(net(image(48, 48))[0], expected)


def test_tokens_and_patches_attend_to_each_other() -> None:
    net, inputs = made(), image().requires_grad_()
    features, told = net(inputs)
    assert told is not None
    assert torch.autograd.grad(told[0, :, 0, 0].square().sum(), inputs, retain_graph=True)[0].any()
    (of_tokens,) = torch.autograd.grad(features[0, :, 0, 0].square().sum(), net.tokens)
    assert (of_tokens.abs().amax(2) > 0).all()


def test_a_grid_is_resized_linearly_and_by_a_product_that_is_exact() -> None:
    grid = torch.randn(4, 4, 5, generator=torch.Generator().manual_seed(0))
    for size in ((4, 4), (2, 7), (6, 3)):
        expected = F.interpolate(grid.permute(2, 0, 1)[None], size=size, mode="bilinear", align_corners=False)
        torch.testing.assert_close(regridded(grid, *size), expected[0].permute(1, 2, 0))
    assert regridded(grid, 4, 4) is grid


@torch.no_grad()
def test_a_border_is_repeated_to_whole_patches() -> None:
    net = made()
    whole = image(21, 45)[:, :, [*range(21), *[20] * 11]][..., [*range(45), *[44] * 3]]
    for got, expected in zip(net(image(21, 45)), net(whole), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("depth", [0, 1])
def test_weights_on_disk_fill_the_vit_alone_and_positions_are_resized(tmp_path: Path, depth: int) -> None:
    whole = timm.create_model("vit_tiny_patch16_384", depth=12).state_dict()
    save_file(whole, tmp_path / "vit.safetensors")
    net = made(name="vit_tiny_patch16_384", depth=depth, pretrained=pretrained_from(str(tmp_path / "vit.safetensors")))
    assert len(net.net.blocks) == (depth or 12)
    assert torch.equal(net.net.blocks[0].mlp.fc1.weight, whole["blocks.0.mlp.fc1.weight"])
    assert torch.equal(net.net.norm.bias, whole["norm.bias"]) and net.net.pos_embed.shape == (1, 5, 192)
    assert torch.equal(net.net.pos_embed[:, :1], whole["pos_embed"][:, :1])
    assert 0 < net.tokens.std() < 0.03 and 0 < net.positions.std() < 0.03


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file(timm.create_model(TINY, depth=1, embed_dim=96).state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(EosinError, match="give the weights of this very network"):
        made(pretrained=pretrained_from(str(tmp_path / "vit.safetensors")))


@torch.no_grad()
def test_a_stem_of_convolutions_has_the_same_grid() -> None:
    net = made(stem="conv")
    assert [tuple(f.shape) for f in net(image(33, 48))] == [(1, 192, 3, 3)] * 2
    convs = [m for m in net.net.patch_embed.proj if isinstance(m, torch.nn.Conv2d)]
    assert [(c.out_channels, c.stride[0]) for c in convs] == [(12, 2), (24, 2), (48, 2), (96, 2), (192, 1)]


@torch.no_grad()
def test_a_stem_of_convolutions_sees_around_the_centres_of_patches() -> None:
    stem = made(stem="conv").eval().net.patch_embed.proj
    for conv in (m for m in stem if isinstance(m, torch.nn.Conv2d)):
        turned = [conv.weight, conv.weight.flip(2), conv.weight.flip(3), conv.weight.flip(2, 3)]
        conv.weight.copy_(torch.stack(turned).mean(0))
    picture = image(32, 48)
    for axis in (2, 3):
        torch.testing.assert_close(stem(picture.flip(axis)), stem(picture).flip(axis))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"name": "vit_tiny_patch16_2244"}, "not known to timm"),
        ({"name": "resnet18"}, "is no ViT"),
        ({"name": "deit_tiny_distilled_patch16_224"}, "one class token"),
        ({"name": "vit_wee_patch16_reg1_gap_256"}, "one class token"),
        ({"name": "vit_tiny_patch16_224.foo"}, "not known to timm"),
        ({"name": "vit_small_patch14_dinov2", "stem": "conv"}, "no patches of 14 px"),
        ({"stem": "conv", "pretrained": "imagenet"}, "or stem to 'patch'"),
        ({"pretrained": "nothing"}, "give none, imagenet or a WeightFile"),
    ],
)
def test_what_it_cannot_be_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(EosinError, match=told):
        made(**options)


def test_a_stem_has_no_pretrained_weights(tmp_path: Path) -> None:
    save_file(timm.create_model(TINY).state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(WrongUse, match="or stem to 'patch'"):
        made(stem="conv", pretrained=pretrained_from(str(tmp_path / "vit.safetensors")))
