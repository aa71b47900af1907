"""Encoders that never learn and describe an image by one vector."""

from __future__ import annotations

import zlib
from functools import partial
from typing import Any, ClassVar

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eosin.core.errors import WrongUse, nearest
from eosin.core.learner import Frozen, Normalise
from eosin.parts.backbones.encoder import WeightFile
from eosin.parts.backbones.networks import imagenet_weights, in_timm
from eosin.parts.backbones.weights import load_weights


class FrozenGuide(nn.Module):
    """A network of timm, without its head, that describes what weights leave of an image; it never learns.

    Gradients pass through it to the weights. It is held like every :class:`Frozen`: outside of parameters and state.

    Args:
        name: timm's.
        width: of the vectors. Where the network has another, a fixed random projection with orthogonal rows or columns
            brings them there, as the released code of PBIP and LPD does.
        pretrained: ``none``, ``imagenet`` or weights on disk. With ``none`` it is random, but always the same network,
            so that all who are guided by it speak of the same space.

    Raises:
        WrongUse: for an unknown network.
        EosinError: if weights cannot be had or do not match.
    """

    revision: ClassVar[int] = 1
    projection: Tensor

    def __init__(self, name: str, width: int, pretrained: str | WeightFile = "none") -> None:
        super().__init__()
        if not in_timm(name):
            raise WrongUse(f"guide {name!r} is not known to timm{nearest(name, timm.list_models())}")
        whole = partial(timm.create_model, name)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(zlib.crc32(name.encode()))
            net: Any = timm.create_model(name, num_classes=0)
        if isinstance(pretrained, WeightFile):
            pretrained.fill(net, whole)
        elif pretrained != "none":
            load_weights(net, imagenet_weights(name), f"ImageNet weights of {name}", whole)
        told = net.pretrained_cfg
        self.size: tuple[int, int] = told["input_size"][1:]
        self.normalise = Normalise(told["mean"], told["std"])
        self.frozen = Frozen(net)
        wide = getattr(net, "head_hidden_size", net.num_features)  # some have a layer more before their head
        self.register_buffer("projection", _orthogonal(wide, width), persistent=False)

    def forward(self, image: Tensor, weights: Tensor) -> Tensor:
        """Vectors float32 ``[N, width]`` of the normalised images times the weights, resized to the network's size.

        Args:
            image: ``[N, 3, H, W]`` in 0..1.
            weights: ``[N, 1, H, W]`` in 0..1.
        """
        left = self.normalise(image) * weights
        if left.shape[2:] != self.size:
            left = F.interpolate(left, size=self.size, mode="bilinear", align_corners=False)
        vectors: Tensor = self.frozen.net(left)  # not by its own call, which records no gradient
        with torch.autocast(vectors.device.type, enabled=False):
            answer: Tensor = vectors.float() @ self.projection
        return answer


def _orthogonal(before: int, after: int) -> Tensor:
    """A fixed random matrix ``[before, after]``; the identity where both are the same."""
    if before == after:
        return torch.eye(before)
    random = torch.randn(max(before, after), min(before, after), generator=torch.Generator().manual_seed(0))
    columns: Tensor = torch.linalg.qr(random).Q
    return columns if before > after else columns.T
