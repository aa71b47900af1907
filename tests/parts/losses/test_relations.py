"""What a network can learn of another one at each pixel, or of resemblances: by hand and against slow loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from eosin.parts.losses.correlation import Correlation
from eosin.parts.losses.kl import KL
from eosin.parts.losses.point_wise import PointWise
from oracles import peers as slow

THREE = math.log(3)
LOSSES: dict[str, tuple[nn.Module, Callable[..., float]]] = {
    "kl": (KL(), slow.kl),
    "kl at 1": (KL(1.0), lambda s, t: slow.kl(s, t, 1.0)),
    "point": (PointWise(), slow.point_wise),
    "correlation": (Correlation(), slow.correlation),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def drawn(seed: int, images: int = 3, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (2 * torch.randn(images, 3, 2, 3, generator=generator).to(dtype) for _ in range(2))
    return student, teacher


def pixels(*values: tuple[float, ...]) -> torch.Tensor:
    """One image of a row of pixels."""
    return torch.tensor(values).T[None, :, None]


def test_kl_by_hand():
    """Probabilities (3/4, 1/4) of the teacher, (1/2, 1/2) of the student; the second pixel is learnt already."""
    student, teacher = pixels((0.0, 0.0), (1.0, 5.0)), pixels((THREE, 0.0), (2.0, 6.0))
    once = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert KL(1.0)(student, teacher).item() == pytest.approx(once / 2, abs=1e-6)
    # at T = 2 the same of logits twice as large, four times over
    assert KL(2.0)(2 * student, 2 * teacher).item() == pytest.approx(4 * once / 2, abs=1e-6)


def test_point_wise_by_hand():
    """(3/4, 1/4) and (1/2, 1/2) are a quarter of the root of 2 apart; the mean with a pixel that is the same."""
    student, teacher = pixels((0.0, 0.0), (1.0, 5.0)), pixels((THREE, 0.0), (2.0, 6.0))
    assert PointWise()(student, teacher).item() == pytest.approx(math.sqrt(2) / 8, abs=1e-6)
    assert PointWise()(pixels((99.0, 0.0)), pixels((0.0, 99.0))).item() == pytest.approx(math.sqrt(2), abs=1e-6)


def test_correlation_by_hand():
    """Rows (4, 0), (0, 9) become (1, 0), (0, 1); rows (2, 2), (2, 2) become the root of a half everywhere."""
    student = torch.tensor([[2.0, 0.0], [0.0, 3.0]])[:, :, None, None]
    teacher = torch.tensor([[1.0, 1.0], [1.0, 1.0]])[:, :, None, None]
    half = math.sqrt(0.5)
    assert Correlation()(student, teacher).item() == pytest.approx(((1 - half) ** 2 + half**2) / 2, abs=1e-6)
    assert Correlation()(student[:1], teacher[:1]).item() == 0


@every_loss
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), images=st.integers(1, 4))
def test_value_is_that_of_the_loop(name, seed, images):
    student, teacher = drawn(seed, images)
    loss, loop = LOSSES[name]
    assert loss(student, teacher).item() == pytest.approx(loop(student.tolist(), teacher.tolist()), rel=1e-3, abs=1e-5)


@every_loss
def test_gradient_by_differences(name):
    student, teacher = drawn(3, dtype=torch.float64)
    loss = LOSSES[name][0]
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher), student.requires_grad_())


@every_loss
def test_who_answers_as_the_teacher_does_learns_nothing(name):
    student, _ = drawn(5)
    student.requires_grad_()
    loss = LOSSES[name][0](student, student.detach().clone())
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6) and student.grad.abs().max() < 1e-5


@every_loss
def test_the_teacher_has_no_gradient(name):
    student, teacher = drawn(7)
    teacher.requires_grad_()
    LOSSES[name][0](student.requires_grad_(), teacher).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


def test_the_softmax_is_over_classes_and_not_over_images():
    """A constant that is added to all classes of one image changes nothing."""
    student, teacher = drawn(9)
    moved = student.clone()
    moved[0] += 5.0
    for name in ("kl", "point"):
        loss = LOSSES[name][0]
        torch.testing.assert_close(loss(moved, teacher), loss(student, teacher), rtol=1e-3, atol=1e-6)


@every_loss
def test_float32_under_autocast(name):
    student, teacher = drawn(11)
    loss = LOSSES[name][0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        full, halved = loss(student, teacher), loss(student.bfloat16(), teacher.bfloat16())
    assert full.dtype == halved.dtype == torch.float32
    assert torch.equal(full, loss(student, teacher))
    assert torch.equal(halved, loss(student.bfloat16().float(), teacher.bfloat16().float()))
