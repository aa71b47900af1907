"""The mask transformer of Segmenter: classes as tokens that look at patches, and patches scored by them."""

from __future__ import annotations

from typing import Literal

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from eosin.core.errors import WrongUse

HEAD = 64  # channels of a head of attention, as in ViTs of every size
SCALE = 1 / 0.07  # what cosines are multiplied by at first, where they are scaled


class MaskTransformer(nn.Module):
    """Scores of patches by class embeddings that attend to them (Segmenter, Strudel et al. 2021, as in PDSeg).

    Patch features are projected and joined by K learnt embeddings; after blocks of self-attention and a norm, the score
    of a class at a patch is the cosine of both, each projected once more.

    Args:
        channels: D of the features; there are ``D / 64`` heads, or the next fewer that divide D.
        classes: K.
        depth: blocks.
        dropout: in the blocks.
        norm: ``layer``: the K cosines of each patch pass a layer norm, as PDSeg's code has it. Untrained scores then
            have mean 0 and variance 1, and the highest of four classes has a probability of at most 0.77. Of two
            classes it leaves the sign of their difference alone. ``scale``: they are multiplied by one learnt number.

    Shapes:
        ``[B, D, h, w]`` to scores float32 ``[B, K, h, w]``.

    Raises:
        WrongUse: for a layer norm of two classes.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        depth: int = 2,
        dropout: float = 0.1,
        norm: Literal["layer", "scale"] = "layer",
    ) -> None:
        super().__init__()
        if norm == "layer" and classes < 3:
            raise WrongUse(f"a layer norm of {classes} classes leaves signs alone; take norm (decoder_norm) 'scale'")
        heads = max(n for n in range(1, max(1, channels // HEAD) + 1) if channels % n == 0)
        self.project = nn.Linear(channels, channels)
        self.embeddings = nn.Parameter(torch.zeros(1, classes, channels))
        self.blocks = nn.Sequential(
            *(Block(channels, heads, qkv_bias=True, proj_drop=dropout, attn_drop=dropout) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(channels)
        self.patch_side = nn.Linear(channels, channels, bias=False)
        self.class_side = nn.Linear(channels, channels, bias=False)
        self.scored: nn.Module = nn.LayerNorm(classes) if norm == "layer" else Scale()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.embeddings, std=0.02)
        for side in (self.patch_side, self.class_side):
            nn.init.normal_(side.weight, std=channels**-0.5)

    def forward(self, features: Tensor) -> Tensor:
        """Scores of all classes at each patch."""
        count, size = features[0, 0].numel(), features.shape[2:]
        patches = self.project(features.flatten(2).transpose(1, 2))
        tokens = self.norm(self.blocks(torch.cat([patches, self.embeddings.expand(patches.shape[0], -1, -1)], 1)))
        patches, classes = self.patch_side(tokens[:, :count]), self.class_side(tokens[:, count:])
        with torch.autocast(features.device.type, enabled=False):
            cosines = F.normalize(patches.float(), dim=2) @ F.normalize(classes.float(), dim=2).transpose(1, 2)
            scores: Tensor = self.scored(cosines).transpose(1, 2).unflatten(2, size)
            return scores


class Scale(nn.Module):
    """Multiplication by one learnt number."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(SCALE))

    def forward(self, cosines: Tensor) -> Tensor:
        """Of the same shape."""
        return cosines * self.factor
