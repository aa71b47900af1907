"""Encoders with attention behind some of their stages."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from eosin.core.errors import WrongUse
from eosin.core.fingerprint import digest
from eosin.parts.backbones.encoder import Encoder, pretrained_from


class Added(nn.Module):
    """Adds a number to features of so many channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels, self.number = channels, nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1] == self.channels
        return x + self.number


@pytest.mark.parametrize(
    ("name", "taps", "slots"),
    [
        ("resnet18", (1, 4), (2, 3)),
        ("resnet18", (2, 3), (2, 3)),
        ("vgg11", (5,), (3, 5)),
        ("resnet38", (3,), (2, 3)),
    ],
)
@torch.no_grad()
def test_what_adds_nothing_changes_nothing(name: str, taps: tuple[int, ...], slots: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    plain = Encoder(name, taps).eval()
    torch.manual_seed(0)
    attended = Encoder(name, taps, attention=Added, slots=slots).eval()
    assert attended.channels == plain.channels and attended.strides == plain.strides
    extra = {f"net.attention{slot}.number" for slot in slots}
    assert attended.state_dict().keys() - plain.state_dict().keys() == extra
    image = torch.rand(1, 3, 32, 48)
    assert all(torch.equal(a, b) for a, b in zip(plain(image), attended(image), strict=True))


@pytest.mark.parametrize(("name", "slot"), [("resnet18", 2), ("vgg11", 3), ("resnet38", 2)])
@torch.no_grad()
def test_the_level_and_all_later_ones_see_it_and_no_earlier_one(name: str, slot: int) -> None:
    torch.manual_seed(0)
    encoder = Encoder(name, (slot - 1, slot, slot + 1), attention=Added, slots=(slot,)).eval()
    image = torch.rand(1, 3, 32, 48)
    before = encoder(image)
    encoder.net.get_submodule(f"attention{slot}").number.fill_(0.5)
    after = encoder(image)
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, False]
    if name != "resnet38":  # there a norm lies behind it
        assert torch.equal(after[1], before[1] + 0.5)


def test_weights_are_loaded_as_without_it(tmp_path: Path) -> None:
    import timm  # not before eosin, which makes it importable beside a CPU-only torch

    torch.manual_seed(0)
    whole = timm.create_model("resnet18").state_dict()
    torch.save(whole, tmp_path / "w.pth")
    file = pretrained_from(str(tmp_path / "w.pth"))
    encoder = Encoder("resnet18", (4,), pretrained=file, attention=Added, slots=(3, 4))
    kept = {key: value for key, value in encoder.net.state_dict().items() if not key.startswith("attention")}
    assert len(kept) == 120 and all(torch.equal(value, whole[key]) for key, value in kept.items())


@pytest.mark.parametrize(("tap", "levels"), [(4, {2, 3, 4}), (1, {0, 1})])
def test_where_no_level_is_named_it_stands_behind_the_last_three(tap: int, levels: set[int]) -> None:
    made = Encoder("resnet18", (tap,), attention=Added)
    assert {key for key in made.state_dict() if "attention" in key} == {f"net.attention{n}.number" for n in levels}


def test_it_goes_with_what_else_an_encoder_can() -> None:
    encoder = Encoder("resnet18", (4,), 8, stem_pool=False, attention=Added, slots=(2, 3)).eval()
    assert encoder.strides == [4] and encoder(torch.rand(1, 3, 32, 32))[0].shape == (1, 512, 8, 8)


@pytest.mark.parametrize("name", ["mit_b0", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "hrnet_w18_small"])
def test_a_network_without_stages_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(WrongUse, match=f"encoder '{name}' has no stages to put attention behind; take a ResNet"):
        Encoder(name, (2,), attention=Added, slots=(2,))


def test_a_place_that_no_tap_sees_is_refused() -> None:
    with pytest.raises(WrongUse, match=r"attention at \(2, 4\) lies behind the last tap of \(3,\), where none sees it"):
        Encoder("resnet18", (3,), attention=Added, slots=(2, 4))


def test_its_settings_count_in_a_digest() -> None:
    build = partial(Encoder, "resnet18", (4,))
    others = [partial(build, attention=Added, slots=slots) for slots in ((3,), (4,), (3, 4))]
    assert len({digest(one) for one in (build, *others)}) == 4
