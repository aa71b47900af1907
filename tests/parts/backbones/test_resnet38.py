"""ResNet-38: the shapes and numbers of the specification, a slow oracle, and the names of the authors' file."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eosin.core.errors import WrongUse
from eosin.parts.backbones.encoder import Encoder
from eosin.parts.backbones.held import Held
from eosin.parts.backbones.resnet38 import ResNet38, torch_name

TAPS = (1, 2, 3, 4, 5, 6)
BLOCKS = {"b2": 3, "b3": 3, "b4": 6, "b5": 3, "b6": 1, "b7": 1}
PARAMETERS = {  # ARML spec, A2
    "conv1a": 1_728,
    "b2": 820_608,
    "b3": 3_279_616,
    "b4": 27_274_752,
    "b5": 26_484_736,
    "b6": 9_442_304,
    "b7": 37_758_976,
    "bn7": 8_192,
}


def numbers(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.fixture(scope="module")
def shapes_only() -> ResNet38:
    """The whole network without memory: for names, numbers and shapes."""
    with torch.device("meta"):
        return ResNet38(TAPS)


@pytest.fixture(scope="module")
def whole() -> ResNet38:
    """The whole network with weights and running means of its own."""
    torch.manual_seed(0)
    with torch.device("meta"):
        net = ResNet38(TAPS)
    net = net.to_empty(device="cpu").eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=(2 / module.weight[0].numel()) ** 0.5)
        elif isinstance(module, nn.BatchNorm2d):
            for value, low, high in (
                (module.weight, 0.5, 1),
                (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2),
            ):
                nn.init.uniform_(value, low, high)
    return net


def test_each_stage_has_the_parameters_of_the_specification(shapes_only: ResNet38) -> None:
    counts: dict[str, int] = {}
    for name, child in shapes_only.named_children():
        stage = name.partition("_")[0]
        counts[stage] = counts.get(stage, 0) + numbers(child)
    assert counts == PARAMETERS
    assert numbers(shapes_only) == 105_070_912
    assert numbers(shapes_only) + numbers(nn.Conv2d(4096, 4, 1, bias=False)) == 105_087_296
    stages = [name.partition("_")[0] for name, _ in shapes_only.named_children()]
    assert {stage: stages.count(stage) for stage in BLOCKS} == BLOCKS


def test_each_stage_has_the_shape_of_the_specification(shapes_only: ResNet38) -> None:
    channels, sides = [64, 128, 256, 512, 1024, 4096], [224, 112, 56, 28, 28, 28]
    assert shapes_only.channels == channels and shapes_only.strides == [224 // side for side in sides]
    features = shapes_only(torch.empty(2, 3, 224, 224, device="meta"))
    assert [tuple(f.shape) for f in features] == [(2, c, s, s) for c, s in zip(channels, sides, strict=True)]


@pytest.mark.parametrize(("size", "side"), [(112, 14), (256, 32), (320, 40), (250, 32), (225, 29)])
def test_an_eighth_of_the_image_rounded_up_is_left(shapes_only: ResNet38, size: int, side: int) -> None:
    assert shapes_only(torch.empty(1, 3, size, 112, device="meta"))[-1].shape == (1, 4096, side, 14)


def test_strides_and_dilations_are_those_of_the_specification(shapes_only: ResNet38) -> None:
    strided, dilated = set(), {}
    for name, module in shapes_only.named_modules():
        if isinstance(module, nn.Conv2d):
            assert module.bias is None and module.padding[0] == module.dilation[0] * (module.kernel_size[0] // 2)
            if module.stride == (2, 2):
                strided.add(name)
            if module.dilation[0] > 1:
                dilated[name] = module.dilation[0]
    assert strided == {f"{stage}.conv_branch{branch}" for stage in ("b2", "b3", "b4") for branch in ("2a", "1")}
    fives = {f"{block}.conv_branch{b}": 2 for block in ("b5", "b5_1", "b5_2") for b in ("2a", "2b1")}
    del fives["b5.conv_branch2a"]  # the first convolution of the first block is not dilated
    assert dilated == fives | {"b6.conv_branch2b1": 4, "b7.conv_branch2b1": 4}
    assert (shapes_only.get_submodule("b6.dropout").p, shapes_only.get_submodule("b7.dropout").p) == (0.3, 0.5)


def oracle(image: Tensor, weights: dict[str, Tensor]) -> list[Tensor]:
    """The network told from the specification by its entries alone: what the taps 1 to 6 show, in eval mode."""

    def active(x: Tensor, norm: str) -> Tensor:
        mean, var, scale, shift = (
            weights[f"{norm}.{key}"][None, :, None, None] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * scale + shift).clamp(min=0)

    def conv(x: Tensor, name: str, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=dilation * (weight.shape[-1] // 2), dilation=dilation)

    x = conv(image, "conv1a")
    seen = []
    for stage, stride, dilation in ((2, 2, 1), (3, 2, 1), (4, 2, 1), (5, 1, 2)):
        for block in range(BLOCKS[f"b{stage}"]):
            name = f"b{stage}_{block}" if block else f"b{stage}"
            first = block == 0
            a = active(x, f"{name}.bn_branch2a")
            if first:
                seen.append(a)
            step = stride if first else 1
            branch = conv(a, f"{name}.conv_branch2a", step, 1 if first else dilation)
            branch = conv(active(branch, f"{name}.bn_branch2b1"), f"{name}.conv_branch2b1", 1, dilation)
            x = branch + (conv(a, f"{name}.conv_branch1", step) if first else x)
    for stage in (6, 7):
        a = active(x, f"b{stage}.bn_branch2a")
        if stage == 6:
            seen.append(a)
        branch = active(conv(a, f"b{stage}.conv_branch2a"), f"b{stage}.bn_branch2b1")
        branch = active(conv(branch, f"b{stage}.conv_branch2b1", 1, 4), f"b{stage}.bn_branch2b2")
        x = conv(branch, f"b{stage}.conv_branch2b2") + conv(a, f"b{stage}.conv_branch1")
    return [*seen, active(x, "bn7")]


@torch.no_grad()
def test_it_does_what_the_specification_says(whole: ResNet38) -> None:
    image = torch.randn(1, 3, 27, 18, generator=torch.Generator().manual_seed(1))
    for got, wanted in zip(whole(image), oracle(image, whole.state_dict()), strict=True):
        assert wanted.std() > 0.1
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3 * wanted.abs().max().item())


@torch.no_grad()
@pytest.mark.parametrize("taps", [(5,), (4, 6), (5, 6)])
def test_late_taps_are_those_of_the_whole_network(whole: ResNet38, taps: tuple[int, ...]) -> None:
    with torch.device("meta"):
        some = ResNet38(taps).eval()
    entries = whole.state_dict()
    some.load_state_dict({key: entries[key] for key in some.state_dict()}, assign=True)
    image = torch.randn(1, 3, 16, 8, generator=torch.Generator().manual_seed(1))
    features = whole(image)
    assert all(torch.equal(f, features[tap - 1]) for f, tap in zip(some(image), taps, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("tap", [1, 2, 3])
def test_a_cut_network_shows_what_the_whole_one_shows_and_holds_no_more(whole: ResNet38, tap: int) -> None:
    entries = whole.state_dict()
    cut = ResNet38((tap,)).eval()
    cut.load_state_dict({key: entries[key] for key in cut.state_dict()})  # all its names are the whole network's
    image = torch.randn(1, 3, 20, 12, generator=torch.Generator().manual_seed(1))
    assert cut.channels == [whole.channels[tap - 1]] and torch.equal(cut(image)[0], whole(image)[tap - 1])
    stages = {name.partition("_")[0] for name, _ in cut.named_children()}
    assert stages == {"conv1a", *(f"b{stage}" for stage in range(2, tap + 2))}
    assert numbers(cut.get_submodule(f"b{tap + 1}")) == 2 * cut.channels[0], "of the next stage, its first norm alone"


def test_it_is_an_encoder_of_stride_8_whatever_is_asked_for() -> None:
    with torch.device("meta"):
        for output_stride in (8, 16, 32):
            encoder = Encoder("resnet38", (4, 5, 6), output_stride)
            assert encoder.channels == [512, 1024, 4096] and encoder.strides == [8, 8, 8]
            features = encoder(torch.empty(1, 3, 112, 180, device="meta"))
            assert [tuple(f.shape[1:]) for f in features] == [(512, 14, 23), (1024, 14, 23), (4096, 14, 23)]


@pytest.mark.parametrize("taps", [(0,), (7,), (4, 7)])
def test_taps_that_it_does_not_have(taps: tuple[int, ...]) -> None:
    with pytest.raises(WrongUse, match=r"'resnet38' has no taps .*; it has 1 to 6"):
        ResNet38(taps)


class TestHeld:
    def test_what_learns_is_what_the_specification_says(self) -> None:
        with torch.device("meta"):
            held = Held(partial(Encoder, "resnet38", (6,)), ("conv1a", "b2"))
        still = {name for name, p in held.encoder.net.named_parameters() if not p.requires_grad}
        convs = {name for name in still if "conv" in name}
        assert all(name.startswith(("conv1a.", "b2.", "b2_1.", "b2_2.")) for name in convs)
        sizes = dict(held.encoder.net.named_parameters())
        assert sum(sizes[name].numel() for name in convs) == 820_928
        head = nn.Conv2d(4096, 4, 1, bias=False)
        assert sum(p.numel() for p in [*held.parameters(), *head.parameters()] if p.requires_grad) == 104_218_624
        assert held.channels == [4096] and held.strides == [8]

    def test_norms_stay_in_eval_mode_and_the_rest_learns(self) -> None:
        held = Held(partial(Encoder, "resnet38", (2,)), ("conv1a",)).train()
        before = {key: value.clone() for key, value in held.state_dict().items()}
        loss = held(torch.randn(2, 3, 16, 16))[0].square().mean()
        loss.backward()
        torch.optim.SGD([p for p in held.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1).step()
        after = held.state_dict()
        moved = {key.removeprefix("encoder.net.") for key in after if not torch.equal(before[key], after[key])}
        plain = {f"{b}.conv_branch{c}.weight" for b in ("b2", "b2_1", "b2_2") for c in ("2a", "2b1")}
        assert moved == {*plain, "b2.conv_branch1.weight"}
        assert all(not m.training for m in held.modules() if isinstance(m, nn.BatchNorm2d)) and held.training
        assert held.encoder.net.get_submodule("b2").training

    def test_a_stage_that_is_not_there_is_named(self) -> None:
        with pytest.raises(WrongUse, match="the encoder has no stage 'layer1'"):
            Held(partial(Encoder, "resnet38", (1,)), ("layer1",))


def authors_names() -> dict[str, str]:
    """Entries of the authors' MXNet file by the torch names that they are to have, written down stage by stage."""
    told = {"arg:conv1a_weight": "conv1a.weight"}
    norms = [("arg", "gamma", "weight"), ("arg", "beta", "bias")]
    norms += [("aux", "moving_mean", "running_mean"), ("aux", "moving_var", "running_var")]
    for stage, blocks in BLOCKS.items():
        branches = ["2a", "2b1", "2b2"] if stage in ("b6", "b7") else ["2a", "2b1"]
        for block in range(blocks):
            theirs = f"{stage[1]}a" if block == 0 else f"{stage[1]}b{block}"
            ours = stage if block == 0 else f"{stage}_{block}"
            for branch in branches:
                told[f"arg:res{theirs}_branch{branch}_weight"] = f"{ours}.conv_branch{branch}.weight"
                for kind, value, name in norms:
                    told[f"{kind}:bn{theirs}_branch{branch}_{value}"] = f"{ours}.bn_branch{branch}.{name}"
            if block == 0:
                told[f"arg:res{theirs}_branch1_weight"] = f"{ours}.conv_branch1.weight"
    return told | {f"{kind}:bn7_{value}": f"bn7.{name}" for kind, value, name in norms}


def test_the_entries_of_the_authors_file_are_found(shapes_only: ResNet38) -> None:
    told = authors_names()
    assert {name: torch_name(name) for name in told} == told
    assert set(told.values()) == {key for key in shapes_only.state_dict() if not key.endswith("num_batches_tracked")}


@pytest.mark.parametrize("name", ["arg:linear1000_weight", "conv1a.weight", "b2_1.conv_branch2a.weight", "arg:fc_bias"])
def test_other_entries_keep_their_names(name: str) -> None:
    assert torch_name(name) == name


def test_attention_takes_the_slots_of_the_papers() -> None:
    """After the last block of stages 4 and 5, and after b7, before bn7."""
    with torch.device("meta"):
        net = ResNet38((6,))
        for tap in (4, 5, 6):
            net.attend(tap, nn.Identity())
        order: list[str] = []
        for name in ("b4_5", "attention4", "b5", "b5_2", "attention5", "b6", "b7", "attention6", "bn7"):
            net.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: order.append(name))
        for block in (net.b5, net.b6):  # type: ignore[union-attr]
            block.bn_branch2a.register_forward_pre_hook(lambda *_, block=block: order.append("norm"))
        net(torch.empty(1, 3, 16, 16))
    assert order == ["b4_5", "attention4", "norm", "b5", "b5_2", "attention5", "norm", "b6", "b7", "attention6", "bn7"]
    assert [k for k in net.state_dict() if k.startswith("attention")] == []
