"""Steps between class maps and masks, against loops, by hand, and where they are cut off."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.special import expit
from torch import Tensor

from eosin.parts import refine
from eosin.parts.refine import Constant, DenseCrf, EmptyGlass, Remainder, Subtracted, WhitePixels
from oracles import refinement as slow

HEIGHT, WIDTH = 5, 7


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


MAPS, IMAGE = random(2, 3, HEIGHT, WIDTH), random(2, 3, HEIGHT, WIDTH, seed=1)
MAY = [[True, True, True], [True, False, True]]
ALLOWED = torch.tensor(MAY)[:, :, None, None]


def bytes_of(image: Tensor) -> list:
    """``[i][j]`` of (r, g, b) in 0..255."""
    return (255 * image.double()).permute(1, 2, 0).tolist()


def textured(side: int, seed: int = 0) -> Tensor:
    """Two kinds of texture, left and right, in the colours of stroma and of a nest of cells; ``[1, 3, side, side]``."""
    base = torch.tensor([[0.9, 0.6, 0.8], [0.5, 0.3, 0.6]]).T.reshape(1, 3, 1, 2)
    flat = base.repeat_interleave((side + 1) // 2, 3)[..., :side].expand(-1, -1, side, -1)
    return (flat + 0.08 * torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(seed))).clamp(0, 1)


# -- maps of what is no tissue -------------------------------------------------------------------------------------


def test_a_constant_is_one_map_more() -> None:
    found = Constant(0.3)(MAPS, ALLOWED, IMAGE)
    assert torch.equal(found[:, :3], MAPS) and found.shape == (2, 4, HEIGHT, WIDTH) and (found[:, 3] == 0.3).all()


@pytest.mark.parametrize(("power", "factor"), [(1.0, 0.05), (10.0, 1.0), (4.0, 0.5)])
def test_the_remainder_is_that_of_the_highest_map_that_may_be(power: float, factor: float) -> None:
    found = Remainder(power, factor)(MAPS, ALLOWED, IMAGE)
    assert torch.equal(found[:, :3], MAPS)
    for maps, may, one in zip(MAPS.double().tolist(), MAY, found, strict=True):
        expected = torch.tensor(slow.remainder(maps, may, power, factor))
        torch.testing.assert_close(one[3], expected, rtol=1e-4, atol=1e-7)
    assert not torch.equal(found[1, 3], Remainder(power, factor)(MAPS, ALLOWED[:1], IMAGE)[1, 3])


def test_the_remainder_counts_what_was_added_before() -> None:
    found = Remainder(1.0, 1.0)(Constant(2.0)(MAPS, ALLOWED, IMAGE), ALLOWED, IMAGE)
    assert found.shape[1] == 5 and (found[:, 4] == 0).all(), "1 - 2 is not below 0"


def test_empty_glass_is_the_blurred_brightness() -> None:
    """HistoSegNet blurs by scipy's Gaussian filter of deviation 2."""
    image = 0.9 * random(2, 3, 11, 30, seed=2)
    image[:, :, 3:9, 5:20] = 0.999
    found = EmptyGlass(0.75)(random(2, 3, 11, 30), ALLOWED, image)[:, 3].double().numpy()
    white = 0.75 * expit(4 * (255 * image.double().numpy().mean(1) - 240))
    expected = np.stack([gaussian_filter(one, sigma=2) for one in white])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found.max() > 0.6 and found[:, :, 28:].max() < 1e-6, "the blur is cut at 8 px"


def test_empty_glass_by_hand() -> None:
    """One grey value everywhere: nothing to blur, also where the image is smaller than the blur."""
    for grey, expected in ((240, 0.375), (241, 0.75 / (1 + math.exp(-4))), (230, 0.75 / (1 + math.exp(40)))):
        found = EmptyGlass(0.75)(MAPS, ALLOWED, torch.full((2, 3, HEIGHT, WIDTH), grey / 255))[:, 3]
        torch.testing.assert_close(found, torch.full((2, HEIGHT, WIDTH), expected), rtol=1e-3, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 6))
def test_white_pixels_are_those_of_large_groups(seed: int, size: int) -> None:
    image = (random(2, 3, HEIGHT, WIDTH, seed=seed) > 0.35).float() * 200 / 255 + 30 / 255
    found = WhitePixels(165.0, size)(MAPS, ALLOWED, image)
    assert torch.equal(found[:, :3], MAPS)
    for one, drawn in zip(image, found, strict=True):
        white = torch.tensor(slow.white(bytes_of(one), 165.0, size))
        assert torch.equal(drawn[3] == torch.inf, white) and torch.equal(drawn[3] == -torch.inf, ~white)


def test_white_is_above_the_threshold_and_corners_do_not_join() -> None:
    grey = torch.full((1, 3, 4, 4), 0.5)
    for y, x in ((0, 0), (1, 1), (2, 2), (2, 3)):
        grey[:, :, y, x] = 201 / 255

    def white(above: float, size: int) -> list:
        return (WhitePixels(above, size)(torch.zeros(1, 2, 4, 4), ALLOWED[:1, :2], grey)[0, 2] > 0).nonzero().tolist()

    assert white(200.0, 1) == [[0, 0], [1, 1], [2, 2], [2, 3]] and white(201.5, 1) == []
    assert white(200.0, 2) == [[2, 2], [2, 3]] and white(200.0, 3) == []


# -- subtraction ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spare_last", [False, True])
def test_each_map_loses_the_highest_other_one(spare_last: bool) -> None:
    found = Subtracted(spare_last)(MAPS, ALLOWED, IMAGE)
    for maps, may, one in zip(MAPS.tolist(), MAY, found, strict=True):
        torch.testing.assert_close(one, torch.tensor(slow.subtracted(maps, may, spare_last)))


def test_subtraction_by_hand() -> None:
    maps = torch.tensor([0.7, 0.4, 0.1]).view(1, 3, 1, 1)

    def left(maps: Tensor, may: list[bool], spare: bool = False) -> list[float]:
        return Subtracted(spare)(maps, torch.tensor([may])[:, :, None, None], IMAGE)[0, :, 0, 0].tolist()

    assert left(maps, [True, True, True]) == pytest.approx([0.3, 0, 0])
    assert left(maps, [False, True, True]) == pytest.approx([0, 0.3, 0]), "what may not be takes nothing away"
    assert left(maps, [True, True, True], spare=True) == pytest.approx([0.3, 0, 0.1])
    assert left(torch.tensor([0.5, 0.5]).view(1, 2, 1, 1), [True, True]) == [0, 0], "a tie leaves nothing"


def test_subtraction_alone_moves_no_highest_map() -> None:
    """It is what follows that notices: a CRF, or a map that is spared."""
    everywhere = torch.ones_like(ALLOWED)
    assert torch.equal(Subtracted()(MAPS, everywhere, IMAGE).argmax(1), MAPS.argmax(1))


# -- dense CRF -----------------------------------------------------------------------------------------------------

# Kernels that are short for an image of a few pixels, so that much is decided by them.
SHORT = {"smooth": (1.5, 2.0), "edges": (3.0, 60.0, 3.0)}


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("kernels", [SHORT, {"smooth": (3.0, 30.0), "edges": (10.0, 20.0, 50.0)}], ids=["short", "hsn"])
def test_the_crf_is_that_of_all_pairs(kernels: dict, steps: int) -> None:
    found = DenseCrf(**kernels, steps=steps)(MAPS, ALLOWED, IMAGE)
    for maps, may, image, one in zip(MAPS.double().tolist(), MAY, IMAGE, found, strict=True):
        expected = slow.dense_crf(maps, may, bytes_of(image), kernels["smooth"], kernels["edges"], steps)
        torch.testing.assert_close(one, torch.tensor(expected), rtol=1e-3, atol=1e-5)
    assert (found - MAPS / MAPS.sum(1, keepdim=True)).abs().max() > 0.1


def test_the_crf_by_hand_on_two_pixels() -> None:
    """Q0 = M; all sums of a kernel are 1 + k, so a vote is (q_i + k q_j) / (1 + k)."""
    maps = torch.tensor([[0.8, 0.4], [0.2, 0.6]]).view(1, 2, 1, 2)
    image = torch.tensor([0.0, 30 / 255]).expand(1, 3, 1, 2)
    near, alike = math.exp(-1 / 18), math.exp(-1 / 200 - 3 * 900 / 800)
    votes = [2 * (0.8 + near * 0.4) / (1 + near) + 3 * (0.8 + alike * 0.4) / (1 + alike)]
    votes.append(2 * (0.2 + near * 0.6) / (1 + near) + 3 * (0.2 + alike * 0.6) / (1 + alike))
    a, b = 0.8 * math.exp(votes[0]), 0.2 * math.exp(votes[1])
    found = DenseCrf((3.0, 2.0), (10.0, 20.0, 3.0), steps=1)(maps, torch.ones(1, 2, 1, 1).bool(), image)
    assert found[0, 0, 0, 0].item() == pytest.approx(a / (a + b), rel=1e-4)


def test_what_is_out_of_reach_hardly_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cut at 5 deviations against all pairs, at a size where it leaves out half of them."""
    image, maps = textured(72), random(1, 3, 72, 72, seed=3)
    allowed = torch.ones(1, 3, 1, 1).bool()
    short = partial(DenseCrf, (2.0, 10.0), (4.0, 20.0, 20.0), 5)
    found = short()(maps, allowed, image)
    monkeypatch.setattr(refine, "REACH", 100.0)
    whole = short()(maps, allowed, image)
    assert 0 < (found - whole).abs().max() < 1e-4
    monkeypatch.setattr(refine, "REACH", 1.0)
    assert (short()(maps, allowed, image) - whole).abs().max() > 1e-2, "a cut that matters would be seen"


def test_kept_and_recomputed_weights_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    crf = DenseCrf(**SHORT)
    kept = crf(MAPS, ALLOWED, IMAGE)
    monkeypatch.setattr(refine, "KEPT", 0)
    assert torch.equal(crf(MAPS, ALLOWED, IMAGE), kept)


def test_squares_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    image, maps, allowed = textured(37), random(1, 2, 37, 37), torch.ones(1, 2, 1, 1).bool()
    found = DenseCrf()(maps, allowed, image)
    monkeypatch.setattr(refine, "TILE", 37)
    torch.testing.assert_close(DenseCrf()(maps, allowed, image), found, rtol=1e-3, atol=1e-4)


def test_borders_move_to_edges_of_the_image() -> None:
    image = textured(40)
    maps = torch.full((1, 2, 40, 40), 0.45)
    maps[:, 0, :, :14], maps[:, 1, :, 14:] = 0.55, 0.55  # 6 px off the edge at 20
    mask = DenseCrf()(maps, torch.ones(1, 2, 1, 1).bool(), image).argmax(1)[0]
    assert (mask[:, :19] == 0).float().mean() > 0.97 and (mask[:, 21:] == 1).float().mean() > 0.97


def test_a_class_that_may_not_be_stays_impossible() -> None:
    found = DenseCrf()(MAPS, ALLOWED, IMAGE)
    assert (found[1, 1] == 0).all() and (found[0, 1] > 0).any()
    torch.testing.assert_close(found.sum(1), torch.ones(2, HEIGHT, WIDTH))
    without = DenseCrf()(MAPS[1:, [0, 2]], ALLOWED[1:, [0, 2]], IMAGE[1:])
    torch.testing.assert_close(found[1, [0, 2]], without[0])
    nothing = torch.zeros_like(MAPS[:1], dtype=torch.bool)
    nothing[:, 0, 2:] = True
    partly = DenseCrf()(MAPS[:1], nothing, IMAGE[:1])
    assert (partly[:, :, :2] == 0).all() and (partly[:, 0, 2:] == 1).all()


def test_maps_of_no_tissue_take_part_ungated() -> None:
    more = Constant(0.4)(MAPS, ALLOWED, IMAGE)
    found = DenseCrf(**SHORT)(more, ALLOWED, IMAGE)
    assert found.shape[1] == 4 and (found[:, 3] > 0).all()
    for maps, may, image, one in zip(more.double().tolist(), MAY, IMAGE, found, strict=True):
        expected = slow.dense_crf(maps, [*may, True], bytes_of(image), SHORT["smooth"], SHORT["edges"], 5)
        torch.testing.assert_close(one, torch.tensor(expected), rtol=1e-3, atol=1e-5)


def test_a_smaller_scale_is_the_crf_of_the_smaller_image() -> None:
    image, maps, allowed = textured(32), random(1, 2, 32, 32), torch.ones(1, 2, 1, 1).bool()
    seen = []

    class Spy(DenseCrf):
        def _infer(self, maps: Tensor, allowed: Tensor, image: Tensor) -> Tensor:
            seen.append((tuple(maps.shape), tuple(allowed.shape), tuple(image.shape)))
            return super()._infer(maps, allowed, image)

    half = Spy(scale=0.5)(maps, allowed, image)
    assert seen == [((2, 16, 16), (2, 16, 16), (3, 16, 16))] and half.shape == maps.shape
    torch.testing.assert_close(half.sum(1), torch.ones(1, 32, 32))
    assert (
        half.argmax(1) == DenseCrf((6.0, 30.0), (20.0, 20.0, 50.0))(maps, allowed, image).argmax(1)
    ).float().mean() > 0.8


def test_images_do_not_meet() -> None:
    both = DenseCrf()(MAPS, ALLOWED, IMAGE)
    for i in range(2):
        assert torch.equal(DenseCrf()(MAPS[i : i + 1], ALLOWED[i : i + 1], IMAGE[i : i + 1])[0], both[i])


def test_all_steps_take_what_inference_mode_made() -> None:
    """As the engine has it: maps are made there, refined outside."""
    with torch.inference_mode():
        maps = MAPS.flip(0).flip(0)
    assert maps.is_inference()
    for step in (Constant(0.1), Remainder(), EmptyGlass(0.75), Subtracted(), DenseCrf(), WhitePixels(200.0, 2)):
        before = maps.tolist()
        assert torch.equal(step(maps, ALLOWED, IMAGE), step(MAPS, ALLOWED, IMAGE)) and maps.tolist() == before
