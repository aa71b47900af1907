"""CAM: the plain two-stage baseline that every method of the field is measured against."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat
from torch import nn

from eosin.core.artifact import Trained
from eosin.core.lab import Lab
from eosin.methods.method import Ingredient, Method
from eosin.parts.backbones.encoder import Encoder, pretrained_from
from eosin.parts.cams import Averaged
from eosin.parts.classifiers import CamClassifier
from eosin.parts.losses.cross_entropy import PixelCrossEntropy
from eosin.parts.losses.soft_margin import SoftMargin, balancing
from eosin.parts.pooling.gap import GAP
from eosin.parts.pooling.highest import HighestMean
from eosin.parts.pseudo import TagGatedArgmax
from eosin.parts.segmenters import Segmenter, UNet


class Cam(Method):
    """Classifier, class activation maps, pseudo masks, segmenter.

    Idea:
        A classifier learns which tissues a patch holds. The maps that it pools into its answer show where. Gated by
        the known tags they become pseudo masks, and a segmenter trained on them draws sharper than its teacher.

    Follows:
        Zhou et al. 2016 for the maps (a 1x1 convolution on the last features, pooled); the tag gate, the argmax over
        present classes and the second stage as every two-stage method of the field has them.

    Differs:
        ``pool = "gap"`` with ``compete = "none"`` is the printed form. The default lets classes compete for each
        pixel and pools the highest share only, since on tissue every pixel has a class. Masks come from maps
        averaged over scales, mirror images and quarter turns.

    Shapes:
        image ``[B, 3, H, W]``, maps ``[B, K, H/s, W/s]``, tag logits ``[B, K]``, masks and output ``H x W``.
    """

    paper: ClassVar[str] = (
        "Zhou, Khosla, Lapedriza, Oliva, Torralba: Learning deep features for discriminative localization, CVPR 2016"
    )
    steps: ClassVar[tuple[str, ...]] = ("classifier", "segmenter")
    ingredients: ClassVar[tuple[Ingredient, ...]] = (
        Ingredient("competition of classes", "classifier", {"compete": "none"}),
        Ingredient("pooling of the highest share", "classifier", {"pool": "gap"}),
        Ingredient("averaged views", "pseudo", {"map_views": 1}),
        Ingredient("merged overlaps", "pseudo", {"merge": False}),
    )

    encoder: str = "resnet18"
    tap: int = Field(default=4, ge=0)
    stem_pool: bool = True
    output_stride: Literal[8, 16, 32] = 32
    pretrained: str = "none"
    scale: float = Field(default=1.0, gt=0, le=4)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    pool: Literal["gap", "highest"] = "highest"
    share: float = Field(default=0.1, gt=0, le=1)
    compete: Literal["softmax", "none"] = "softmax"
    positive: Literal["none", "balanced"] = "none"
    map_scales: tuple[PositiveFloat, ...] = Field(default=(1.0,), min_length=1)
    map_views: Literal[1, 4, 8] = 8
    merge: bool = True
    band: float = Field(default=0.0, ge=0, lt=1)
    seg_encoder: str = "resnet18"
    seg_depth: int = Field(default=5, ge=3, le=5)
    seg_width: int = Field(default=16, ge=4)
    seg_scale: float = Field(default=1.0, gt=0, le=4)
    seg_pretrained: Literal["none", "imagenet"] = "none"

    def plan(self, lab: Lab) -> Trained:
        """Classifier, masks, segmenter."""
        pretrained = pretrained_from(self.pretrained)
        encoder = partial(Encoder, self.encoder, (self.tap,), self.output_stride, self.stem_pool, pretrained)
        pool: Callable[[], nn.Module] = partial(GAP) if self.pool == "gap" else partial(HighestMean, self.share)
        positive = balancing(lab.tag_counts) if self.positive == "balanced" else None
        classifier = lab.fit(
            "classifier",
            partial(
                CamClassifier,
                classes=len(lab.classes),
                encoder=encoder,
                pool=pool,
                loss=partial(SoftMargin, positive=positive),
                compete=self.compete,
                scale=self.scale,
                dropout=self.dropout,
            ),
        )
        maker = partial(Averaged, scales=self.map_scales, views=self.map_views)
        rule = partial(TagGatedArgmax, maker=maker, merge=self.merge, band=self.band)
        pseudo = lab.label("pseudo", classifier, rule)
        net = partial(UNet, len(lab.classes), self.seg_encoder, self.seg_depth, self.seg_width, self.seg_pretrained)
        return lab.fit(
            "segmenter",
            partial(Segmenter, net=net, loss=partial(PixelCrossEntropy), mask="pseudo", scale=self.seg_scale),
            masks={"pseudo": pseudo},
        )
