"""The first blocks of a VGG-16: sizes, parameters, kernels of files with and without norms."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from torch.nn import functional as F

from eosin.core.errors import EosinError, WrongUse
from eosin.parts.attention.criss_cross import CrissCrossTwice
from eosin.parts.backbones.encoder import Encoder, pretrained_from
from eosin.parts.backbones.known import terms

SMALL = 1, 3, 32, 48


def image() -> torch.Tensor:
    return torch.rand(*SMALL, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_taps_are_behind_the_pools() -> None:
    net = Encoder("vgg16_blocks", (0, 1, 2)).eval()
    assert [tuple(f.shape[1:]) for f in net(image())] == [(64, 16, 24), (128, 8, 12), (256, 4, 6)]
    assert (net.channels, net.strides) == ([64, 128, 256], [2, 4, 8])
    assert sum(p.numel() for p in net.parameters()) == 1_735_488 + 2_304


@torch.no_grad()
def test_nothing_is_built_behind_the_last_tap() -> None:
    short, whole = Encoder("vgg16_blocks", (0,)).eval(), Encoder("vgg16_blocks", (0, 1, 2)).eval()
    assert sum(p.numel() for p in short.parameters()) == 38_720 + 256
    short.load_state_dict({key: value for key, value in whole.state_dict().items() if key in short.state_dict()})
    torch.testing.assert_close(short(image())[0], whole(image())[0])


@torch.no_grad()
@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn"])
def test_kernels_of_a_file_are_loaded(name: str, tmp_path: Path) -> None:
    """Without norms in the file, those of the network begin as new ones; in both cases it computes what it did."""
    torch.manual_seed(0)
    given = timm.create_model(name, pretrained=False).eval()
    for module in given.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(), module.running_var.uniform_(0.5, 2), module.weight.uniform_(0.5, 2)
    torch.save(given.state_dict(), tmp_path / "file.pth")
    net = Encoder("vgg16_blocks", (0, 1, 2), pretrained=pretrained_from(str(tmp_path / "file.pth"))).eval()
    x = image()
    for module in given.features:
        x = module(x)
        if isinstance(module, torch.nn.MaxPool2d):
            break
    torch.testing.assert_close(net(image())[0], x, rtol=1e-4, atol=1e-4)
    if name == "vgg16":
        norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert len(norms) == 7
        assert all((m.weight == 1).all() and (m.bias == 0).all() and (m.running_mean == 0).all() for m in norms)
        kernels = [m.weight for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
        places = (0, 2, 5, 7, 10, 12, 14)
        assert all(torch.equal(k, given.features[at].weight) for k, at in zip(kernels, places, strict=True))


@pytest.mark.parametrize("taps", [(0,), (0, 1), (1, 2)])
def test_kernels_of_a_file_are_loaded_where_later_blocks_are_not_built(taps: tuple[int, ...], tmp_path: Path) -> None:
    convs = [m for m in Encoder("vgg16_blocks", (2,)).modules() if isinstance(m, torch.nn.Conv2d)]
    places = (0, 2, 5, 7, 10, 12, 14)
    stored = {f"features.{at}.weight": conv.weight for at, conv in zip(places, convs, strict=True)}
    stored |= {f"features.{at}.bias": conv.bias for at, conv in zip(places, convs, strict=True)}
    torch.save({**stored, "features.17.weight": torch.zeros(512, 256, 3, 3)}, tmp_path / "file.pth")
    net = Encoder("vgg16_blocks", taps, pretrained=pretrained_from(str(tmp_path / "file.pth")))
    kernels = [m.weight for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(kernels) == (2, 4, 7)[taps[-1]]
    assert all(torch.equal(kernel, conv.weight) for kernel, conv in zip(kernels, convs, strict=False))


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), tmp_path / "other.pth")
    with pytest.raises(EosinError, match="give the weights of this very network"):
        Encoder("vgg16_blocks", (0, 1, 2), pretrained=pretrained_from(str(tmp_path / "other.pth")))


@torch.no_grad()
def test_attention_stands_before_the_pool() -> None:
    torch.manual_seed(0)
    net = Encoder("vgg16_blocks", (0, 1, 2), attention=CrissCrossTwice, slots=(0, 1, 2)).eval()
    attentions = [net.get_submodule(f"net.attention{tap}") for tap in range(3)]
    assert [sum(p.numel() for p in a.parameters()) for a in attentions] == [5_201, 20_641, 82_241]
    seen: list[torch.Tensor] = []
    attentions[0].gate.fill_(0.5)
    attentions[0].register_forward_hook(lambda module, given, found: seen.append(found))
    found = net(image())[0]
    assert seen[0].shape == (1, 64, 32, 48)
    torch.testing.assert_close(found, F.max_pool2d(seen[0], 2))


def test_a_tap_that_it_does_not_have_is_refused() -> None:
    with pytest.raises(WrongUse, match="has no taps"):
        Encoder("vgg16_blocks", (1, 3))


def test_its_terms_are_those_of_the_kernels() -> None:
    (line,) = terms({"encoder": "vgg16_blocks", "pretrained": "imagenet"})
    assert "vgg16_blocks" in line and "not known" not in line


def test_without_a_network_imagenet_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str, **settings: object) -> None:
        assert name == "vgg16"
        raise OSError("no route")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(EosinError, match="ImageNet weights of vgg16_blocks are"):
        partial(Encoder, "vgg16_blocks", (0,), pretrained="imagenet")()
