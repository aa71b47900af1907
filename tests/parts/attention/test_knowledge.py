"""Pixels and knowledge tokens in blocks of self-attention: against loops, and who sees whom."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from eosin.parts.attention.knowledge import KnowledgeAttention
from oracles import transformer as slow


def drawn(learnt: bool = True) -> KnowledgeAttention:
    """One none of whose weights is as it begins."""
    torch.manual_seed(0)
    knowledge = torch.randn(2, 12)
    attention = KnowledgeAttention(nn.Parameter(knowledge) if learnt else knowledge, 8).eval()
    for value in attention.parameters():
        nn.init.normal_(value, std=0.3)
    return attention


def features() -> Tensor:
    return torch.randn(2, 8, 2, 3, generator=torch.Generator().manual_seed(1))


def _both(module: nn.Module) -> tuple[list[list[float]], list[float]]:
    return module.weight.tolist(), module.bias.tolist()  # type: ignore[union-attr,operator]


@torch.no_grad()
def test_pixels_are_those_of_the_loops() -> None:
    attention = drawn()
    tokens: list[list[float]] = features()[1].flatten(1).T.tolist()
    first, _, second = attention.project
    for token in attention.knowledge.tolist():
        hidden = [max(0.0, value) for value in slow.linear(token, *_both(first))]
        tokens.append(slow.linear(hidden, *_both(second)))
    for block in attention.blocks:
        parts = {"norm1": block.norm1, "qkv": block.attn.qkv, "proj": block.attn.proj, "norm2": block.norm2}
        weights = {name: _both(part) for name, part in parts.items()}
        tokens = slow.block(tokens, {**weights, "fc1": _both(block.mlp.fc1), "fc2": _both(block.mlp.fc2)}, heads=1)
    found = attention(features())
    assert found.shape == (2, 8, 2, 3)
    torch.testing.assert_close(found[1].flatten(1).T, torch.tensor(tokens[:6]), rtol=1e-3, atol=1e-4)


def test_pixels_see_each_other_and_the_tokens() -> None:
    attention, inputs = drawn(), features().requires_grad_()
    pixel = attention(inputs)[0, :, 0, 0].square().sum()
    of_pixels, of_tokens = torch.autograd.grad(pixel, (inputs, attention.knowledge))
    assert (of_pixels[0].abs().amax(0) > 0).all() and not of_pixels[1].any()
    assert (of_tokens.abs().amax(1) > 0).all()


@pytest.mark.parametrize(("channels", "heads"), [(8, 1), (352, 4), (512, 8)])
def test_heads_divide_the_channels(channels: int, heads: int) -> None:
    attention = KnowledgeAttention(torch.zeros(2, 4), channels)
    assert [block.attn.num_heads for block in attention.blocks] == [heads, heads]


def test_given_vectors_do_not_learn_and_are_kept() -> None:
    given = drawn(learnt=False)
    assert "knowledge" not in dict(given.named_parameters()) and "knowledge" in given.state_dict()
    assert "knowledge" in dict(drawn().named_parameters())
