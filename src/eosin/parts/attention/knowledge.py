"""Self-attention of the pixels of a map together with tokens that stand for what is known of the classes."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

HEAD = 64  # channels of a head of attention, or the next more that divide the map's
DROP_PATH = 0.1  # share of the images that a branch of a block is left out for in training


class KnowledgeAttention(nn.Module):
    """Pixels and knowledge tokens attend to each other in blocks of self-attention (TPRO, Zhang et al. 2023).

    The tokens are vectors of a text encoder, of descriptions of the classes, brought to the channels of the map by two
    layers with a ReLU between; behind the blocks the pixels alone go on.

    Args:
        knowledge: ``[M, width]``, a parameter if they learn, else a tensor.
        channels: D of the map.
        depth: blocks.

    Shapes:
        ``[B, D, h, w]`` to the same, of any size; memory grows with ``(h w + M)^2``.
    """

    knowledge: Tensor

    def __init__(self, knowledge: Tensor, channels: int, depth: int = 2) -> None:
        super().__init__()
        if isinstance(knowledge, nn.Parameter):
            self.knowledge = knowledge
        else:
            self.register_buffer("knowledge", knowledge)
        width = knowledge.shape[1]
        self.project = nn.Sequential(nn.Linear(width, width // 2), nn.ReLU(), nn.Linear(width // 2, channels))
        heads = max(n for n in range(1, max(1, channels // HEAD) + 1) if channels % n == 0)
        self.blocks = nn.Sequential(*(Block(channels, heads, qkv_bias=True, drop_path=DROP_PATH) for _ in range(depth)))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Features of pixels that have seen the tokens."""
        pixels = features.flatten(2).transpose(1, 2)
        tokens = self.project(self.knowledge).expand(pixels.shape[0], -1, -1)
        seen = self.blocks(torch.cat([pixels, tokens], 1))[:, : pixels.shape[1]]
        back: Tensor = seen.transpose(1, 2).unflatten(2, features.shape[2:])
        return back
