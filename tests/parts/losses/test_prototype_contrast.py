"""Shown and hidden parts against prototypes: by hand, against the loop, and what it pulls at."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.parts.losses.prototype_contrast import PrototypeContrast
from oracles import prototypes as slow

PROTOTYPES = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
SEEN = torch.tensor([[1.0, 0.0]])
OWN, STRANGERS = torch.tensor([0]), torch.tensor([[False, True, True]])
ways = pytest.mark.parametrize("joined", [False, True], ids=["each", "joined"])


def drawn(seed: int, pairs: int = 5, classes: int = 3, count: int = 2, width: int = 4):
    generator = torch.Generator().manual_seed(seed)
    shown, hidden = torch.randn(2, pairs, width, generator=generator, dtype=torch.float64)
    prototypes = torch.randn(classes * count, width, generator=generator, dtype=torch.float64)
    own = torch.randint(0, classes * count, (pairs,), generator=generator)
    strangers = torch.arange(classes * count) // count != (own // count)[:, None]
    return shown, hidden, prototypes, own, strangers


@pytest.mark.parametrize(
    ("joined", "temperature", "front", "back"),
    [
        (False, 1.0, 0.712067, 0.674579),
        (False, 0.07, 0.003294, 5.717389),
        (True, 1.0, 0.712067, 1.073777),
        (True, 0.07, 0.003294, 6.408891),
    ],
)
def test_by_hand(joined: bool, temperature: float, front: float, back: float) -> None:
    loss = PrototypeContrast(temperature, joined)
    assert loss(SEEN, SEEN, PROTOTYPES, OWN, STRANGERS).item() == pytest.approx(front + back, abs=2e-6)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(2, 4), st.integers(1, 3), st.booleans())
def test_the_value_is_that_of_the_loop(seed: int, pairs: int, classes: int, count: int, joined: bool) -> None:
    shown, hidden, prototypes, own, strangers = drawn(seed, pairs, classes, count)
    oracle = slow.joined_contrast if joined else slow.contrast
    others = [row.nonzero()[:, 0].tolist() for row in strangers]
    expected = oracle(shown.tolist(), hidden.tolist(), prototypes.tolist(), own.tolist(), others, 0.3)
    found = PrototypeContrast(0.3, joined)(shown, hidden, prototypes, own, strangers)
    assert found.item() == pytest.approx(expected, rel=1e-9)


@ways
def test_the_gradient_is_that_of_differences(joined: bool) -> None:
    shown, hidden, prototypes, own, strangers = drawn(0)
    inputs = [x.requires_grad_() for x in (shown, hidden, prototypes)]
    loss = PrototypeContrast(0.5, joined)
    assert torch.autograd.gradcheck(lambda *given: loss(*given, own, strangers), inputs)


@ways
def test_length_says_nothing(joined: bool) -> None:
    shown, hidden, prototypes, own, strangers = drawn(1)
    loss = PrototypeContrast(0.07, joined)
    plain = loss(shown, hidden, prototypes, own, strangers)
    torch.testing.assert_close(loss(3 * shown, 0.1 * hidden, 7 * prototypes, own, strangers), plain)


def test_the_mean_over_pairs_is_that_of_each_alone_unless_joined() -> None:
    shown, hidden, prototypes, own, strangers = drawn(2)
    single = [(shown[i : i + 1], hidden[i : i + 1], prototypes, own[i : i + 1], strangers[i : i + 1]) for i in range(5)]
    for joined in (False, True):
        loss = PrototypeContrast(0.3, joined)
        mean = torch.stack([loss(*one) for one in single]).mean()
        same = torch.isclose(loss(shown, hidden, prototypes, own, strangers), mean)
        assert bool(same) != joined


@ways
def test_a_step_makes_the_shown_like_its_prototype_and_the_hidden_unlike_it(joined: bool) -> None:
    shown, hidden, prototypes, own, strangers = drawn(3, pairs=1)
    seen = [shown.requires_grad_(), hidden.requires_grad_()]
    loss = PrototypeContrast(0.5, joined)
    steps = torch.autograd.grad(loss(*seen, prototypes, own, strangers), seen)
    mine = prototypes[own]
    before, after = (
        [torch.cosine_similarity(x - rate * step, mine).item() for x, step in zip(seen, steps, strict=True)]
        for rate in (0, 1e-2)
    )
    assert after[0] > before[0] and after[1] < before[1]


@ways
def test_no_pair_gives_zero_with_a_gradient(joined: bool) -> None:
    prototypes = PROTOTYPES.clone().requires_grad_()
    none = torch.zeros(0, 2, requires_grad=True)
    loss = PrototypeContrast(0.07, joined)(none, none, prototypes, OWN[:0], STRANGERS[:0])
    loss.backward()
    assert loss.item() == 0 and torch.equal(prototypes.grad, torch.zeros(3, 2))


@ways
def test_it_is_float32_under_autocast(joined: bool) -> None:
    shown, hidden, prototypes, own, strangers = (x.float() if x.is_floating_point() else x for x in drawn(4))
    loss = PrototypeContrast(0.07, joined)
    plain = loss(shown, hidden, prototypes, own, strangers)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(shown, hidden, prototypes, own, strangers), plain)
