"""A ViT whose sequence has tokens that learn from a teacher, beside those of its patches."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eosin.core.errors import WrongUse
from eosin.parts.backbones.encoder import WeightFile, fill
from eosin.parts.backbones.networks import whole_vit

Tokens = Literal["patch", "global", "none"]


class DistilledViT(nn.Module):
    """A ViT of timm with distillation tokens (PDSeg, Li et al. 2025): the sequence is [class, distillation, patches].

    All attend to each other. Only the ViT itself is loaded from weights; the tokens and their positions are learnt
    anew. Where an image has another grid of patches than ``side x side``, positions and tokens are resized linearly,
    as products with matrices, so that they are exported as what they are.

    Args:
        name: timm's name of a ViT or DeiT.
        tokens: ``patch``: one for each patch; ``global``: a single one; ``none``.
        side: of the grid that positions and tokens are kept for, in patches.
        depth: how many of its blocks; 0 takes all.
        drop_path: the rate at which the last block is skipped in training, that of earlier ones rising to it.
        stem: ``patch``: one convolution embeds a patch; ``conv``: convolutions of stride 2 with norms do (Xiao et al.
            2021), with which a ViT learns from few images. It has no pretrained weights. Kernels are 4x4, since 3x3
            ones have their centres half a patch above and left of the patches', which no tag mends.
        pretrained: ``none``, ``imagenet`` (timm's own weights) or weights on disk; positions of another grid are
            resized.

    Attributes:
        width: D.
        stride: side of a patch in pixels.

    Shapes:
        ``[B, 3, H, W]`` of any size to features ``[B, D, h, w]`` and what the tokens say: ``[B, D, h, w]``, ``[B, D]``
        or None; ``h`` and ``w`` are rounded up. A border of a part of a patch is repeated to a whole one.

    Raises:
        WrongUse: for a network that is no such ViT, or a stem of convolutions with pretrained weights.
        EosinError: if weights cannot be had or do not match.
    """

    def __init__(
        self,
        name: str = "vit_small_patch16_384",
        tokens: Tokens = "patch",
        side: int = 14,
        depth: int = 0,
        drop_path: float = 0.1,
        stem: Literal["patch", "conv"] = "patch",
        pretrained: str | WeightFile = "none",
    ) -> None:
        super().__init__()
        if stem == "conv" and pretrained != "none":
            raise WrongUse("stem = 'conv' has no pretrained weights: set pretrained to 'none', or stem to 'patch'")
        made = whole_vit(name, side, depth, drop_path)
        fill(made, name, pretrained)
        net: Any = made.net
        self.width, self.stride = made.channels[0], made.strides[0]
        self.side = side
        self.kind = tokens
        if stem == "conv":
            net.patch_embed.proj = nn.Sequential(*_stem(self.stride, self.width))
        self.net = net
        if tokens != "none":
            shape = (side, side, self.width) if tokens == "patch" else (self.width,)
            self.tokens = nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))
            self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features of the patches, and of the tokens."""
        patches: Tensor = self.net.patch_embed(in_patches(image, self.stride))
        height, width = patches.shape[1:3]
        count = height * width
        sequence = self.net.blocks(self.net.norm_pre(torch.cat(self._sequence(patches), 1)))
        found: Tensor = self.net.norm(sequence).transpose(1, 2)
        features = found[..., -count:].unflatten(2, (height, width))
        if self.kind == "none":
            return features, None
        if self.kind == "global":
            return features, found[..., 1]
        return features, found[..., 1:-count].unflatten(2, (height, width))

    def _sequence(self, patches: Tensor) -> list[Tensor]:
        """Class token, distillation tokens and patches ``[B, h, w, D]``, each ``[B, N, D]`` with its positions."""
        batch, height, width, _ = patches.shape
        first = 0 if self.net.no_embed_class else 1
        known = self.net.pos_embed[0]
        grid = known[first:].unflatten(0, (self.side, self.side))
        own = self.net.cls_token + known[:first].sum(0)
        parts = [own.expand(batch, -1, -1), (patches + regridded(grid, height, width)).flatten(1, 2)]
        if self.kind == "none":
            return parts
        tokens = self.tokens + self.positions
        if self.kind == "patch":
            tokens = regridded(tokens, height, width).flatten(0, 1)
        return [parts[0], tokens.reshape(1, -1, self.width).expand(batch, -1, -1), parts[1]]


def in_patches(image: Tensor, stride: int) -> Tensor:
    """Images ``[B, 3, H, W]`` whose lower and right border is repeated up to whole patches."""
    below, right = (-length % stride for length in image.shape[-2:])
    return F.pad(image, (0, right, 0, below), mode="replicate") if below or right else image


def regridded(grid: Tensor, height: int, width: int) -> Tensor:
    """A grid of vectors ``[h, w, D]`` as ``[height, width, D]``, linearly with half-pixel centres."""
    if grid.shape[:2] == (height, width):
        return grid
    down, across = (_linear(*lengths, grid) for lengths in ((grid.shape[0], height), (grid.shape[1], width)))
    return torch.einsum("hwd,hy,wx->yxd", grid, down, across)


def _linear(before: int, after: int, like: Tensor) -> Tensor:
    """The matrix ``[before, after]`` that resizes an axis."""
    units = torch.eye(before, device=like.device, dtype=like.dtype)
    return F.interpolate(units[None], size=after, mode="linear", align_corners=False)[0]


def _stem(stride: int, width: int) -> list[nn.Module]:
    """Convolutions of stride 2 down to a patch, their channels doubling up to half the width, and one of 1x1."""
    if stride < 4 or stride & (stride - 1):
        raise WrongUse(f"stem = 'conv' halves an image several times, which gives no patches of {stride} px")
    layers: list[nn.Module] = []
    halvings = stride.bit_length() - 1
    channels = 3
    for number in range(halvings):
        wider = max(8, width >> (halvings - number))
        layers += [nn.Conv2d(channels, wider, 4, 2, 1, bias=False), nn.BatchNorm2d(wider), nn.ReLU()]
        channels = wider
    return [*layers, nn.Conv2d(channels, width, 1)]
