"""Multi-scale pooling: values by hand, torch's own pooling, a slow oracle, and both signs at work."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eosin.parts.pooling.mpfp import MPFP, Fusion
from oracles import pooling as slow

SIZES = [(28, 28), (14, 21), (1, 9), (5, 1), (3, 2)]


def neutral(module: nn.Module) -> nn.Module:
    """All weights 0, so that every gate is a half."""
    for weight in module.parameters():
        nn.init.zeros_(weight)
    return module


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("value", "fused", "logit"), [(2.0, 0.6875, 1.375), (-2.0, -0.6875, -1.375)])
def test_constant_maps_have_the_values_of_the_specification(value: float, fused: float, logit: float) -> None:
    """E8: with neutral gates, (x + y) / 4 at each fusion."""
    module, maps = neutral(MPFP(2)), torch.full((1, 2, 28, 28), value)
    torch.testing.assert_close(module.fused(maps), torch.full_like(maps, fused))
    torch.testing.assert_close(module(maps), torch.full((1, 2), logit))


def test_neutral_gates_leave_a_64th_of_the_coarse_levels_and_a_quarter_of_the_finest() -> None:
    """E8: P' = P2/64 + P4/64 + P8/16 + P16/4, for maps of one sign."""
    module, maps = neutral(MPFP(2)), random(2, 2, 28, 28).abs()
    two, four, eight, sixteen = module.levels(maps)
    torch.testing.assert_close(module.fused(maps), two / 64 + four / 64 + eight / 16 + sixteen / 4)


@pytest.mark.parametrize("size", SIZES)
def test_levels_are_torchs_adaptive_pooling_resized_back(size) -> None:
    maps = random(2, 3, *size)
    for cells, level in zip((2, 4, 8, 16), MPFP(3).levels(maps), strict=True):
        pooled = F.adaptive_avg_pool2d(maps, cells)
        expected = F.interpolate(pooled, size=size, mode="bilinear", align_corners=False)
        torch.testing.assert_close(level, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(9, 7), (1, 5), (4, 1)])
@torch.no_grad()
def test_scores_are_those_of_the_loop(size) -> None:
    torch.manual_seed(0)
    module, maps = MPFP(2, (2, 4, 8)), 2 * random(2, 2, *size)
    for weight in module.parameters():
        nn.init.normal_(weight)
    for found, image in zip(module(maps), maps.tolist(), strict=True):
        levels = [[slow.pyramid_level(rows, cells) for rows in image] for cells in (2, 4, 8)]
        expected = levels[0]
        for fusion, finer in zip(module.fusions, levels[1:], strict=True):
            expected = slow.fused(expected, finer, fusion.positive.weight.tolist(), fusion.negative.weight.tolist())
        scores = [slow.signed_product(p, f) for p, f in zip(expected, image, strict=True)]
        torch.testing.assert_close(found, torch.tensor(scores), rtol=1e-4, atol=1e-5)


def test_the_mean_of_the_fused_pyramid_can_be_the_score() -> None:
    torch.manual_seed(0)
    module, maps = MPFP(3, score="mean"), random(2, 3, 14, 21)
    for one, scores in zip(module.fused(maps).tolist(), module(maps).tolist(), strict=True):
        assert scores == pytest.approx([sum(map(sum, rows)) / (14 * 21) for rows in one], abs=1e-6)
    assert not torch.allclose(module(maps), MPFP(3)(maps))


@pytest.mark.parametrize("scales", [(2,), (16,), (2, 4), (2, 4, 8, 16)])
def test_an_average_is_the_mean_of_the_levels(scales) -> None:
    module, maps = MPFP(2, scales, "average"), random(2, 2, 12, 9)
    assert not list(module.parameters())
    mean = torch.stack([F.interpolate(F.adaptive_avg_pool2d(maps, t), size=(12, 9), mode="bilinear") for t in scales])
    torch.testing.assert_close(module.fused(maps), mean.mean(0), rtol=1e-4, atol=1e-5)


def test_one_scale_alone_needs_no_fusion() -> None:
    maps = random(1, 3, 28, 28)
    assert not list(MPFP(3, (8,)).parameters())
    torch.testing.assert_close(MPFP(3, (8,))(maps), MPFP(3, (8,), "average")(maps))


@pytest.mark.parametrize(("classes", "count"), [(2, 432), (4, 864)])
def test_it_has_as_many_parameters_as_the_specification_says(classes: int, count: int) -> None:
    assert sum(p.numel() for p in MPFP(classes).parameters()) == count


def test_a_map_and_its_negative_have_opposite_scores_where_gates_are_alike() -> None:
    module, maps = MPFP(2), random(2, 2, 14, 14)
    for fusion in module.fusions:
        fusion.negative.load_state_dict(fusion.positive.state_dict())
    torch.testing.assert_close(module(-maps), -module(maps))


def test_both_signs_learn() -> None:
    """In the released code a ReLU before the pyramid leaves the negative half without a gradient."""
    module, maps = MPFP(2), random(2, 2, 14, 14).requires_grad_()
    module(maps).square().sum().backward()
    assert all((p.grad != 0).any() for p in module.parameters()) and (maps.grad[maps < 0] != 0).any()


def test_the_weights_of_a_fusion_are_shared_by_all_classes() -> None:
    fusion = Fusion(3)
    coarse, fine = random(1, 3, 6, 6).abs(), torch.zeros(1, 3, 6, 6)
    shares = fusion(coarse, fine) / coarse
    torch.testing.assert_close(shares, shares[:, :1].expand_as(shares))


def test_float32_whatever_comes_in() -> None:
    torch.manual_seed(0)
    module, maps = MPFP(3), random(2, 3, 14, 14).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module(maps), module.fused(maps), module.levels(maps)[0]
    assert all(values.dtype == torch.float32 for values in found)
    assert torch.equal(found[0], module(maps.float()))
