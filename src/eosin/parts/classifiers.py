"""The tag classifier whose class maps are the first stage of every two-stage method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eosin.core.learner import Learner, Normalise, resized
from eosin.core.values import Batch, Clock


class Features(Protocol):
    """An encoder: a module with ``channels`` and ``strides`` per tap."""

    channels: list[int]
    strides: list[int]

    def __call__(self, image: Tensor) -> list[Tensor]:
        """Feature maps per tap."""
        ...


class CamClassifier(Learner):
    """Class maps by a 1x1 convolution on an encoder's last tap, pooled to tag scores (CAM, Zhou et al. 2016).

    Args:
        classes: K.
        encoder: makes the encoder; only its last tap is used.
        pool: makes the pooling, ``[B, K, h, w]`` to ``[B, K]``.
        loss: makes the tag loss, ``(scores [B, K], tags [B, K])`` to a scalar.
        compete: ``softmax``: classes compete for each pixel before pooling, and the pooled probability is turned
            back into a logit for the loss; ``none``: signed maps are pooled as they are.
        scale: images are resized by this factor before the encoder.
        dropout: share of feature channels dropped before the 1x1 convolution.
    """

    def __init__(
        self,
        classes: int,
        encoder: Callable[[], Features],
        pool: Callable[[], nn.Module],
        loss: Callable[[], nn.Module],
        compete: Literal["softmax", "none"] = "none",
        scale: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.encoder = encoder()
        self.dropout = nn.Dropout2d(dropout)
        # Competing classes need a bias for how common each is; a signed map must be zero where nothing is seen.
        self.head = nn.Conv2d(self.encoder.channels[-1], classes, 1, bias=compete == "softmax")
        self.pool = pool()
        self.loss = loss()
        self.compete = compete
        self.scale = scale

    def maps(self, image: Tensor) -> Tensor:
        """Signed class maps, float32 ``[B, K, h, w]`` at the encoder's resolution."""
        features = self.encoder(resized(self.normalise(image), self.scale))[-1]
        maps: Tensor = self.head(self.dropout(features))
        return maps.float()

    def logits(self, maps: Tensor) -> Tensor:
        """Tag logits ``[B, K]`` of class maps."""
        if self.compete == "none":
            return self.pool(maps)  # type: ignore[no-any-return]
        return torch.logit(self.pool(maps.softmax(1)), eps=1e-4)

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """``tags``: the tag loss of the pooled maps."""
        return {"tags": self.loss(self.logits(self.maps(batch.image)), batch.tags)}

    def predict(self, image: Tensor) -> Tensor:
        """Class maps as probabilities: softmax over classes, resized bilinearly to the image."""
        maps = F.interpolate(self.maps(image), size=image.shape[-2:], mode="bilinear", align_corners=False)
        return maps.softmax(1)

    def tag_scores(self, image: Tensor) -> Tensor:
        """Probability of each tag, ``[B, K]``."""
        return self.logits(self.maps(image)).sigmoid()
