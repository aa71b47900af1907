"""Encoders: levels, strides and weights that must match."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from eosin.core.errors import EosinError, WrongUse
from eosin.core.fingerprint import digest
from eosin.parts.backbones.encoder import Encoder, Undilated, WeightFile, pretrained_from

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
        ({"name": "resnet18.foo"}, r"'resnet18\.foo' is not known to timm \(did you mean 'resnet18'\?\)"),
        ({"name": "mit_b7"}, r"'mit_b7' is not known to timm \(did you mean 'mit_b\d'\?\)"),
        ({"name": "xyz"}, r"'xyz' is not known to timm \(known: .* more\)"),
        ({"taps": (7,)}, r"'resnet18' has no feature level 7"),
        ({"taps": ()}, r"'resnet18': taps \(\) are not levels in rising order"),
        ({"taps": (2, 1)}, r"taps \(2, 1\) are not levels in rising order"),
        ({"taps": (1, 1)}, r"taps \(1, 1\) are not levels in rising order"),
        ({"taps": (-1,)}, r"taps \(-1,\) are not levels in rising order"),
        ({"name": "vit_tiny_patch16_224", "taps": (12,)}, r"has no feature level 12: feature index 12 is out of range"),
        ({"name": "mit_b0", "taps": (4,)}, r"'mit_b0' has no feature level 4; it has 0 to 3"),
        ({"name": "hrnet_w18_small", "output_stride": 8}, r"'hrnet_w18_small' takes no output_stride 8"),
        ({"name": "vit_tiny_patch16_224", "output_stride": 8}, r"takes no output_stride 8: its tap 1 has stride 16; "),
        (
            {"name": "swin_tiny_patch4_window7_224", "taps": (0, 2), "output_stride": 8},
            r"takes no output_stride 8: its tap 2 has stride 16; leave it at 32, or tap earlier",
        ),
        ({"name": "vit_tiny_patch16_224", "stem_pool": False}, r"has no max-pool after its stem"),
        ({"name": "convnext_atto", "taps": (0,), "stem_pool": False}, r"has no max-pool after its stem"),
        ({"pretrained": "imagnet"}, r"pretrained = 'imagnet'"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(settings: dict, message: str) -> None:
    with pytest.raises(WrongUse, match=message) as caught:
        Encoder(**{"name": "resnet18", "taps": (1,), **settings})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


SIZES = [(250, 250), (112, 180), (20, 30)]


def up(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return (-(-size[0] // stride), -(-size[1] // stride))


def down(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return (size[0] // stride, size[1] // stride)


@pytest.mark.parametrize(
    ("name", "taps", "output_stride", "channels", "strides"),
    [
        ("resnet50", (1, 2, 3, 4), 16, [256, 512, 1024, 2048], [4, 8, 16, 16]),
        ("resnest101e", (0, 1, 2, 4), 8, [128, 256, 512, 2048], [2, 4, 8, 8]),
        ("vgg16_bn", (0, 1, 2, 3, 4, 5), 32, [64, 128, 256, 512, 512, 512], [1, 2, 4, 8, 16, 32]),
        ("vgg16", (3, 4, 5), 16, [512, 512, 512], [8, 16, 16]),
        ("vgg16_bn", (3, 4, 5), 8, [512, 512, 512], [8, 8, 8]),
        ("vit_small_patch16_384", (5, 11), 16, [384, 384], [16, 16]),
        ("vit_small_patch8_224", (2,), 8, [384], [8]),
        ("deit_small_distilled_patch16_224", (11,), 32, [384], [16]),
        ("swin_tiny_patch4_window7_224", (0, 1, 2, 3), 32, [96, 192, 384, 768], [4, 8, 16, 32]),
        ("swin_tiny_patch4_window7_224", (0, 1), 8, [96, 192], [4, 8]),
        ("mit_b0", (0, 1, 2, 3), 32, [32, 64, 160, 256], [4, 8, 16, 32]),
        ("mit_b0", (1, 3), 16, [64, 256], [8, 16]),
        ("mit_b0", (2, 3), 8, [160, 256], [8, 8]),
    ],
)
@torch.no_grad()
def test_every_family_takes_any_size(
    name: str, taps: tuple[int, ...], output_stride: int, channels: list[int], strides: list[int]
) -> None:
    device = (
        "cpu" if name.startswith("mit") else "meta"
    )  # SMP cannot build without memory; shapes are all that is asked
    with torch.device(device):
        encoder = Encoder(name, taps, output_stride).eval()  # type: ignore[arg-type]
    assert encoder.channels == channels and encoder.strides == strides
    for size in SIZES:
        rounded = down if "vgg" in name else up
        if "vgg" in name and min(size) < 2 * max(strides):
            continue
        features = encoder(torch.rand(1, 3, *size, device=device))
        assert [f.shape[1] for f in features] == channels
        assert [tuple(f.shape[2:]) for f in features] == [rounded(size, stride) for stride in strides], size
        assert all(f.shape[0] == 1 and f.ndim == 4 for f in features)


def light(kind: type[Encoder], *settings: object) -> Encoder:
    """An encoder with small random weights, built without timm's time for its first weights."""
    with torch.device("meta"):
        encoder = kind(*settings)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    encoder = encoder.to_empty(device="cpu").eval()
    for key, value in encoder.state_dict().items():
        if value.is_floating_point():
            low, high = (0.5, 1.5) if key.endswith(("running_var", "bn1.weight")) else (-0.08, 0.12)
            value.copy_(torch.rand(value.shape, generator=generator) * (high - low) + low)
    return encoder


@pytest.mark.parametrize(("name", "tap"), [("vgg11", 5), ("vgg11_bn", 5), ("resnet18", 4), ("resnet26", 4)])
@pytest.mark.parametrize("output_stride", [16, 8])
@torch.no_grad()
def test_a_dilated_network_has_the_values_of_the_strided_one_between_which_it_fills_in(
    name: str, tap: int, output_stride: int
) -> None:
    strided, dilated = light(Encoder, name, (tap,), 32), light(Encoder, name, (tap,), output_stride)
    dilated.load_state_dict(strided.state_dict())
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    every = 32 // output_stride
    wanted, got = strided(image)[0], dilated(image)[0]
    assert wanted.std() > 0 and got.shape[-1] == every * wanted.shape[-1]
    torch.testing.assert_close(got[..., ::every, ::every], wanted, rtol=1e-4, atol=1e-4 * wanted.std().item())


class TestUndilated:
    def test_the_teacher_of_pdseg_has_the_shape_and_the_parameters_of_the_paper(self) -> None:
        with torch.device("meta"):
            encoder = Undilated("resnet101", (4,), 16)
            assert [tuple(f.shape) for f in encoder(torch.empty(1, 3, 224, 224))] == [(1, 2048, 14, 14)]
        assert encoder.strides == [16] and sum(p.numel() for p in encoder.parameters()) == 42_500_160
        convs = {n: m for n, m in encoder.net.named_modules() if isinstance(m, nn.Conv2d)}
        assert all(conv.dilation == (1, 1) for conv in convs.values())
        assert convs["layer4.0.conv2"].stride == convs["layer4.0.downsample.0"].stride == (1, 1)
        assert convs["layer3.0.conv2"].stride == (2, 2)

    @torch.no_grad()
    def test_it_is_another_network_than_the_dilated_one(self) -> None:
        image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        for output_stride, taps in ((16, (3, 4)), (8, (2, 4))):
            dilated = light(Encoder, "resnet18", taps, output_stride)
            undilated = light(Undilated, "resnet18", taps, output_stride)
            undilated.load_state_dict(dilated.state_dict())
            a, b = dilated(image), undilated(image)
            assert dilated.strides == undilated.strides and torch.equal(a[0], b[0])
            assert a[1].shape == b[1].shape and not torch.allclose(a[1], b[1], rtol=0.01)

    @torch.no_grad()
    def test_at_the_full_stride_it_is_the_same(self) -> None:
        a, b = light(Encoder, "resnet18", (4,), 32), light(Undilated, "resnet18", (4,), 32)
        image = torch.rand(1, 3, 64, 64)
        assert torch.equal(a(image)[0], b(image)[0])

    @pytest.mark.parametrize("name", ["resnet26d", "resnest14d", "vgg11", "mit_b0", "resnet38", "resnet81"])
    def test_only_plain_resnets_can_be_had_so(self, name: str) -> None:
        with pytest.raises(WrongUse, match=f"encoder '{name}' is no plain ResNet"):
            Undilated(name, (3,), 8)


class TestPadding:
    @torch.no_grad()
    @pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mit_b0"])
    def test_a_border_is_repeated_to_whole_patches_and_cut_again(self, name: str) -> None:
        torch.manual_seed(0)
        encoder = Encoder(name, (1,)).eval()
        image = torch.rand(2, 3, 21, 45)
        whole = image[:, :, [*range(21), *[20] * 11]][..., [*range(45), *[44] * 3]]  # 32 x 48
        stride = encoder.strides[0]
        got, wanted = encoder(image)[0], encoder(whole)[0]
        assert got.shape[2:] == up((21, 45), stride)
        if name == "mit_b0":  # only its height is too small
            whole = whole[..., :45]
            wanted = encoder(whole)[0]
        elif name.startswith("swin"):
            wanted = encoder(whole[:, :, :24])[0]
        torch.testing.assert_close(got, wanted[..., : got.shape[2], : got.shape[3]])

    @torch.no_grad()
    def test_the_channels_of_swin_come_first(self) -> None:
        torch.manual_seed(0)
        encoder = Encoder("swin_tiny_patch4_window7_224", (0,)).eval()
        image = torch.rand(1, 3, 56, 56)
        assert torch.equal(encoder(image)[0], encoder.net(image)[0].permute(0, 3, 1, 2))
        assert encoder(image)[0].is_contiguous()


def test_mit_has_the_parameters_of_the_specification_and_none_that_idle() -> None:
    encoder = Encoder("mit_b1", (0, 1, 2, 3))
    assert sum(p.numel() for p in encoder.parameters()) == 13_151_424
    cut = Encoder("mit_b0", (1,))
    assert {key.split(".")[1][-1] for key in cut.net.state_dict()} == {"1", "2"}
    cut(torch.rand(1, 3, 32, 32))[0].sum().backward()
    assert all(p.grad is not None for p in cut.parameters())


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vgg11", "swin_tiny_patch4_window7_224"])
def test_what_lies_behind_the_last_tap_is_dropped(name: str) -> None:
    with torch.device("meta"):
        encoder = Encoder(name, (1,))
        encoder(torch.rand(1, 3, 64, 64))[0].sum().backward()
    missing = [key for key, p in encoder.named_parameters() if p.grad is None]
    assert not missing


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
            weights = {f"features.{key}": value for key, value in weights.items()}
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

    @pytest.mark.parametrize("name", ["mit_b0", "vit_tiny_patch16_224"])
    def test_imagenet_weights_of_every_library_are_taken_whole(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import timm
        from segmentation_models_pytorch import encoders

        torch.manual_seed(4)
        library, maker = (encoders, "get_encoder") if name.startswith("mit") else (timm, "create_model")
        create = getattr(library, maker)
        fetched = create(name, weights=None) if name.startswith("mit") else create(name)
        asked: list[dict[str, object]] = []

        def deliver(called: str, **settings: object) -> object:
            if settings.get("pretrained") or settings.get("weights"):
                asked.append(settings)
                return fetched
            return create(called, **settings)

        monkeypatch.setattr(library, maker, deliver)
        encoder = Encoder(name, (1,), pretrained="imagenet")
        assert asked == [{"weights": "imagenet"} if name.startswith("mit") else {"pretrained": True}]
        stored = {key.replace(".", "_"): value for key, value in fetched.state_dict().items()}
        for key, value in encoder.net.state_dict().items():
            plain = key.removeprefix("body.").removeprefix("model.").replace(".", "_")
            assert torch.equal(value, stored[plain]), key

    def test_those_of_resnet_38_are_not_to_be_fetched(self) -> None:
        with pytest.raises(EosinError, match="are not fetched by name: eosin list weights says where they are"):
            Encoder("resnet38", (1,), pretrained="imagenet")

    def test_those_of_mit_are_missed_in_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from segmentation_models_pytorch import encoders

        def offline(*args: object, **settings: object) -> None:
            raise OSError("no route to host")

        monkeypatch.setattr(encoders, "hf_hub_download", offline)
        with pytest.raises(EosinError, match=r"ImageNet weights of mit_b0 are .*: set pretrained to a local file"):
            Encoder("mit_b0", (1,), pretrained="imagenet")

    def test_a_known_file_must_have_its_digest(self, tmp_path: Path) -> None:
        file = tmp_path / "resnest101-22405ba7.pth"
        file.write_bytes(b"half of it")
        with pytest.raises(EosinError, match=r"its SHA-256 begins with \w{8}, not 22405ba7; download it again"):
            pretrained_from(str(file))
        assert pretrained_from(str(file.rename(tmp_path / "mine-22405ba7.pth")))
