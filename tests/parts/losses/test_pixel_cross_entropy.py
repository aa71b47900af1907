"""Cross-entropy of masks: the slow loop, ignored pixels without a trace."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.parts.losses.cross_entropy import PixelCrossEntropy
from oracles import losses as slow


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(2, 5))
def test_value_is_that_of_the_loop(seed, images, classes):
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(images, classes, 3, 2, generator=generator)
    masks = torch.randint(0, classes + 1, (images, 3, 2), generator=generator)
    masks[masks == classes] = 255
    loss = PixelCrossEntropy()(logits, masks)
    expected = slow.pixel_cross_entropy(logits.tolist(), masks.tolist())
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_by_hand():
    # pixels of [ln 3, 0], [0, ln 3], [ln 3, 0] with labels 0, 1, 1: the classic .2877, .2877, 1.3863
    three = math.log(3)
    logits = torch.tensor([[[[three, 0.0, three]], [[0.0, three, 0.0]]]])
    assert PixelCrossEntropy()(logits, torch.tensor([[[0, 1, 1]]])).item() == pytest.approx(0.6538861, abs=1e-6)
    assert PixelCrossEntropy()(logits, torch.tensor([[[0, 1, 255]]])).item() == pytest.approx(0.2876820, abs=1e-6)


def test_ignored_pixels_have_no_gradient_and_no_share_in_the_mean():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    masks = torch.full((1, 4, 4), 255)
    masks[0, :2] = 1
    PixelCrossEntropy()(logits, masks).backward()
    fewer = logits.detach()[:, :, :2].clone().requires_grad_()
    PixelCrossEntropy()(fewer, masks[:, :2]).backward()
    torch.testing.assert_close(logits.grad[:, :, :2], fewer.grad)
    assert (logits.grad[:, :, 2:] == 0).all()


def test_another_ignore_index():
    logits = torch.randn(1, 2, 1, 2)
    masks = torch.tensor([[[0, 9]]])
    expected = PixelCrossEntropy()(logits[..., :1], masks[..., :1])
    torch.testing.assert_close(PixelCrossEntropy(ignore=9)(logits, masks), expected)


def test_nothing_labelled_is_zero_with_a_gradient():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = PixelCrossEntropy()(logits, torch.full((2, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(IndexError):
        PixelCrossEntropy()(torch.randn(1, 2, 1, 1), torch.tensor([[[2]]]))


def test_float32_under_autocast():
    logits, masks = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = PixelCrossEntropy()(logits, masks)
        halved = PixelCrossEntropy()(logits.bfloat16(), masks)
    assert loss.dtype == halved.dtype == torch.float32
    assert torch.equal(loss, PixelCrossEntropy()(logits, masks))
    assert torch.equal(halved, PixelCrossEntropy()(logits.bfloat16().float(), masks))
