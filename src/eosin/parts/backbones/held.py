"""Encoders of which a part stays as it was loaded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from eosin.core.errors import WrongUse
from eosin.parts.backbones.encoder import Encoder


class Held(nn.Module):
    """An encoder whose batch norms are held in eval mode and never learn, and some of whose stages do not learn either.

    So the pretrained ResNet-38 is trained everywhere in the field, with ``conv1a`` and ``b2`` held (ARML spec, A2).

    Args:
        encoder: makes the encoder.
        stages: how the names of stages begin that never learn, e.g. ``b2`` for ``b2``, ``b2_1`` and ``b2_2``.

    Shapes:
        Those of the encoder.

    Raises:
        WrongUse: for a stage that the encoder does not have.
    """

    def __init__(self, encoder: Callable[[], Encoder], stages: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.encoder = encoder()
        self.channels, self.strides = self.encoder.channels, self.encoder.strides
        names = dict(self.encoder.net.named_parameters())
        for stage in stages:
            if not any(name.startswith(stage) for name in names):
                raise WrongUse(f"the encoder has no stage {stage!r}; its weights begin with {next(iter(names))!r}")
        for name, weight in names.items():
            if name.startswith(stages):
                weight.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Train or not, but for the batch norms."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def forward(self, image: Tensor) -> list[Tensor]:
        """Feature maps at the taps."""
        features: list[Tensor] = self.encoder(image)
        return features


def as_loaded(encoder: Callable[[], Encoder], name: str, pretrained: str) -> Callable[[], Encoder | Held]:
    """What builds an encoder as the field trains it: a loaded ResNet-38 keeps norms and first stages, no other does.

    Args:
        encoder: what builds it, with its attention, whose norms are held, too.
        name: of the network.
        pretrained: what it begins with; a network that begins with nothing has nothing to keep.
    """
    return partial(Held, encoder, ("conv1a", "b2")) if name == "resnet38" and pretrained != "none" else encoder
