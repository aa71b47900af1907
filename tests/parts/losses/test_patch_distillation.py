"""What tokens learn of a teacher: the values worked out by hand, slow loops, and the gate of tags."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eosin.parts.losses.patch_distillation import PatchDistillation
from oracles import distillation as slow

TAUGHT = torch.tensor([2.0, 1, 0, -1]).view(1, 4, 1, 1)
NONE = torch.full((1, 4), float("nan"))
NAN = float("nan")


def logits(seed: int, images: int = 2) -> Tensor:
    return 2 * torch.randn(images, 3, 2, 3, generator=torch.Generator().manual_seed(seed))


def patches(maps: Tensor) -> list[list[float]]:
    """One image's vectors, patch by patch."""
    found: list[list[float]] = maps.flatten(1).T.tolist()
    return found


def test_the_target_and_the_loss_worked_out_by_hand() -> None:
    loss = PatchDistillation()
    expected = torch.tensor([0.821957, 0.118441, 0.043572, 0.016029])
    torch.testing.assert_close(loss.target(TAUGHT, NONE).flatten(), expected, rtol=0, atol=2e-6)
    student = torch.tensor([1.0, 0, 0, 0]).view(1, 4, 1, 1)
    assert loss(student, TAUGHT, NONE).item() == pytest.approx(0.642687, abs=2e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_it_is_that_of_the_loop(alpha: float, seed: int) -> None:
    student, teacher = logits(seed), logits(seed + 1)
    tags = torch.tensor([[1.0, 0, 1], [0, NAN, 0]])
    found = PatchDistillation(alpha)(student, teacher, tags).item()
    expected = [slow.loss(patches(s), patches(t), alpha) for s, t in zip(student, teacher, strict=True)]
    assert found == pytest.approx(sum(expected) / 2, rel=1e-5)
    gated = PatchDistillation(alpha, gate=True)(student, teacher, tags).item()
    pairs = zip(student, teacher, tags.tolist(), strict=True)
    expected = [slow.loss(patches(s), patches(t), alpha, list(known)) for s, t, known in pairs]
    assert gated == pytest.approx(sum(expected) / 2, rel=1e-5)


def test_ties_are_all_winners_and_alpha_1_is_the_one_hot() -> None:
    tied = torch.tensor([1.0, 1, 0]).view(1, 3, 1, 1)
    assert PatchDistillation(1.0).target(tied, NONE).flatten().tolist() == [1, 1, 0]
    assert PatchDistillation(1.0, gate=True).target(tied, torch.tensor([[0.0, 1, 1]])).flatten().tolist() == [0, 1, 0]


def test_absent_classes_are_taken_out_and_unknown_ones_stay() -> None:
    soft = PatchDistillation(0.0, gate=True).target(TAUGHT, torch.tensor([[0.0, 1, NAN, 0]])).flatten()
    odds = torch.tensor([0.0, 1, 0, 0]).softmax(0)  # of e and 1
    assert soft[0] == soft[3] == 0
    torch.testing.assert_close(soft[1] / soft[2], odds[1] / odds[0])
    assert soft.sum().item() == pytest.approx(1)


def test_with_every_class_absent_nothing_is_to_be_found() -> None:
    target = PatchDistillation(gate=True).target(TAUGHT, torch.zeros(1, 4))
    assert not target.any()


def test_gated_an_image_without_a_known_tag_has_no_say() -> None:
    student, teacher = logits(0).requires_grad_(), logits(1)
    loss = PatchDistillation(gate=True)
    loss(student, teacher, torch.tensor([[1.0, 0, 1], [NAN] * 3])).backward()
    assert student.grad is not None and student.grad[0].any() and not student.grad[1].any()
    student.grad = None
    nothing = loss(student, teacher, torch.full((2, 3), NAN))
    nothing.backward()
    assert nothing.item() == 0 and not student.grad.any()


def test_the_teacher_gets_no_gradient_and_float32_comes_out() -> None:
    student, teacher = logits(0).requires_grad_(), logits(1).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = PatchDistillation()(student.bfloat16(), teacher, torch.ones(2, 3))
    found.backward()
    assert found.dtype == torch.float32 and teacher.grad is None and student.grad is not None
