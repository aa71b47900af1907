"""The tag classifier whose class maps are the first stage of every two-stage method."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eosin.core.learner import Learner, Normalise, resized
from eosin.core.values import Batch, Clock

EPS = 1e-4  # how near to 0 and 1 a pooled probability may come
GATES = 10.0  # by what the learning rate of the gates of attention is multiplied (ARML spec, D1 row 3)


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
        head_rate: by what the learning rate of the 1x1 convolution is multiplied, 10 where the encoder is pretrained
            and all are trained by SGD.
        imagenet: whether colours are shifted and scaled as for ImageNet.
    """

    revision: ClassVar[int] = 2

    def __init__(
        self,
        classes: int,
        encoder: Callable[[], Features],
        pool: Callable[[], nn.Module],
        loss: Callable[[], nn.Module],
        compete: Literal["softmax", "none"] = "none",
        scale: float = 1.0,
        dropout: float = 0.0,
        head_rate: float = 1.0,
        imagenet: bool = True,
    ) -> None:
        super().__init__()
        self.normalise: nn.Module = Normalise() if imagenet else nn.Identity()
        self.encoder = encoder()
        self.dropout = nn.Dropout2d(dropout)
        # Competing classes need a bias for how common each is; a signed map must be zero where nothing is seen.
        self.head = nn.Conv2d(self.encoder.channels[-1], classes, 1, bias=compete == "softmax")
        self.pool = pool()
        self.loss = loss()
        self.compete = compete
        self.scale = scale
        self.head_rate = head_rate
        self.begin_head()

    def begin_head(self) -> None:
        """Give the head its first weights; those that it has from PyTorch stay."""

    def rate(self, name: str) -> float:
        """The gates of attention begin at 0 and learn ten times as fast as all else; the head as it is told to."""
        if name.endswith(".gate"):
            return GATES
        return self.head_rate if name.startswith("head.") else 1.0

    def taps(self, image: Tensor) -> list[Tensor]:
        """Feature maps ``[B, D, h, w]`` at each tap of the encoder."""
        return self.encoder(resized(self.normalise(image), self.scale))

    def classify(self, features: Tensor) -> Tensor:
        """Signed class maps, float32 ``[B, K, h, w]``, of the features of the last tap."""
        maps: Tensor = self.head(self.dropout(features))
        return maps.float()

    def maps(self, image: Tensor) -> Tensor:
        """Signed class maps, float32 ``[B, K, h, w]`` at the encoder's resolution."""
        return self.classify(self.taps(image)[-1])

    def logits(self, maps: Tensor) -> Tensor:
        """Tag logits ``[B, K]`` of class maps."""
        if self.compete == "none":
            return self.pool(maps)  # type: ignore[no-any-return]
        pooled: Tensor = self.pool(maps.softmax(1))
        return torch.logit(EPS + (1 - 2 * EPS) * pooled)  # not a clamp, by which the worst mistakes would teach nothing

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


class Erasing(Protocol):
    """Takes from features where their class maps say most, by how far training is: ``[B, D, h, w]`` to the same.

    Attributes:
        begin: the epoch, counted from 0, from which on it does.
    """

    begin: int

    def __call__(self, features: Tensor, maps: Tensor, clock: Clock) -> Tensor:
        """Features of which some are taken."""
        ...


class ErasedClassifier(CamClassifier):
    """A classifier that, in training alone, is kept from seeing what it sees best (MLPS, Han et al. 2022).

    Args:
        classes: K.
        encoder: makes the encoder; only its last tap is classified.
        pool: makes the pooling, ``[B, K, h, w]`` to ``[B, K]``.
        loss: makes the tag loss, ``(scores [B, K], tags [B, K])`` to a scalar.
        erase: makes what takes from the features, before dropout, by the maps that the classifier has for them.
        scale: images are resized by this factor before the encoder.
        dropout: share of feature channels dropped before the 1x1 convolution.
        head_rate: by what the learning rate of the 1x1 convolution is multiplied.
    """

    def __init__(
        self,
        classes: int,
        encoder: Callable[[], Features],
        pool: Callable[[], nn.Module],
        loss: Callable[[], nn.Module],
        erase: Callable[[], Erasing],
        scale: float = 1.0,
        dropout: float = 0.0,
        head_rate: float = 1.0,
    ) -> None:
        super().__init__(classes, encoder, pool, loss, "none", scale, dropout, head_rate)
        self.erase = erase()

    def begins(self) -> dict[str, int]:
        """When features begin to be taken."""
        return {"erasing": self.erase.begin}

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """``tags``: the tag loss of the pooled maps of what is left of the features."""
        features = self.taps(batch.image)[-1]
        left = self.erase(features, self.head(features), clock)
        return {"tags": self.loss(self.logits(self.classify(left)), batch.tags)}


class ReactivatedClassifier(CamClassifier):
    """A classifier whose class maps are re-activated by a second one (ReCAM, Chen et al. 2022).

    The second classifier, weights ``W2``, sees for each present class c what the class map shows of the features,
    ``f_c = mean_ij(M_c F)`` with ``M_c = relu(A_c) / (max relu(A_c) + 1e-5)``, and has to tell c from all other
    classes by a softmax. Maps are then drawn by the product of both, element by element: by what both agree on.

    With ``reactivation = 0`` it is a plain signed classifier that carries the second one along untrained, so that it
    can be the start of one with a weight.

    Args:
        classes: K.
        encoder: makes the encoder; only its last tap is used.
        pool: makes the pooling, ``[B, K, h, w]`` to ``[B, K]``.
        loss: makes the tag loss, ``(scores [B, K], tags [B, K])`` to a scalar.
        second_loss: makes the loss of the second classifier, ``(logits [B, K, K], tags [B, K])`` to a scalar.
        scale: images are resized by this factor before the encoder.
        dropout: share of feature channels dropped before both classifiers.
        reactivation: weight of the second loss.
        slow: factor of the learning rate of all weights but the second classifier's.
        product: ``printed``: ``W * W2``, in which a feature that both count against a class draws its map; ``agreed``:
            ``W * relu(W2)``, in which it has no say.
    """

    def __init__(
        self,
        classes: int,
        encoder: Callable[[], Features],
        pool: Callable[[], nn.Module],
        loss: Callable[[], nn.Module],
        second_loss: Callable[[], nn.Module],
        scale: float = 1.0,
        dropout: float = 0.0,
        reactivation: float = 0.0,
        slow: float = 1.0,
        product: Literal["agreed", "printed"] = "agreed",
    ) -> None:
        super().__init__(classes, encoder, pool, loss, "none", scale, dropout)
        self.second = nn.Conv2d(self.encoder.channels[-1], classes, 1, bias=False)
        self.second_loss = second_loss()
        self.reactivation = reactivation
        self.slow = slow
        self.product = product

    def rate(self, name: str) -> float:
        """The second classifier begins anew; all else goes on slowly."""
        return 1.0 if name.startswith("second.") else self.slow

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """``tags``: that of the pooled plain maps; with a weight also ``reactivation``, that of the second one."""
        features = self.dropout(self.taps(batch.image)[-1])
        maps = self.head(features).float()
        terms = {"tags": self.loss(self.logits(maps), batch.tags)}
        if self.reactivation:
            terms["reactivation"] = self.reactivation * self.second_loss(self.seconded(features, maps), batch.tags)
        return terms

    def seconded(self, features: Tensor, maps: Tensor) -> Tensor:
        """What the second classifier takes each class for: logits float32 ``[B, K, K]``.

        Args:
            features: ``[B, D, h, w]``.
            maps: the plain maps of these features, ``[B, K, h, w]``.
        """
        with torch.autocast(features.device.type, enabled=False):
            shown = maps.float().relu()
            shown = shown / (shown.amax((2, 3), keepdim=True) + 1e-5)
            vectors = torch.einsum("bkhw,bdhw->bkd", shown, features.float()) / shown[0, 0].numel()
            return F.linear(vectors, self.second.weight[:, :, 0, 0])

    def maps(self, image: Tensor) -> Tensor:
        """Signed class maps, float32 ``[B, K, h, w]``: re-activated ones where there is a weight."""
        weight = self.head.weight
        if self.reactivation:
            weight = weight * (self.second.weight if self.product == "printed" else self.second.weight.relu())
        return F.conv2d(self.dropout(self.taps(image)[-1]), weight).float()

    def tag_scores(self, image: Tensor) -> Tensor:
        """Probability of each tag by the plain maps, ``[B, K]``."""
        return self.logits(self.classify(self.taps(image)[-1])).sigmoid()
