"""ReCAM's second loss against a loop, by hand, and what unknown tags leave of it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.parts.losses.reactivation import Reactivation
from oracles import reactivation as slow

NAN = math.nan
LOSS = Reactivation()


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None)
@given(
    seed=st.integers(0, 10**6),
    tags=st.lists(st.lists(st.sampled_from([0.0, 1.0, NAN]), min_size=3, max_size=3), min_size=1, max_size=4),
)
def test_it_is_that_of_the_loop(seed: int, tags: list[list[float]]) -> None:
    logits = random(len(tags), 3, 3, seed=seed)
    assert LOSS(logits, torch.tensor(tags)).item() == pytest.approx(slow.loss(logits.tolist(), tags), abs=1e-5)


def test_by_hand() -> None:
    """Two classes of one image: -log of softmax at the class itself, 1/4 and 2/3."""
    logits = torch.tensor([[[0.0, math.log(3)], [0.0, math.log(2)]]])
    assert LOSS(logits, torch.tensor([[1.0, 1.0]])).item() == pytest.approx((math.log(4) + math.log(1.5)) / 2)
    assert LOSS(logits, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(math.log(4))
    two = torch.cat([logits, logits])
    each = LOSS(two, torch.tensor([[1.0, 1.0], [0.0, 1.0]])).item()
    assert each == pytest.approx(((math.log(4) + math.log(1.5)) / 2 + math.log(1.5)) / 2), "images weigh alike"


def test_absent_and_unknown_classes_have_no_term_of_their_own() -> None:
    logits = random(2, 3, 3).requires_grad_()
    LOSS(logits, torch.tensor([[1.0, 0.0, NAN], [NAN, NAN, NAN]])).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0].abs().min() > 0 and (logits.grad[0, 1:] == 0).all() and (logits.grad[1] == 0).all()


def test_without_a_present_tag_it_is_0_with_a_gradient() -> None:
    logits = random(2, 3, 3).requires_grad_()
    loss = LOSS(logits, torch.tensor([[0.0, 0.0, NAN], [NAN, NAN, NAN]]))
    loss.backward()
    assert loss.item() == 0 and logits.grad is not None and (logits.grad == 0).all()


def test_it_is_float32_under_autocast() -> None:
    logits, tags = random(2, 3, 3).bfloat16(), torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    with torch.autocast("cpu", torch.bfloat16):
        loss = LOSS(logits, tags)
    assert loss.dtype == torch.float32 and loss.item() == LOSS(logits.float(), tags).item()
