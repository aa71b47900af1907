"""What two prototypes look at: by hand, against the loop, and that the loss works where the released one cannot."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.parts.losses.diversity import Diversity
from oracles import prototypes as slow

FIRST, SECOND = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]


def of(*rows: list[float]) -> torch.Tensor:
    """The cosines of one class's prototypes to three pixels in a row, double precision."""
    return torch.tensor([[list(rows)]], dtype=torch.float64)[:, :, :, None]


def everywhere(cosines: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(cosines), *cosines.shape[3:], dtype=torch.long)


def loss(temperature: float, *rows: list[float]) -> float:
    cosines = of(*rows)
    return Diversity(temperature)(cosines, everywhere(cosines)).item()


def drawn(seed: int, images: int = 2, classes: int = 3, count: int = 3, size: tuple[int, int] = (3, 4)):
    generator = torch.Generator().manual_seed(seed)
    cosines = 2 * torch.rand(images, classes, count, *size, generator=generator, dtype=torch.float64) - 1
    masks = torch.randint(0, classes + 1, (images, *size), generator=generator)
    masks[masks == classes] = 255
    return cosines, masks


@pytest.mark.parametrize(
    ("temperature", "two", "three"), [(1.0, 0.482705, 0.655136), (0.5, 0.065749, 0.377166), (0.07, 3.9e-13, 0.333333)]
)
def test_by_hand(temperature: float, two: float, three: float) -> None:
    assert loss(temperature, FIRST, SECOND) == pytest.approx(
        two, rel=1e-2 if two < 1e-9 else 0, abs=1e-14 + 1e-6 * (two > 1e-9)
    )
    assert loss(temperature, FIRST, SECOND, FIRST) == pytest.approx(three, abs=1e-6)


def test_shares_that_are_known_give_their_divergence() -> None:
    """J = 2.335092 of (.7, .2, .1) and (.1, .2, .7); with (.2, .6, .2) the mean of three pairs."""
    u, v, w = ([math.log(p) for p in shares] for shares in ((0.7, 0.2, 0.1), (0.1, 0.2, 0.7), (0.2, 0.6, 0.2)))
    assert slow.jeffreys((0.7, 0.2, 0.1), (0.1, 0.2, 0.7)) == pytest.approx(2.335092, abs=1e-6)
    assert loss(1.0, u, v) == pytest.approx(0.096802, abs=1e-6)
    assert loss(1.0, u, v, w) == pytest.approx(0.246518, abs=1e-6)


def test_it_falls_when_one_of_three_looks_elsewhere_and_the_released_one_cannot() -> None:
    assert loss(0.07, FIRST, FIRST, FIRST) == pytest.approx(1.0)
    assert loss(0.07, FIRST, SECOND, FIRST) == pytest.approx(1 / 3, abs=1e-6)
    assert slow.released_diversity([FIRST, FIRST, FIRST]) == pytest.approx(1.0)
    assert slow.released_diversity([FIRST, SECOND, FIRST]) == pytest.approx(0.940773, abs=1e-6)
    assert slow.released_diversity([FIRST, SECOND]) == pytest.approx(0.911160, abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.sampled_from([0.07, 0.5]))
def test_the_value_is_that_of_the_loop(seed: int, images: int, classes: int, count: int, temperature: float) -> None:
    cosines, masks = drawn(seed, images, classes, count)
    expected = slow.diversity(cosines.flatten(3).tolist(), masks.flatten(1).tolist(), temperature)
    assert Diversity(temperature)(cosines, masks).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_float32_keeps_its_digits_where_prototypes_are_nearly_the_same() -> None:
    cosines, masks = drawn(0, count=4, size=(14, 14))
    cosines = cosines[:, :, :1] + 1e-3 * cosines
    exact = Diversity()(cosines, masks).item()
    assert Diversity()(cosines.float(), masks).item() == pytest.approx(exact, abs=1e-5)


def test_the_gradient_is_that_of_differences() -> None:
    cosines, masks = drawn(1)
    assert torch.autograd.gradcheck(lambda given: Diversity(0.5)(given, masks), cosines.requires_grad_())


def test_pixels_of_other_classes_and_of_none_say_nothing() -> None:
    cosines, masks = drawn(2)
    changed = cosines.clone()
    classes = torch.arange(3)[:, None, None, None]
    changed[(masks[:, None, None] != classes).expand_as(cosines)] = 0.77
    torch.testing.assert_close(Diversity()(changed, masks), Diversity()(cosines, masks))


@pytest.mark.parametrize("masks", [[255] * 12, [0, *[255] * 11], [0, 1, 2, *[255] * 9]])
def test_without_two_pixels_of_a_class_it_is_zero_with_a_gradient(masks: list[int]) -> None:
    cosines, _ = drawn(3, images=1)
    cosines.requires_grad_()
    found = Diversity()(cosines, torch.tensor(masks).view(1, 3, 4))
    found.backward()
    assert found.item() == 0 and not cosines.grad.any()


def test_one_prototype_alone_has_nothing_to_differ_from() -> None:
    cosines, masks = drawn(4, count=1)
    cosines.requires_grad_()
    found = Diversity()(cosines, masks)
    found.backward()
    assert found.item() == 0 and not cosines.grad.any()


def test_it_is_float32_under_autocast() -> None:
    cosines, masks = drawn(5)
    plain = Diversity()(cosines.float(), masks)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Diversity()(cosines.float(), masks), plain)
