"""Segmentation networks from segmentation-models-pytorch, trained on masks."""

from __future__ import annotations

from functools import partial
from typing import Literal

import segmentation_models_pytorch as smp
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own short name)

from eosin.core.errors import EosinError
from eosin.core.learner import Learner, Normalise
from eosin.core.values import Batch, Clock


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015) with an encoder from SMP; any image size.

    Args:
        classes: K.
        encoder: SMP's encoder name.
        depth: levels of the encoder, 3 to 5; the coarsest has stride ``2**depth``.
        width: channels of the finest decoder level; each coarser one doubles it.
        pretrained: ``none`` or ``imagenet`` (downloaded by SMP).

    Shapes:
        ``[B, 3, H, W]`` to logits ``[B, K, H, W]``.
    """

    def __init__(
        self,
        classes: int,
        encoder: str = "resnet18",
        depth: int = 5,
        width: int = 16,
        pretrained: Literal["none", "imagenet"] = "none",
    ) -> None:
        super().__init__()
        try:
            self.net = smp.Unet(
                encoder,
                encoder_depth=depth,
                encoder_weights=None if pretrained == "none" else pretrained,
                decoder_channels=tuple(width * 2**level for level in reversed(range(depth))),
                classes=classes,
            )
        except OSError as error:
            raise EosinError(
                f"{pretrained} weights of {encoder} cannot be fetched: set pretrained to 'none' or go online "
                f"({type(error).__name__})"
            ) from error
        self.stride = 2**depth

    def forward(self, image: Tensor) -> Tensor:
        """Logits; sizes that the stride does not divide are padded by reflection and cut again."""
        height, width = image.shape[-2:]
        below, right = -height % self.stride, -width % self.stride
        logits: Tensor = self.net(F.pad(image, (0, right, 0, below), mode="replicate"))
        return logits[..., :height, :width]


class Segmenter(Learner):
    """A network trained on one named mask per image.

    Args:
        net: makes the network, ``[B, 3, H, W]`` to logits ``[B, K, H, W]``.
        loss: makes the pixel loss, ``(logits, mask)`` to a scalar.
        mask: which of the batch's masks is learnt.
    """

    def __init__(self, net: partial[nn.Module], loss: partial[nn.Module], mask: str) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.net = net()
        self.loss = loss()
        self.mask = mask

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """``pixels``: the pixel loss against the named mask."""
        return {"pixels": self.loss(self.net(self.normalise(batch.image)), batch.masks[self.mask])}

    def predict(self, image: Tensor) -> Tensor:
        """Class probabilities, float32 ``[B, K, H, W]``."""
        logits: Tensor = self.net(self.normalise(image))
        return logits.float().softmax(1)
