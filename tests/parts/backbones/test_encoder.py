"""Encoders: levels, strides and weights that must match."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from eosin.core.errors import EosinError, WrongUse
from eosin.core.fingerprint import digest
from eosin.parts.backbones.encoder import Encoder, WeightFile, pretrained_from

LEVELS = (0, 1, 2, 3, 4)
CHANNELS = [64, 64, 128, 256, 512]


def full(name: str) -> dict[str, torch.Tensor]:
    import timm  # not before eosin, which makes it importable beside a CPU-only torch

    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False).state_dict()


@pytest.fixture(scope="module")
def whole() -> dict[str, torch.Tensor]:
    """The state dict of a whole network, head and all."""
    return full("resnet18")


@pytest.mark.parametrize(
    ("settings", "strides"),
    [
        ({}, [2, 4, 8, 16, 32]),
        ({"output_stride": 16}, [2, 4, 8, 16, 16]),
        ({"output_stride": 8}, [2, 4, 8, 8, 8]),
        ({"stem_pool": False}, [2, 2, 4, 8, 16]),
        ({"stem_pool": False, "output_stride": 8}, [2, 2, 4, 4, 4]),
    ],
)
@torch.no_grad()
def test_channels_and_strides_are_what_is_said(settings: dict, strides: list[int]) -> None:
    encoder = Encoder("resnet18", LEVELS, **settings).eval()
    assert encoder.channels == CHANNELS and encoder.strides == strides
    features = encoder(torch.rand(1, 3, 64, 96))
    assert [f.shape[1] for f in features] == CHANNELS
    assert [tuple(f.shape[2:]) for f in features] == [(64 // s, 96 // s) for s in strides]


@torch.no_grad()
def test_taps_choose_levels_and_drop_what_lies_behind() -> None:
    encoder = Encoder("resnet18", (2,)).eval()
    assert encoder.channels == [128] and encoder.strides == [8]
    assert not any(key.startswith(("layer3", "layer4", "fc")) for key in encoder.net.state_dict())
    assert [tuple(f.shape) for f in encoder(torch.rand(2, 3, 20, 30))] == [(2, 128, 3, 4)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "resnet81"}, r"'resnet81' is not known to timm \(did you mean 'resnet18'\?\)"),
        ({"name": "xyz"}, r"'xyz' is not known to timm \(known: .* more\)"),
        ({"taps": (7,)}, r"'resnet18' has no feature level 7"),
        ({"name": "vgg11", "taps": (0,), "output_stride": 8}, r"'vgg11' takes no output_stride 8"),
        ({"name": "swin_tiny_patch4_window7_224", "taps": (0,), "output_stride": 8}, r"takes no output_stride 8"),
        ({"name": "convnext_atto", "taps": (0,), "stem_pool": False}, r"has no max-pool after its stem"),
        ({"pretrained": "imagnet"}, r"pretrained = 'imagnet'"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(settings: dict, message: str) -> None:
    with pytest.raises(WrongUse, match=message) as caught:
        Encoder(**{"name": "resnet18", "taps": (1,), **settings})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


class TestWeights:
    def test_a_file_is_told_by_its_content(self, tmp_path: Path) -> None:
        for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
            (tmp_path / name).write_bytes(content)
        a, b, c = (digest(partial(Encoder, pretrained=pretrained_from(str(tmp_path / name)))) for name in "abc")
        assert a == b != c
        assert pretrained_from("none") == "none" and pretrained_from("imagenet") == "imagenet"

    def test_a_file_that_is_not_there(self) -> None:
        with pytest.raises(WrongUse, match=r"no/such\.pth': no such weight file"):
            pretrained_from("no/such.pth")

    @pytest.mark.parametrize("prefix", ["", "module."])
    @pytest.mark.parametrize("form", ["pth", "nested", "safetensors"])
    def test_a_good_file_is_taken_whole(
        self, tmp_path: Path, whole: dict, prefix: str, form: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        weights = {prefix + key: value for key, value in whole.items()}
        file = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
        if form == "safetensors":
            save_file(weights, file)
        else:
            torch.save({"state_dict": weights, "epoch": 3} if form == "nested" else weights, file)
        with caplog.at_level(logging.INFO):
            encoder = Encoder("resnet18", (2,), pretrained=pretrained_from(str(file)))
        own = encoder.net.state_dict()
        assert own and all(torch.equal(value, whole[key]) for key, value in own.items())
        assert pretrained_from(str(file)).digest in caplog.text  # type: ignore[union-attr]
        assert f"{len(own)} of the encoder's {len(own)} entries matched, {len(whole) - len(own)} left" in caplog.text

    def test_names_that_timm_joins_are_found(self, tmp_path: Path) -> None:
        weights = full("convnext_atto")
        save_file(weights, tmp_path / "w.safetensors")
        encoder = Encoder("convnext_atto", (1,), pretrained=pretrained_from(str(tmp_path / "w.safetensors")))
        assert torch.equal(encoder.net.state_dict()["stem_0.weight"], weights["stem.0.weight"])

    @pytest.mark.parametrize("change", ["other names", "other shape", "one missing"])
    def test_a_file_that_does_not_match_is_an_error(self, tmp_path: Path, whole: dict, change: str) -> None:
        weights = dict(whole)
        if change == "other names":
            weights = {f"backbone.{key}": value for key, value in weights.items()}
        elif change == "other shape":
            weights["conv1.weight"] = weights["conv1.weight"][:, :1]
        else:
            del weights["layer1.0.bn1.running_mean"]
        file = tmp_path / "w.pth"
        torch.save(weights, file)
        with pytest.raises(EosinError, match="entries match; missing or of another shape") as caught:
            Encoder("resnet18", (2,), pretrained=pretrained_from(str(file)))
        assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
    @pytest.mark.parametrize("content", [b"", b"no weights at all, but long enough to have a header"])
    def test_a_file_that_holds_no_weights_is_named(self, tmp_path: Path, name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(EosinError, match="not a file of weights") as caught:
            Encoder("resnet18", (1,), pretrained=WeightFile(tmp_path / name, "0" * 64))
        assert str(caught.value).startswith(f"{tmp_path / name}: ") and "\n" not in str(caught.value)

    @pytest.mark.parametrize("stored", [torch.zeros(2), [1, 2]])
    def test_a_file_of_something_else_is_named(self, tmp_path: Path, stored: object) -> None:
        torch.save(stored, tmp_path / "w.pth")
        with pytest.raises(EosinError, match=f"holds a {type(stored).__name__}"):
            Encoder("resnet18", (1,), pretrained=pretrained_from(str(tmp_path / "w.pth")))

    def test_a_file_that_would_run_code_is_refused(self, tmp_path: Path) -> None:
        torch.save({"conv1.weight": Path("x")}, tmp_path / "w.pth")
        with pytest.raises(EosinError, match="not a file of weights"):
            Encoder("resnet18", (1,), pretrained=pretrained_from(str(tmp_path / "w.pth")))

    def test_without_network_and_cache_it_stops(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import timm

        create = timm.create_model

        def offline(name: str, pretrained: bool = False, **settings: object) -> object:
            if pretrained:
                raise OSError("no route to host")
            return create(name, pretrained=False, **settings)

        monkeypatch.setattr(timm, "create_model", offline)
        with pytest.raises(EosinError, match=r"ImageNet weights of resnet18 are .*: set pretrained to a local file"):
            Encoder("resnet18", (1,), pretrained="imagenet")
