"""How images lie to each other: by hand, against differences of points, and within a bound of memory."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.parts.losses.srm import SRM, relations
from oracles import peers as slow

STUDENT = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])[:, :, None, None]
TEACHER = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])[:, :, None, None]


def drawn(seed: int, images: int = 4, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(images, 3, 2, 3, generator=generator).to(dtype) for _ in range(2))
    return student, teacher


def test_by_hand():
    """Distances 3, 4, 5 and 1, 1, root of 2; cosines 0, .6, .8 and 0, .707107, .707107."""
    assert SRM(1.0, 0.0)(STUDENT, TEACHER).item() == pytest.approx(0.00348125, abs=1e-7)
    assert SRM(0.0, 1.0)(STUDENT, TEACHER).item() == pytest.approx(0.00074448, abs=1e-7)
    assert SRM()(STUDENT, TEACHER).item() == pytest.approx(0.14910637, abs=1e-6)


def test_relations_by_hand():
    distances, cosines = relations(STUDENT)
    expected = torch.tensor([[0.0, 3, 4], [3, 0, 5], [4, 5, 0]]) / 4
    torch.testing.assert_close(distances, expected)
    at = {(0, 1, 2): 0.0, (1, 0, 2): 0.6, (2, 0, 1): 0.8, (0, 1, 1): 1.0, (0, 0, 1): 0.0, (2, 2, 2): 0.0}
    for place, cosine in at.items():
        assert cosines[place].item() == pytest.approx(cosine, abs=1e-6)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_value_is_that_of_all_pairs_and_triples(seed, images):
    student, teacher = drawn(seed, images)
    expected = slow.srm(student.tolist(), teacher.tolist())
    assert SRM()(student, teacher).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_gradient_by_differences():
    student, teacher = drawn(3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: SRM()(x, teacher), student.requires_grad_())
    twice = student.detach().clone()
    twice[1] = twice[0]  # one image two times: no distance, no direction, and no infinite slope
    loss = SRM()(twice.requires_grad_(), teacher)
    loss.backward()
    assert loss.isfinite() and twice.grad.isfinite().all()


def test_the_same_image_twice_has_no_distance_and_no_direction():
    student, teacher = drawn(5)
    student[2] = student[0]
    distances, cosines = relations(student)
    assert distances[0, 2] == 0 and (cosines[0, 2] == 0).all() and (cosines[2, :, 0] == 0).all()
    assert SRM()(student, teacher).item() == pytest.approx(slow.srm(student.tolist(), teacher.tolist()), rel=1e-4)
    same = relations(student[:1].expand(4, -1, -1, -1))
    assert all((part == 0).all() for part in same)


@pytest.mark.parametrize("factor", [1.0, 0.2, 7.0])
def test_a_positive_multiple_of_the_student_teaches_nothing(factor):
    student, _ = drawn(7)
    student.requires_grad_()
    loss = SRM()(student, factor * student.detach() + 2.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-9) and student.grad.abs().max() < 1e-5


@pytest.mark.parametrize("images", [1, 2])
def test_fewer_than_three_images_are_zero_with_a_gradient(images):
    student, teacher = drawn(9, images)
    student.requires_grad_()
    loss = SRM()(student, teacher)
    loss.backward()
    assert loss.item() == 0 and torch.equal(student.grad, torch.zeros_like(student))


def test_the_teacher_has_no_gradient():
    student, teacher = drawn(11)
    teacher.requires_grad_()
    SRM()(student.requires_grad_(), teacher).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


def test_digits_are_kept_where_images_are_alike():
    """Points far from 0 and near each other, in float32, against float64."""
    student, teacher = drawn(13, dtype=torch.float64)
    exact = SRM()(student, teacher)
    moved = SRM()((student + 100.0).float(), (teacher - 100.0).float())
    assert moved.item() == pytest.approx(exact.item(), rel=1e-4)


def test_float32_under_autocast():
    student, teacher = drawn(15)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, halved = SRM()(student, teacher), SRM()(student.bfloat16(), teacher.bfloat16())
    assert loss.dtype == halved.dtype == torch.float32
    assert torch.equal(loss, SRM()(student, teacher))
    assert torch.equal(halved, SRM()(student.bfloat16().float(), teacher.bfloat16().float()))


CODE = """
import torch
from eosin.engine.device import peak_memory_mb
from eosin.parts.losses.cross_entropy import PixelCrossEntropy
from eosin.parts.losses.srm import SRM
torch.manual_seed(0)
logits, teacher = torch.randn(20, 4, 224, 224, requires_grad=True), torch.randn(20, 4, 224, 224)
masks = torch.randint(0, 4, (20, 224, 224))
PixelCrossEntropy()(logits, masks).backward()
plain = peak_memory_mb()
logits.grad = None
(PixelCrossEntropy()(logits, masks) + (SRM()(logits, teacher) + SRM()(logits, teacher)) / 2).backward()
print(plain, peak_memory_mb())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the peak of a process itself")
def test_it_takes_at_most_150_mb_beside_cross_entropy():
    """Twenty images of 4 x 224 x 224 logits and two teachers; differences of points would take 321 MB each."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    plain, both = map(float, done.stdout.split())
    assert both - plain <= 150, f"{both - plain:.0f} MB more than {plain:.0f} MB"
