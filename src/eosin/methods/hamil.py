"""HAMIL: maps of several exits and random views, and three networks that teach each other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from eosin.core.artifact import Trained
from eosin.core.lab import Lab
from eosin.core.values import Batch, Clock
from eosin.methods.method import Attentive, Crf, FirstStage, Glass, Ingredient, Method, SecondStage
from eosin.parts.backbones.encoder import Encoder
from eosin.parts.cams import EPS, Transformed
from eosin.parts.classifiers import CamClassifier, Features
from eosin.parts.losses.kl import KL
from eosin.parts.losses.swv import SWV
from eosin.parts.peers import Peers
from eosin.parts.pooling.mpfp import MPFP
from eosin.parts.pseudo import RefinedArgmax
from eosin.parts.segmenters import Net


class Exits(CamClassifier):
    """A classifier that answers at several depths (HAM-Net): each has a 1x1 convolution and a loss of its own.

    Args:
        classes: K.
        encoder: makes the encoder; each of its taps is an exit.
        pool: makes the pooling, ``[B, K, h, w]`` to ``[B, K]``.
        loss: makes the tag loss, ``(scores [B, K], tags [B, K])`` to a scalar.
        compete: as in :class:`CamClassifier`.
        scale: images are resized by this factor before the encoder.
        dropout: share of feature channels dropped before each 1x1 convolution.
        block: 3x3 convolutions behind the last tap, which end in one more exit; 0 has none.
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
        block: int = 3,
    ) -> None:
        super().__init__(classes, encoder, pool, loss, compete, scale, dropout)
        widths = [*self.encoder.channels, *([self.encoder.channels[-1]] if block else [])]
        self.block = nn.Sequential(*(layer for _ in range(block) for layer in _convolution(widths[-1])))
        self.earlier = nn.ModuleList(nn.Conv2d(w, classes, 1, bias=compete == "softmax") for w in widths[:-1])

    def taps(self, image: Tensor) -> list[Tensor]:
        """Feature maps ``[B, D, h, w]`` of each exit, the deepest last."""
        taps = super().taps(image)
        return [*taps, self.block(taps[-1])] if len(self.block) else taps

    def exits(self, image: Tensor) -> list[Tensor]:
        """Signed class maps, float32 ``[B, K, h, w]``, of each exit."""
        *features, last = self.taps(image)
        maps = [head(self.dropout(f)).float() for head, f in zip(self.earlier, features, strict=True)]
        return [*maps, self.classify(last)]

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """``tags``: the mean of the tag losses of all exits."""
        each = [self.loss(self.logits(maps), batch.tags) for maps in self.exits(batch.image)]
        return {"tags": torch.stack(each).mean()}

    def maps(self, image: Tensor) -> Tensor:
        """The mean of the signed class maps of all exits, float32 ``[B, K, h, w]`` at the finest resolution."""
        return _mean(self.exits(image))

    def shown(self, image: Tensor) -> Tensor:
        """The mean of ``relu(M_c) / (max relu(M_c) + 1e-5)`` of all exits: ``[B, K, h, w]`` in 0..1."""
        positive = [maps.relu() for maps in self.exits(image)]
        return _mean([maps / (maps.amax((2, 3), keepdim=True) + EPS) for maps in positive])

    def tag_scores(self, image: Tensor) -> Tensor:
        """Probability of each tag, ``[B, K]``, the mean of all exits."""
        return torch.stack([self.logits(maps).sigmoid() for maps in self.exits(image)]).mean(0)


def _convolution(channels: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()


def _mean(maps: list[Tensor]) -> Tensor:
    """The mean of maps at the size of the first."""
    size = maps[0].shape[-2:]
    return torch.stack([F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in maps]).mean(0)


class ExitMaps:
    """The maps of a classifier with several exits."""

    def __call__(self, learner: Exits, image: Tensor) -> Tensor:
        """Maps ``[B, K, h, w]`` in 0..1 of images ``[B, 3, H, W]``."""
        return learner.shown(image)


class Hamil(Attentive, FirstStage, Crf, Glass, SecondStage, Method):
    """Maps of several exits and random views; three networks trained on them vote for pixels and teach each other.

    Idea:
        Shallow layers see fine structures, deep ones see what is what: a classifier that answers at several depths
        has sharper maps. What is wrong in a pseudo mask is learnt by each of several networks in another way, so
        where two of them agree, the third can trust the mask more; and their softened answers tell it the rest.

    Follows:
        Zhong et al. 2023: exits at three depths, the mean of their losses; maps by ReLU and division by their maximum,
        averaged; the mean over 20 random transforms; three DeepLabV3+ that begin with other weights, cross-entropy in
        which a pixel weighs 2 where the others agree and 1/2 where they do not, and 0.2 times the divergence from the
        mean of the others' logits at temperature 30; at test the mean of all logits.

    Differs:
        Every pixel goes to the highest present class, since on tissue there is no background, unless ``white`` asks
        for one. Networks are those of segmentation-models-pytorch, with batch norms. One learning rate serves all
        layers.

    Shapes:
        image ``[B, 3, H, W]``, maps of each exit ``[B, K, h, w]``, logits of each network ``[B, K, H, W]``, masks and
        output ``H x W``.
    """

    paper: ClassVar[str] = (
        "Zhong, Wang, Liao, Zhang: HAMIL: high-resolution activation maps and interleaved learning for weakly "
        "supervised segmentation of histopathological images, IEEE Transactions on Medical Imaging 2023"
    )
    steps: ClassVar[tuple[str, ...]] = ("classifier", "segmenter")
    ingredients: ClassVar[tuple[Ingredient, ...]] = (
        Ingredient("exits at several depths", "classifier", {"exits": ()}, ("earlier.",)),
        Ingredient("exit of three convolutions", "classifier", {"block": 0}, ("block.",)),
        Ingredient("random transforms", "pseudo", {"averaging": "fixed"}),
        Ingredient("merged overlaps", "pseudo", {"merge": False}),
        Ingredient("votes of peers", "segmenter", {"omega": 1.0}),
        Ingredient("distillation", "segmenter", {"relation": "none"}),
        Ingredient("mean of three networks", "segmenter", {"answer": "first"}),
    )

    exits: tuple[Annotated[int, Field(ge=0)], ...] = (3,)
    block: int = Field(default=3, ge=0)
    output_stride: Literal[8, 16, 32] = 8
    pool: Literal["gap", "highest", "mpfp"] = "gap"  # type: ignore[assignment]
    compete: Literal["softmax", "none"] = "none"
    averaging: Literal["random", "fixed"] = "random"
    transforms: int = Field(default=20, ge=1)
    spread: float = Field(default=0.25, ge=0, lt=1)
    seg_net: Net = "deeplabv3plus"
    seg_width: int = Field(default=256, ge=4)
    omega: Annotated[float, Field(ge=1, allow_inf_nan=False)] | Literal["inf"] = 2.0
    relation: Literal["kl", "none"] = "kl"
    relation_weight: float = Field(default=0.2, gt=0)
    temperature: float = Field(default=30.0, gt=0)
    networks: int = Field(default=3, ge=2)
    answer: Literal["mean", "first"] = "mean"

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if any(low >= high for low, high in pairwise((*self.exits, self.tap))):
            raise ValueError(f"exits = {list(self.exits)}: name levels before tap = {self.tap} in rising order")
        if self.pool == "mpfp" and self.compete == "softmax":
            raise ValueError("pool = 'mpfp' takes signed maps: set compete to 'none'")
        return self

    def encoding(self, *taps: int) -> partial[Encoder]:
        """What builds the encoder, with its attention."""
        return self.attended(super().encoding(*taps))

    def pooling(self, lab: Lab) -> Callable[[], nn.Module]:
        """What makes the pooling of class maps, one for all exits."""
        return partial(MPFP, len(lab.classes)) if self.pool == "mpfp" else super().pooling(lab)

    def plan(self, lab: Lab) -> Trained:
        """Classifier, masks, three networks."""
        build = self.classifier(lab, Exits, *self.exits, compete=self.compete, block=self.block)
        classifier = lab.fit("classifier", build)
        rule = partial(
            RefinedArgmax,
            source=partial(ExitMaps),
            maker=partial(Transformed, self.transforms, self.spread) if self.averaging == "random" else self.averaged(),
            merge=self.merge,
            band=self.band,
            steps=(*self.refinement(), *self.glass()),
        )
        pseudo = lab.label("pseudo", classifier, rule)
        peers = partial(
            Peers,
            net=self.network(lab),
            loss=partial(SWV, float(self.omega)),
            masks=("pseudo",),
            relation=partial(KL, self.temperature) if self.relation == "kl" else None,
            relation_weight=self.relation_weight,
            teacher="mean",
            answer=self.answer,
            scale=self.seg_scale,
            count=self.networks,
        )
        return lab.fit("segmenter", peers, masks={"pseudo": pseudo})
