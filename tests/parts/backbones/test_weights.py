"""Files of weights: read without running code, mapped by name, and loaded into their own network only."""

from __future__ import annotations

import logging
import pickle
import random
import struct
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from eosin.core.errors import EosinError
from eosin.parts.backbones.encoder import Encoder, pretrained_from
from eosin.parts.backbones.networks import cut
from eosin.parts.backbones.params import read_params
from eosin.parts.backbones.resnet38 import ResNet38
from eosin.parts.backbones.weights import load_weights, read_weights

ARRAYS: dict[str, NDArray] = {
    "arg:conv1a_weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2) / 7,
    "aux:bn7_moving_mean": np.array([1.5, -2.0], np.float64),
    "arg:half": np.array([[0.5], [2.0]], np.float16),
    "arg:bytes": np.array([0, 255], np.uint8),
    "arg:ints": np.array([-3, 2**30], np.int32),
    "arg:small": np.array([-128], np.int8),
    "arg:long": np.array([2**40], np.int64),
}
TYPES = ["float32", "float64", "float16", "uint8", "int32", "int8", "int64"]
AGES = ["before 0.12", "V1", "V2"]


def params(arrays: Mapping[str, NDArray], age: str = "V2") -> bytes:
    """The bytes of an MXNet parameter file, as ``NDArray::Save`` of that age writes them."""
    told = struct.pack("<QQQ", 0x112, 0, len(arrays))
    for array in arrays.values():
        sides = struct.pack(f"<I{array.ndim}q", array.ndim, *array.shape)
        if age == "V2":
            told += struct.pack("<Ii", 0xF993FAC9, 0) + sides
        elif age == "V1":
            told += struct.pack("<I", 0xF993FAC8) + sides
        else:
            told += struct.pack(f"<I{array.ndim}I", array.ndim, *array.shape)
        told += struct.pack("<iii", 1, 0, TYPES.index(array.dtype.name)) + array.tobytes()
    told += struct.pack("<Q", len(arrays))
    return told + b"".join(struct.pack("<Q", len(name)) + name.encode() for name in arrays)


def one_line(path: Path, read: Callable[[Path], object]) -> str:
    """The error of reading a damaged file, which is one line that names it."""
    with pytest.raises(EosinError) as caught:
        read(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and "\n" not in line and len(line) < 400
    return line


class TestParams:
    @pytest.mark.parametrize("age", AGES)
    def test_arrays_of_every_age_and_type_come_back_by_name(self, tmp_path: Path, age: str) -> None:
        (tmp_path / "w.params").write_bytes(params(ARRAYS, age))
        found = read_params(tmp_path / "w.params")
        assert list(found) == list(ARRAYS)
        for name, array in ARRAYS.items():
            assert found[name].numpy().dtype == array.dtype and np.array_equal(found[name].numpy(), array), name

    def test_an_array_without_sides_holds_nothing(self, tmp_path: Path) -> None:
        nothing = struct.pack("<QQQIiIQQ4s", 0x112, 0, 1, 0xF993FAC9, 0, 0, 1, 4, b"none")
        (tmp_path / "w.params").write_bytes(nothing)
        assert read_params(tmp_path / "w.params")["none"].numel() == 0

    @pytest.mark.parametrize("age", AGES)
    def test_a_file_cut_short_anywhere_is_named(self, tmp_path: Path, age: str) -> None:
        content = params({name: ARRAYS[name] for name in ("aux:bn7_moving_mean", "arg:half")}, age)
        for end in range(len(content)):
            (tmp_path / "w.params").write_bytes(content[:end])
            assert f"cut short at byte {end}, " in one_line(tmp_path / "w.params", read_params)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"PK\x03\x04" + bytes(60), "not an MXNet parameter file"),
            (params(ARRAYS) + b"!", "7 arrays, 7 names, 1 bytes behind them"),
            (params(ARRAYS).replace(struct.pack("<Ii", 0xF993FAC9, 0), struct.pack("<Ii", 0xF993FAC9, 1)), "is sparse"),
            (struct.pack("<QQQI", 0x112, 0, 1, 0xF993FACA), r"no array at byte 24 \(it begins with 0xf993faca\)"),
            (struct.pack("<QQQIIiii", 0x112, 0, 1, 1, 2, 1, 0, 9), r"the array at byte 24 has type 9, shape \[2\]"),
            (struct.pack("<QQQIiIqiii", 0x112, 0, 1, 0xF993FAC9, 0, 1, -2, 1, 0, 0), r"has type 0, shape \[-2\]"),
            (struct.pack("<QQQQ", 0x112, 0, 0, 2**63), "cut short"),
            (struct.pack("<QQQIIIiii", 0x112, 0, 1, 2, 2**31, 2**31, 1, 0, 1), "cut short"),
        ],
    )
    def test_what_is_none_is_said_to_be_none(self, tmp_path: Path, content: bytes, message: str) -> None:
        (tmp_path / "w.params").write_bytes(content)
        with pytest.raises(EosinError, match=message):
            read_params(tmp_path / "w.params")
        one_line(tmp_path / "w.params", read_params)


def filled(net: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        key: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
        for key, value in net.state_dict().items()
    }


MXNET = {"conv1a.weight": "arg:conv1a_weight"}
for _value, _theirs in {
    "weight": "arg:bn{}_gamma",
    "bias": "arg:bn{}_beta",
    "running_mean": "aux:bn{}_moving_mean",
    "running_var": "aux:bn{}_moving_var",
}.items():
    for _block, _name in {"b2": "2a", "b2_1": "2b1", "b2_2": "2b2"}.items():
        MXNET |= {f"{_block}.bn_branch{b}.{_value}": _theirs.format(f"{_name}_branch{b}") for b in ("2a", "2b1")}
        MXNET |= {f"{_block}.conv_branch{b}.weight": f"arg:res{_name}_branch{b}_weight" for b in ("2a", "2b1")}
    MXNET |= {f"b3.bn_branch2a.{_value}": _theirs.format("3a_branch2a")}
MXNET["b2.conv_branch1.weight"] = "arg:res2a_branch1_weight"


@pytest.mark.parametrize("form", [*AGES, "res38d.pth"])
def test_resnet_38_begins_with_either_file_of_its_weights(
    tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    stored = filled(ResNet38((2,)))
    if form == "res38d.pth":
        path = tmp_path / form
        torch.save({**stored, "b4.bn_branch2a.weight": torch.zeros(256)}, path)
    else:
        path = tmp_path / "ilsvrc-cls_rna-a1_cls1000_ep-0001.params"
        arrays = {MXNET[key]: value.numpy() for key, value in stored.items() if key in MXNET}
        assert len(arrays) == len(MXNET)
        path.write_bytes(params({**arrays, "arg:linear1000_weight": np.zeros((10, 4), np.float32)}, form))
    with caplog.at_level(logging.INFO, "eosin"):
        encoder = Encoder("resnet38", (2,), pretrained=pretrained_from(str(path)))
    own = encoder.net.state_dict()
    assert all(torch.equal(own[key], stored[key]) for key in own if not key.endswith("num_batches_tracked"))
    assert f"{path}: sha256 {pretrained_from(str(path)).digest}" in caplog.text  # type: ignore[union-attr]
    assert "entries matched, 1 left over (" in caplog.text


def test_a_params_file_of_another_network_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "w.params").write_bytes(params(ARRAYS))
    for name in ("resnet38", "resnet18"):
        with pytest.raises(EosinError, match=r"0 of the encoder's \d+ entries match; .*left over is"):
            Encoder(name, (1,), pretrained=pretrained_from(str(tmp_path / "w.params")))


class TestNames:
    @pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.encoder.", "encoder.net.", "net.body."])
    @pytest.mark.parametrize("wrap", [None, "state_dict", "model", "model_state_dict"])
    def test_names_are_freed_of_what_wrapped_the_network(self, tmp_path: Path, prefix: str, wrap: str | None) -> None:
        inner = {f"{prefix}conv1.weight": torch.ones(2), f"{prefix}layer1.0.bn1.bias": torch.zeros(1)}
        torch.save({wrap: inner, "epoch": 3} if wrap else inner, tmp_path / "w.pth")
        assert list(read_weights(tmp_path / "w.pth")) == ["conv1.weight", "layer1.0.bn1.bias"]

    def test_weights_of_two_networks_are_not_mixed(self, tmp_path: Path) -> None:
        torch.save({"encoder.conv1.weight": torch.ones(2), "net.conv1.weight": torch.zeros(2)}, tmp_path / "w.pth")
        assert "holds 'conv1.weight' twice" in one_line(tmp_path / "w.pth", read_weights)

    def test_what_holds_weights_deeper_down_is_told_apart(self, tmp_path: Path) -> None:
        torch.save({"student": {"a": torch.ones(1)}, "teacher": {"a": torch.ones(1)}}, tmp_path / "w.pth")
        assert "only 'student', 'teacher'; save a plain state dict" in one_line(tmp_path / "w.pth", read_weights)
        save_file({}, tmp_path / "w.safetensors")
        assert "holds no weights, only nothing" in one_line(tmp_path / "w.safetensors", read_weights)

    def test_a_whole_segmenter_gives_its_encoder(self, tmp_path: Path) -> None:
        with torch.device("meta"):
            made = cut("resnet18", (1,), 32)
        stored = filled(cut("resnet18", (1,), 32).body)
        inside = {f"encoder.{key}": value for key, value in stored.items()}
        torch.save({**inside, "decoder.blocks.0.conv1.weight": torch.ones(3)}, tmp_path / "w.pth")
        encoder = Encoder("resnet18", (1,), pretrained=pretrained_from(str(tmp_path / "w.pth")))
        assert all(torch.equal(value, stored[key]) for key, value in encoder.net.state_dict().items())
        assert stored.keys() == made.body.state_dict().keys()


class TestFitting:
    @pytest.mark.parametrize(
        ("file", "encoder", "odd"),
        [
            ("resnet101", "resnet50", r"layer3\.6\."),  # has all that ResNet-50 has
            ("vit_small_patch16_224", "vit_small_patch16_224", r"blocks\.0\.ls1\.gamma"),
            ("swin_small_patch4_window7_224", "swin_tiny_patch4_window7_224", r"layers\.2\.blocks\.6\."),
        ],
    )
    def test_a_larger_variant_is_not_taken_for_a_smaller_one(self, file: str, encoder: str, odd: str) -> None:
        import timm

        with torch.device("meta"):  # names and shapes decide
            stored = dict(timm.create_model(file).state_dict())
            if file == encoder:
                stored |= {f"blocks.{i}.ls1.gamma": torch.ones(384) for i in range(12)}
            made = cut(encoder, (2,), 32)
            if "resnet" in encoder:
                made = cut(encoder, (3,), 32)
        with pytest.raises(EosinError, match=rf"^w\.pth: \d+ entries have no place in the encoder, e\.g\. '{odd}"):
            load_weights(made.body, stored, "w.pth", made.whole)

    def test_a_larger_mit_is_not_taken_for_a_smaller_one(self) -> None:
        made = cut("mit_b0", (0,), 32)
        stored = dict(made.whole().state_dict())
        load_weights(made.body, stored, "w.pth", made.whole)
        stored |= {key.replace("block1.1", "block1.2"): value for key, value in stored.items()}
        with pytest.raises(EosinError, match=r"have no place in the encoder, e\.g\. 'block1\.2"):
            load_weights(made.body, stored, "w.pth", made.whole)

    @pytest.mark.parametrize("left", [{"fc.weight": 2}, {"projector.0.weight": 3, "head.mlp.2.bias": 1}, {}])
    def test_heads_may_be_left_over_and_are_told(self, left: dict[str, int], caplog: pytest.LogCaptureFixture) -> None:
        net = nn.Sequential(nn.Linear(2, 2))
        stored = filled(net) | {name: torch.zeros(size) for name, size in left.items()}
        with caplog.at_level(logging.INFO, "eosin"):
            load_weights(net, stored, "w.pth", partial(pytest.fail, "nothing is asked of the whole network"))
        assert torch.equal(net[0].weight, stored["0.weight"])
        told = f" ({', '.join(left)})" if left else ""
        assert caplog.messages == [f"w.pth: 2 of the encoder's 2 entries matched, {len(left)} left over{told}"]

    def test_levels_that_were_cut_off_may_be_left_over(self) -> None:
        import timm

        for name in ("vgg11", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "resnest14d"):
            with torch.device("meta"):
                made = cut(name, (1,), 32)
                stored = timm.create_model(name).state_dict()
            assert len(made.body.state_dict()) < len(stored) - 4
            load_weights(made.body, stored, "w.pth", made.whole)

    def test_positions_of_another_grid_are_resized(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        import timm

        stored = filled(timm.create_model("vit_tiny_patch16_224", img_size=96, num_classes=0))
        ramp = torch.linspace(0, 1, 6)[None, :, None, None].expand(1, 6, 6, 192).reshape(1, 36, 192)
        stored["pos_embed"] = torch.cat([torch.full((1, 1, 192), 7.0), ramp], 1)
        torch.save(stored, tmp_path / "w.pth")
        with caplog.at_level(logging.INFO, "eosin"):
            encoder = Encoder("vit_tiny_patch16_224", (0,), pretrained=pretrained_from(str(tmp_path / "w.pth")))
        got = encoder.net.state_dict()["model.pos_embed"]
        assert got.shape == (1, 197, 192) and (got[:, 0] == 7).all()
        rows = got[:, 1:].view(14, 14, 192).mean((1, 2))
        assert (rows.diff() > -0.01).all() and 0.4 < rows.mean() < 0.6, "the same ramp, finer"
        assert "positions of a grid of 6 x 6 are resized to 14 x 14" in caplog.text

    @pytest.mark.parametrize("tokens", [0, 1, 36, 49])
    def test_positions_that_are_no_grid_are_an_error(self, tmp_path: Path, tokens: int) -> None:
        import timm

        stored = filled(timm.create_model("vit_tiny_patch16_224", num_classes=0))
        torch.save(stored | {"pos_embed": torch.zeros(1, tokens, 192)}, tmp_path / "w.pth")
        with pytest.raises(EosinError, match=r"missing or of another shape is e\.g\. 'pos_embed'"):
            Encoder("vit_tiny_patch16_224", (0,), pretrained=pretrained_from(str(tmp_path / "w.pth")))

    def test_the_authors_files_of_swin_merge_patches_a_stage_earlier(self) -> None:
        made = cut("swin_tiny_patch4_window7_224", (1,), 32)
        stored = filled(made.body)
        theirs = {key.replace("layers_", "layers."): value for key, value in stored.items()}
        theirs = {key.replace("layers.1.downsample", "layers.0.downsample"): value for key, value in theirs.items()}
        theirs |= {"layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49), "head.weight": torch.zeros(2)}
        theirs |= {"layers.0.blocks.1.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.long)}
        load_weights(made.body, made.renamed(theirs), "w.pth", made.whole)
        assert all(torch.equal(value, stored[key]) for key, value in made.body.state_dict().items())


class TestDamage:
    @pytest.fixture
    def files(self, tmp_path: Path) -> list[Path]:
        """The same weights as torch, older torch and safetensors write them."""
        stored = {"conv1.weight": torch.rand(4, 3, 3, 3), "layer1.0.bn1.bias": torch.rand(5)}
        torch.save(stored, tmp_path / "w.pth")
        torch.save(stored, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
        save_file(stored, tmp_path / "w.safetensors")
        return [tmp_path / name for name in ("w.pth", "old.pth", "w.safetensors")]

    def test_a_file_cut_short_is_named(self, files: list[Path]) -> None:
        for file in files:
            content = file.read_bytes()
            for end in [*range(0, len(content) - 1, max(1, len(content) // 60)), len(content) - 1]:
                file.write_bytes(content[:end])
                assert "not a file of weights" in one_line(file, read_weights)

    def test_a_file_with_changed_bytes_is_named_or_read(self, files: list[Path]) -> None:
        """What is changed may be a value; what it may not be is a crash of another kind."""
        chance, refused = random.Random(0), 0
        for file in files:
            content = file.read_bytes()
            for _ in range(80):
                broken = bytearray(content)
                for _ in range(8):
                    broken[chance.randrange(len(broken))] = chance.randrange(256)
                file.write_bytes(broken)
                try:
                    read_weights(file)
                except EosinError as error:
                    assert str(error).startswith(f"{file}: ") and "\n" not in str(error)
                    refused += 1
        assert refused > 20

    def test_code_in_a_file_is_not_run(self, tmp_path: Path) -> None:
        class Evil:
            def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
                return Path.touch, (tmp_path / "it-ran",)  # type: ignore[return-value]

        for file, save in ((tmp_path / "a.pth", torch.save), (tmp_path / "b.pth", dumped)):
            save({"conv1.weight": Evil()}, file)
            assert "not a file of weights" in one_line(file, read_weights)
        assert not (tmp_path / "it-ran").exists()


def dumped(value: object, file: Path) -> None:
    file.write_bytes(pickle.dumps(value))
