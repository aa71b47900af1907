"""Easy pixels weigh more: by hand, against the slow loop, and what the weights do to the gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.parts.losses.cross_entropy import PixelCrossEntropy
from eosin.parts.losses.plf import PLF
from oracles import noisy_masks as slow

THREE = math.log(3)
# one row of three pixels, p of class 0: .75, .25, .75
LOGITS = torch.tensor([[[[THREE, 0.0, THREE]], [[0.0, THREE, 0.0]]]])
both = pytest.mark.parametrize("confidence", [True, False], ids=["plf", "oeem"])


def drawn(seed: int, images: int = 2, classes: int = 3, size: tuple[int, int] = (3, 4)) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(images, classes, *size, generator=generator)
    masks = torch.randint(0, classes + 1, (images, *size), generator=generator)
    masks[masks == classes] = 255
    return logits, masks


@pytest.mark.parametrize(
    ("labels", "plf", "oeem"),
    [
        # p of the label .75, .75, .25, mean .58333: weights 1.285714, 1.285714, .428571, confidence .5 everywhere
        ([0, 1, 1], 0.2223133, 0.4446266),
        # p .75, .75: both weights are 1
        ([0, 1, 255], 0.1438410, 0.2876820),
        # p .75, .25: weights 1.5, .5 of losses .2876820, 1.3862944
        ([0, 255, 1], 0.2811676, 0.5623352),
        # one class: plain cross-entropy, without confidence either
        ([0, 0, 0], 0.6538861, 0.6538861),
        ([0, 255, 0], 0.2876820, 0.2876820),
        ([255, 255, 1], 1.3862944, 1.3862944),
        ([255, 255, 255], 0.0, 0.0),
    ],
)
def test_by_hand(labels, plf, oeem):
    masks = torch.tensor([[labels]])
    assert PLF()(LOGITS, masks).item() == pytest.approx(plf, abs=1e-6)
    assert PLF(confidence=False)(LOGITS, masks).item() == pytest.approx(oeem, abs=1e-6)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(2, 5), st.booleans())
def test_value_and_gradient_are_those_of_the_loop(seed, images, classes, confidence):
    logits, masks = drawn(seed, images, classes)
    logits.requires_grad_()
    loss = PLF(confidence)(logits, masks)
    loss.backward()
    given_to = logits.tolist(), masks.tolist(), confidence
    assert loss.item() == pytest.approx(slow.plf(*given_to), rel=1e-4, abs=1e-5)
    expected = torch.tensor(slow.plf_gradient(*given_to))
    torch.testing.assert_close(logits.grad, expected, rtol=1e-4, atol=1e-5)


def test_the_gradient_is_that_of_the_weighted_losses_with_the_weights_held_still():
    """Against differences of the loss itself, in float64 and with the weights frozen at the middle."""
    logits, masks = drawn(3, images=1)
    logits.requires_grad_()
    PLF()(logits, masks).backward()
    weights = slow.plf_weights(logits.tolist()[0], masks.tolist()[0])
    still = torch.zeros(masks.shape, dtype=torch.float64)
    for (i, j), weight in weights.items():
        still[0, i, j] = weight

    def loss(x):
        each = torch.nn.functional.cross_entropy(x, masks, ignore_index=255, reduction="none")
        return (still * each).sum() / len(weights)

    middle, step = logits.detach().double(), 1e-6
    for place in [(0, 0, 0, 0), (0, 1, 1, 2), (0, 2, 2, 3)]:
        apart = torch.zeros_like(middle)
        apart[place] = step
        slope = (loss(middle + apart) - loss(middle - apart)) / (2 * step)
        assert logits.grad[place].item() == pytest.approx(slope.item(), abs=1e-6)


@both
def test_the_weights_of_an_image_are_its_own(confidence):
    logits, masks = drawn(5)
    masks[:, 0, :2] = torch.tensor([0, 1])
    loss = PLF(confidence)
    labelled = (masks != 255).sum((1, 2)).float()
    alone = torch.stack([loss(logits[i : i + 1], masks[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(loss(logits, masks), (alone * labelled).sum() / labelled.sum())


def test_weights_have_mean_one_and_grow_with_the_probability_of_the_label():
    logits, masks = drawn(7, images=1)
    masks[masks == 255] = 0
    masks[0, 0, 0] = 1
    losses = torch.nn.functional.cross_entropy(logits, masks, reduction="none")
    weights = PLF(confidence=False).weights(logits, masks, losses)
    assert weights.mean().item() == pytest.approx(1, abs=1e-5)
    by_loss = losses.flatten().argsort()
    assert (weights.flatten()[by_loss].diff() <= 0).all() and not weights.requires_grad


@both
def test_pixels_that_are_left_out_change_nothing(confidence):
    """They are in no softmax, no mean and no count, whatever their logits are."""
    logits, masks = drawn(9, images=1)
    logits.requires_grad_()
    loss = PLF(confidence)(logits, masks)
    loss.backward()
    left = (masks == 255)[:, None].expand_as(logits)
    assert left.any() and (logits.grad[left] == 0).all() and (logits.grad[~left] != 0).any()
    moved = torch.where(left, -50.0, logits.detach())
    torch.testing.assert_close(PLF(confidence)(moved, masks), loss.detach())


@both
def test_nothing_labelled_is_zero_with_a_gradient(confidence):
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = PLF(confidence)(logits, torch.full((2, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0 and torch.equal(logits.grad, torch.zeros_like(logits))


def test_an_image_without_labels_takes_no_share_of_another():
    logits, masks = drawn(11)
    masks[1] = 255
    for confidence in (True, False):
        loss = PLF(confidence)
        torch.testing.assert_close(loss(logits, masks), loss(logits[:1], masks[:1]))


def test_labels_that_are_hopeless_keep_finite_weights():
    """Where every label has probability 0 in float32, the softmax of the losses still tells them apart."""
    logits = torch.tensor([[[[0.0, 300.0]], [[200.0, 0.0]]]], requires_grad=True)
    loss = PLF(confidence=False)(logits, torch.tensor([[[0, 1]]]))
    loss.backward()
    assert loss.item() == pytest.approx(200.0) and logits.grad.isfinite().all()


def test_equal_pixels_weigh_one():
    """The released code of the gland method divides by the range and gives infinity here."""
    logits = torch.tensor([[[[THREE, 0.0]], [[0.0, THREE]]]])
    masks = torch.tensor([[[0, 1]]])
    plain = PixelCrossEntropy()(logits, masks)
    torch.testing.assert_close(PLF(confidence=False)(logits, masks), plain)
    torch.testing.assert_close(PLF()(logits, masks), plain / 2)


def test_another_ignore_index():
    logits, masks = drawn(13)
    moved = torch.where(masks == 255, 9, masks)
    assert torch.equal(PLF(ignore=9)(logits, moved), PLF()(logits, masks))


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(IndexError):
        PLF()(torch.randn(1, 2, 1, 1), torch.tensor([[[2]]]))


@both
def test_float32_under_autocast(confidence):
    logits, masks = drawn(15, size=(8, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = PLF(confidence)(logits, masks)
        halved = PLF(confidence)(logits.bfloat16(), masks)
    assert loss.dtype == halved.dtype == torch.float32
    assert torch.equal(loss, PLF(confidence)(logits, masks))
    assert torch.equal(halved, PLF(confidence)(logits.bfloat16().float(), masks))
