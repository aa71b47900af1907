"""Criss-cross attention, position attention and their cascade: values by hand, a slow oracle, who sees whom."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from eosin.parts.attention.cca import CCA
from eosin.parts.attention.criss_cross import CrissCross, CrissCrossTwice
from eosin.parts.attention.position import PositionAttention
from oracles import attention as slow

SIZES = [(4, 4), (3, 5), (1, 6), (5, 1), (1, 1)]
KINDS = [CrissCross, CrissCrossTwice, PositionAttention, CCA]


def opened(module: nn.Module, gate: float = 1.0) -> nn.Module:
    """With every gate at a value of its own."""
    for number, (name, value) in enumerate(module.named_parameters()):
        if name.endswith("gate"):
            nn.init.constant_(value, gate * (1 + number / 10))
    return module


def constant(module: CrissCross | PositionAttention) -> nn.Module:
    """Query and key 0, value 1 whatever comes in, gate 1."""
    inner = module.widths[0]
    nn.init.zeros_(module.project.weight)
    nn.init.zeros_(module.project.bias)
    with torch.no_grad():
        module.project.bias[2 * inner :] = 1
        module.gate.fill_(1)
    return module


def projections(module: CrissCross | PositionAttention) -> list[tuple[list, list]]:
    parts = (values.split(module.widths) for values in (module.project.weight, module.project.bias))
    return [(weight.tolist(), bias.tolist()) for weight, bias in zip(*parts, strict=True)]


@pytest.mark.parametrize("kind", [partial(CrissCross, 8, 2), partial(PositionAttention, 8)])
@pytest.mark.parametrize("size", SIZES)
def test_weights_add_up_to_one_at_every_pixel(kind, size) -> None:
    """ARML spec, E2: a softmax over another axis gives (H + W) / H."""
    out = constant(kind())(torch.zeros(1, 8, *size))
    torch.testing.assert_close(out, torch.ones(1, 8, *size))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_a_closed_gate_changes_no_bit(kind, size) -> None:
    x = torch.randn(2, 8, *size)
    assert torch.equal(kind(8)(x), x)


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("size", [(3, 4), (1, 5), (4, 1)])
@torch.no_grad()
def test_criss_cross_attention_is_that_of_the_loop(passes: int, size) -> None:
    torch.manual_seed(0)
    module, x = opened(CrissCross(6, 2, passes), 0.7), 2 * torch.randn(2, 6, *size)
    for found, image in zip(module(x), x.tolist(), strict=True):
        expected = slow.criss_cross(image, *projections(module), module.gate.item(), passes)
        torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(3, 4), (1, 5), (4, 1)])
@torch.no_grad()
def test_position_attention_is_that_of_the_loop(size) -> None:
    torch.manual_seed(0)
    module, x = opened(PositionAttention(8, 4), 0.7), 2 * torch.randn(2, 8, *size)
    for found, image in zip(module(x), x.tolist(), strict=True):
        expected = slow.position(image, *projections(module), module.gate.item())
        torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-5)


class Largest(TorchDispatchMode):
    """Notes how many values the largest tensor has that any operation makes."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Run it, and look at what comes out."""
        made = function(*args, **(kwargs or {}))
        self.count = max([self.count, *(part.numel() for part in tree_leaves(made) if isinstance(part, Tensor))])
        return made


@pytest.mark.parametrize("bf16", [False, True])
def test_position_attention_never_holds_all_pairs_of_pixels(bf16: bool) -> None:
    module, x = opened(PositionAttention(8), 0.7), torch.randn(1, 8, 40, 50, requires_grad=True)
    with Largest() as largest, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        module(x).float().sum().backward()
    assert x.numel() <= largest.count < 2000**2 / 50


@torch.no_grad()
def test_the_cascade_is_one_after_the_other() -> None:
    torch.manual_seed(0)
    cascade, x = opened(CCA(8), 0.6), torch.randn(1, 8, 3, 4)
    expected = x[0].tolist()
    for module, how in zip(cascade, (slow.criss_cross, slow.position, slow.criss_cross), strict=True):
        expected = how(expected, *projections(module), module.gate.item())
    torch.testing.assert_close(cascade(x)[0], torch.tensor(expected), rtol=1e-4, atol=1e-5)
    assert len({module.gate.item() for module in cascade}) == 3, "each has a gate of its own"


def seen(module: nn.Module, side: int = 5) -> Tensor:
    """Where the first output pixel of a map has a gradient from, bool ``[side, side]``."""
    torch.manual_seed(0)
    x = torch.randn(1, 8, side, side, requires_grad=True)
    module(x)[0, :, 0, 0].sum().backward()
    return (x.grad[0] != 0).any(0)


def test_a_pixel_sees_its_row_and_its_column_and_after_two_passes_all() -> None:
    """ARML spec, E2."""
    cross = torch.zeros(5, 5, dtype=torch.bool)
    cross[0] = cross[:, 0] = True
    assert torch.equal(seen(opened(CrissCross(8))), cross)
    for module in (CrissCrossTwice(8), PositionAttention(8), CCA(8)):
        assert seen(opened(module)).all(), module


@pytest.mark.parametrize(
    ("module", "count"),
    [
        (partial(CrissCross, 4096), 20_976_641),
        (partial(CrissCrossTwice, 4096), 20_976_641),
        (partial(CCA, 512), 1_050_627),
        (partial(CCA, 1024), 4_198_403),
        (partial(CCA, 4096), 67_125_251),
    ],
)
def test_they_have_as_many_parameters_as_the_specification_says(module, count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in module().parameters()) == count


@pytest.mark.parametrize("kind", KINDS)
def test_everything_learns_once_the_gate_is_open(kind) -> None:
    torch.manual_seed(0)
    module, x = kind(8), torch.randn(2, 8, 4, 5)
    module(x).square().sum().backward()
    gates = {name for name, p in module.named_parameters() if p.grad.abs().sum() > 0}
    assert gates == {name for name, _ in module.named_parameters() if name.endswith("gate")}, (
        "a closed one hides all else"
    )
    opened(module).zero_grad()
    module(x).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_half_precision_comes_near_and_keeps_its_type(kind) -> None:
    torch.manual_seed(0)
    module, x = opened(kind(64), 0.3), torch.randn(2, 64, 7, 9)
    exact = module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for given in (x, x.bfloat16()):
            out = module(given)
            assert out.dtype == given.dtype and (out - exact).abs().max() < 0.05 * exact.std()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_order_of_channels_in_memory_is_kept_and_changes_nothing(kind) -> None:
    torch.manual_seed(0)
    module, x = opened(kind(16)), torch.randn(2, 16, 6, 5)
    last = module(x.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, module(x), rtol=1e-4, atol=1e-5)
