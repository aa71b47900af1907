"""The mask transformer: against loops over tokens, its size, and what its norms do to scores."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from eosin.core.errors import WrongUse
from eosin.parts.mask_transformer import MaskTransformer
from oracles import transformer as slow

Norm = Literal["layer", "scale"]


def drawn(norm: Norm = "layer", channels: int = 8, classes: int = 3) -> MaskTransformer:
    """A decoder none of whose weights is as it begins."""
    torch.manual_seed(0)
    decoder = MaskTransformer(channels, classes, 2, norm=norm).eval()
    for value in decoder.parameters():
        nn.init.normal_(value, 0.5 if value.ndim == 0 else 0.0, 0.3)
    return decoder


def features(channels: int = 8) -> Tensor:
    return torch.randn(2, channels, 2, 3, generator=torch.Generator().manual_seed(1))


def _both(module: nn.Module) -> tuple[list[list[float]], list[float]]:
    return module.weight.tolist(), module.bias.tolist()  # type: ignore[union-attr,operator]


@pytest.mark.parametrize("norm", ["layer", "scale"])
@torch.no_grad()
def test_scores_are_those_of_the_loops(norm: Norm) -> None:
    decoder = drawn(norm)
    found = decoder(features())
    assert found.shape == (2, 3, 2, 3)
    tokens = [slow.linear(patch, *_both(decoder.project)) for patch in features()[0].flatten(1).T.tolist()]
    tokens += decoder.embeddings[0].tolist()
    for block in decoder.blocks:
        parts = {"norm1": block.norm1, "qkv": block.attn.qkv, "proj": block.attn.proj, "norm2": block.norm2}
        weights = {name: _both(part) for name, part in parts.items()}
        tokens = slow.block(tokens, {**weights, "fc1": _both(block.mlp.fc1), "fc2": _both(block.mlp.fc2)}, heads=1)
    tokens = [slow.layer_norm(token, *_both(decoder.norm), 1e-5) for token in tokens]
    classes = [slow.linear(token, decoder.class_side.weight.tolist()) for token in tokens[6:]]
    for place, token in enumerate(tokens[:6]):
        patch = slow.linear(token, decoder.patch_side.weight.tolist())
        scores = [slow.cosine(patch, one) for one in classes]
        if norm == "layer":
            scores = slow.layer_norm(scores, *_both(decoder.scored), 1e-5)
        else:
            scores = [score * decoder.scored.factor.item() for score in scores]
        torch.testing.assert_close(found[0, :, place // 3, place % 3], torch.tensor(scores), rtol=1e-3, atol=1e-4)


def test_it_has_the_size_of_the_paper() -> None:
    with torch.device("meta"):
        assert sum(value.numel() for value in MaskTransformer(384, 4).parameters()) == 3_993_992
        assert MaskTransformer(384, 4).blocks[0].attn.num_heads == 6
        assert MaskTransformer(352, 4).blocks[0].attn.num_heads == 4


@torch.no_grad()
def test_untrained_scores_of_four_classes_reach_the_root_of_three_at_most() -> None:
    torch.manual_seed(0)
    scores = MaskTransformer(64, 4).eval()(features(64))
    torch.testing.assert_close(scores.mean(1), torch.zeros(2, 2, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(scores.var(1, correction=0), torch.ones(2, 2, 3), rtol=0, atol=0.05)
    highest = torch.tensor([math.sqrt(3), *[-1 / math.sqrt(3)] * 3]).softmax(0).max()
    assert highest.item() == pytest.approx(0.7704, abs=1e-4) and scores.softmax(1).max() <= highest + 1e-6


def test_of_two_classes_it_is_refused_because_scores_would_be_signs() -> None:
    with pytest.raises(WrongUse, match=r"take norm .*'scale'"):
        MaskTransformer(64, 2)
    decoder = MaskTransformer(64, 2, norm="scale")
    inputs = features(64).requires_grad_()
    decoder(inputs)[:, 0].sum().backward()
    assert inputs.grad is not None and inputs.grad.abs().max() > 1e-6


def test_classes_see_patches_and_patches_see_each_other() -> None:
    decoder, inputs = drawn(), features().requires_grad_()
    (gradient,) = torch.autograd.grad(decoder(inputs)[0, 0, 0, 0], inputs)
    assert (gradient[0].abs().amax(0) > 0).all() and not gradient[1].any()
