"""OEEM: signed class maps of several stages and scales, and a second stage in which easy pixels weigh more."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat, field_validator
from torch import Tensor, nn
from torch.nn import functional

from eosin.core.artifact import Trained
from eosin.core.lab import Lab
from eosin.core.learner import Learner
from eosin.methods.method import ALIKE, Attentive, Ingredient, Method, SecondStage
from eosin.parts.backbones.encoder import Encoder, pretrained_from
from eosin.parts.backbones.held import as_loaded
from eosin.parts.cams import Averaged
from eosin.parts.classifiers import CamClassifier, Features
from eosin.parts.losses.plf import PLF
from eosin.parts.losses.soft_margin import SoftMargin
from eosin.parts.pooling.gap import GAP
from eosin.parts.pooling.mpfp import MPFP
from eosin.parts.pseudo import TagGatedArgmax
from eosin.parts.segmenters import Net


class Joined(nn.Module):
    """The taps of an encoder as a single one: resized to the size of the first, their channels one after another.

    Args:
        encoder: makes the encoder; its first tap is the finest.

    Shapes:
        ``[B, 3, H, W]`` to a list of one ``[B, sum of channels, h, w]``.
    """

    def __init__(self, encoder: Callable[[], Features]) -> None:
        super().__init__()
        self.encoder = encoder()
        self.channels = [sum(self.encoder.channels)]
        self.strides = self.encoder.strides[:1]

    def forward(self, image: Tensor) -> list[Tensor]:
        """The joined features."""
        first, *others = self.encoder(image)
        size = first.shape[-2:]
        resized = (functional.interpolate(f, size=size, mode="bilinear", align_corners=False) for f in others)
        return [torch.cat([first, *resized], 1)]


class SignedArgmax(TagGatedArgmax):
    """The tag-gated argmax of signed class maps as they are: no ReLU, no softmax, no division by a map's maximum."""

    def maps(self, learner: Learner, image: Tensor) -> Tensor:
        """Signed class maps ``[B, K, H, W]`` of images ``[B, 3, H, W]``."""
        assert isinstance(learner, CamClassifier)
        return self.maker(learner.maps, image)


class Oeem(Attentive, SecondStage, Method):
    """Class maps of joined stages and several scales; pixels that are easy to learn weigh more in the segmenter.

    Idea:
        Pseudo masks hold mistakes. A network learns what is right in them sooner than what is wrong, so a pixel that
        it already predicts as its mask says is probably right: within each image such easy pixels weigh more, anew at
        every step.

    Follows:
        Li et al. 2022: a classifier on the joined features of the last three stages, averaged and classified; maps of
        five scales added up without ReLU and normalisation; absent classes out before the argmax; patches joined on
        their image; cross-entropy weighted by ``N p / sum p`` over the pixels of an image.

    Differs:
        Encoders are those of timm. The maps of overlapping patches are averaged before the argmax, there the masks
        are averaged after it. The segmenter is trained on the patches, without an auxiliary head, and predicts each
        tile once.

    Shapes:
        image ``[B, 3, H, W]``, maps ``[B, K, H/s, W/s]``, tag logits ``[B, K]``, masks and output ``H x W``.
    """

    paper: ClassVar[str] = (
        "Li, Yu, Zou, Xiang, Li: Online easy example mining for weakly-supervised gland segmentation from histology "
        "images, MICCAI 2022"
    )
    steps: ClassVar[tuple[str, ...]] = ("classifier", "segmenter")
    ingredients: ClassVar[tuple[Ingredient, ...]] = (
        Ingredient("joined stages", "classifier", {"taps": (3,)}),
        Ingredient("maps of several scales", "pseudo", {"map_scales": (1.0,)}),
        Ingredient("joined patches", "pseudo", {"merge": False}),
        Ingredient("easy pixels weigh more", "segmenter", {"seg_loss": "ce"}),
    )

    encoder: str = "resnet18"
    taps: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(2, 3, 4), min_length=1)
    stem_pool: bool = True
    output_stride: Literal[8, 16, 32] = 8
    pretrained: str = "none"
    scale: float = Field(default=1.0, gt=0, le=4)
    pool: Literal["gap", "mpfp"] = "gap"
    map_scales: tuple[PositiveFloat, ...] = Field(default=(1.0, 1.25, 1.5, 1.75, 2.0), min_length=1)
    map_views: Literal[1, 2, 4, 8] = 1
    merge: bool = True
    seg_loss: Literal["oeem", "ce"] = "oeem"
    seg_net: Net = "pspnet"
    seg_depth: int = Field(default=3, ge=3, le=5)
    seg_width: int = Field(default=512, ge=4)

    @field_validator("taps")
    @classmethod
    def _rising(cls, taps: tuple[int, ...]) -> tuple[int, ...]:
        if any(low >= high for low, high in pairwise(taps)):
            raise ValueError("name the levels in rising order, each once, e.g. [2, 3, 4]")
        return taps

    def plan(self, lab: Lab) -> Trained:
        """Classifier, masks, segmenter."""
        pretrained = pretrained_from(self.pretrained)
        encoder = partial(Encoder, self.encoder, self.taps, self.output_stride, self.stem_pool, pretrained)
        classes = len(lab.classes)
        pool: Callable[[], nn.Module] = partial(GAP) if self.pool == "gap" else partial(MPFP, classes)
        classifier = lab.fit(
            "classifier",
            partial(
                CamClassifier,
                classes=classes,
                encoder=partial(Joined, as_loaded(self.attended(encoder), self.encoder, self.pretrained)),
                pool=pool,
                loss=partial(SoftMargin),
                scale=self.scale,
            ),
        )
        maker = partial(Averaged, scales=self.map_scales, views=self.map_views)
        pseudo = lab.label("pseudo", classifier, partial(SignedArgmax, maker=maker, merge=self.merge))
        loss = partial(PLF, confidence=False) if self.seg_loss == "oeem" else ALIKE
        return self.segmenter(lab, pseudo, loss=loss)
