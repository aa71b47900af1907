"""What every method is: frozen settings named by the paper's symbols, and a plan. And what two-stage methods share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, model_validator
from torch import Tensor, nn

from eosin.core.artifact import MaskSet, Trained
from eosin.core.lab import Lab
from eosin.core.learner import Learner
from eosin.parts.attention.cca import CCA
from eosin.parts.attention.criss_cross import CrissCross, CrissCrossTwice
from eosin.parts.backbones.encoder import Encoder, pretrained_from
from eosin.parts.backbones.guide import FrozenGuide
from eosin.parts.backbones.held import as_loaded
from eosin.parts.cams import Averaged
from eosin.parts.losses.bag_cross_entropy import BagCrossEntropy
from eosin.parts.losses.cross_entropy import PixelCrossEntropy
from eosin.parts.losses.dice import BagDice
from eosin.parts.losses.prototype_contrast import PrototypeContrast
from eosin.parts.losses.soft_margin import SoftMargin, balancing
from eosin.parts.mil import Sides
from eosin.parts.pooling.gap import GAP
from eosin.parts.pooling.generalised import GeneralisedMean
from eosin.parts.pooling.highest import HighestMean
from eosin.parts.prototypes.network import PrototypeNet
from eosin.parts.prototypes.refiner import MaskRefiner
from eosin.parts.prototypes.seen import Fusion
from eosin.parts.prototypes.terms import Area
from eosin.parts.refine import DenseCrf, WhitePixels
from eosin.parts.segmenters import NETS, Net, Pyramid, Segmenter, known_encoder

L = TypeVar("L", bound=Learner)
Terms = dict[str, tuple[float, Callable[[], nn.Module]]]  # loss terms by name, each with its weight
Attention = Literal["none", "criss-cross", "criss-cross-twice", "cca"]
ATTENTIONS: Mapping[Attention, Callable[[int], nn.Module]] = {
    "criss-cross": CrissCross,
    "criss-cross-twice": CrissCrossTwice,
    "cca": CCA,
}
STAGES = {3: (4,), 4: (5,), 5: (6,)}  # of ResNet-38, by seg_depth: all have stride 8, so the depth is that of features
ALIKE: Callable[[], nn.Module] = partial(PixelCrossEntropy)  # all pixels weigh the same


@dataclass(frozen=True, slots=True)
class Ingredient:
    """One idea of a method that can be switched off, so that it can be shown to be at work.

    Attributes:
        name: as the paper calls it.
        step: the trained step or the label step that it lives in.
        off: the options that switch it off.
        parameters: how the names of its own weights in that step's learner begin; empty for an idea without weights
            of its own, such as a pooling, a gate, a loss term or a rule.
        on: options that it is tried with, for an idea that acts or not by what a run measures.
    """

    name: str
    step: str
    off: Mapping[str, Any]
    parameters: tuple[str, ...] = ()
    on: Mapping[str, Any] = field(default_factory=dict)


class Method(BaseModel):
    """A published method: its fields are its options, its docstring has the headings Idea, Follows, Differs, Shapes.

    Attributes:
        paper: citation.
        supervision: ``tags`` (image-level labels only) or ``truth`` (an upper bound trained on true masks).
        steps: names of the steps that are trained; each may have settings of its own in a recipe's ``fit``. Where
            ``student`` is trained in rounds, the later ones are called ``student-2``, ``student-3``, and so on.
        ingredients: what the method adds, none for a plain bound. The contract suite shows each to be at work in
            ``<method>-phantom``, where all of them are switched on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    paper: ClassVar[str]
    supervision: ClassVar[Literal["tags", "truth"]] = "tags"
    steps: ClassVar[tuple[str, ...]]
    ingredients: ClassVar[tuple[Ingredient, ...]]

    def rounds_of(self) -> Mapping[str, int]:
        """How often each step is trained with these options; one that is not is left out."""
        return dict.fromkeys(self.steps, 1)

    @abstractmethod
    def plan(self, lab: Lab) -> Trained:
        """The paper's algorithm, step by step; returns what is deployed."""


class FirstStage(BaseModel):
    """Options of a tag classifier whose class maps become pseudo masks, for methods to derive from."""

    encoder: str = "resnet18"
    tap: int = Field(default=4, ge=0)
    stem_pool: bool = True
    output_stride: Literal[8, 16, 32] = 32
    pretrained: str = "none"
    scale: float = Field(default=1.0, gt=0, le=4)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    pool: Literal["gap", "highest"] = "gap"
    share: float = Field(default=0.1, gt=0, le=1)
    positive: Literal["none", "balanced"] = "none"
    map_scales: tuple[PositiveFloat, ...] = Field(default=(1.0,), min_length=1)
    map_views: Literal[1, 2, 4, 8] = 1
    merge: bool = True
    band: float = Field(default=0.0, ge=0, lt=1)

    def classifier(self, lab: Lab, kind: Callable[..., L], *finer: int, **settings: Any) -> partial[L]:
        """What builds the classifier: a learner of ``kind`` with these options and ``settings``.

        Args:
            lab: whose classes and tag counts it is built for.
            kind: takes what ``CamClassifier`` takes.
            finer: taps below the classifier's own that its encoder shows, too.
            settings: what else ``kind`` takes.
        """
        positive = balancing(lab.tag_counts) if self.positive == "balanced" else None
        return partial(
            kind,
            classes=len(lab.classes),
            encoder=as_loaded(self.encoding(*finer, self.tap), self.encoder, self.pretrained),
            pool=self.pooling(lab),
            loss=partial(SoftMargin, positive=positive),
            scale=self.scale,
            dropout=self.dropout,
            **settings,
        )

    def encoding(self, *taps: int) -> partial[Encoder]:
        """What builds the encoder, with these taps."""
        pretrained = pretrained_from(self.pretrained)
        return partial(Encoder, self.encoder, taps, self.output_stride, self.stem_pool, pretrained)

    def pooling(self, lab: Lab) -> Callable[[], nn.Module]:
        """What makes the pooling of class maps."""
        return partial(GAP) if self.pool == "gap" else partial(HighestMean, self.share)

    def averaged(self) -> partial[Averaged]:
        """What makes the maker of maps."""
        return partial(Averaged, scales=self.map_scales, views=self.map_views)


class Attentive(BaseModel):
    """Options of attention behind stages of an encoder, for methods to derive from."""

    attention: Attention = "none"
    attention_at: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None

    def attended(self, encoder: partial[Encoder]) -> partial[Encoder]:
        """What builds an encoder with its attention."""
        if self.attention == "none":
            return encoder
        return partial(encoder, attention=partial(ATTENTIONS[self.attention]), slots=self.attention_at)


class Bags(Attentive):
    """Options of a network of side decoders that learns from bags of pixels (MIL), for methods to derive from.

    The network is the host of IKD-MIL: these options are what the papers' four differ in.
    """

    encoder: str = "vgg16_blocks"
    taps: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0, 1, 2), min_length=1)
    stem_pool: bool = True
    pretrained: str = "none"
    scale: float = Field(default=1.0, gt=0, le=4)
    attention_at: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0, 1, 2), min_length=1)
    side_norm: bool = False
    fusion: tuple[PositiveFloat, ...] = (0.3, 0.3, 0.4)
    bag_loss: Literal["dice", "gm"] = "dice"
    r: PositiveFloat = 4.0
    head_rate: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _one_weight_a_side(self) -> Self:
        if len(self.fusion) != len(self.taps):
            raise ValueError(f"fusion = {list(self.fusion)}: give a weight for each of taps = {list(self.taps)}")
        return self

    def network(self, lab: Lab, kind: Callable[..., L], **settings: Any) -> partial[L]:
        """What builds a learner of ``kind``, which takes what ``Mil`` takes, with these options and ``settings``."""
        pretrained, pool = pretrained_from(self.pretrained), partial(GeneralisedMean, self.r)
        encoder = partial(Encoder, self.encoder, self.taps, stem_pool=self.stem_pool, pretrained=pretrained)
        sides = partial(Sides, encoder=self.attended(encoder), names=self.taps, fusion=self.fusion, norm=self.side_norm)
        loss = partial(BagDice) if self.bag_loss == "dice" else partial(BagCrossEntropy, pool)
        built = {"loss": loss, "pool": pool, "scale": self.scale, "head_rate": self.head_rate, **settings}
        return partial(kind, classes=len(lab.classes), net=sides, **built)


class SecondStage(BaseModel):
    """Options of the segmenter that is trained on pseudo masks and deployed, for methods to derive from."""

    seg_net: Net = "unet"
    seg_encoder: str = "resnet18"
    seg_depth: int = Field(default=5, ge=3, le=5)
    seg_width: int = Field(default=16, ge=4)
    seg_scale: float = Field(default=1.0, gt=0, le=4)
    seg_pretrained: str = "none"

    @model_validator(mode="after")
    def _encoder_of_the_segmenter(self) -> Self:
        """Refused here, since the network is made when the masks are."""
        if self.seg_encoder != "resnet38":
            known_encoder(self.seg_encoder)
        elif self.seg_net != "pspnet":
            raise ValueError(f"seg_encoder = 'resnet38' goes with seg_net = 'pspnet', not {self.seg_net!r}")
        return self

    def segmenter(
        self,
        lab: Lab,
        masks: MaskSet,
        name: str = "pseudo",
        loss: Callable[[], nn.Module] = ALIKE,
        kind: Callable[..., Segmenter] = Segmenter,
    ) -> Trained:
        """Train it.

        Args:
            lab: whose classes it is built for.
            masks: what it learns.
            name: what they are called.
            loss: makes the pixel loss, ``(logits, mask)`` to a scalar.
            kind: the learner.
        """
        build = partial(kind, net=self.network(lab), loss=loss, mask=name, scale=self.seg_scale)
        return lab.fit("segmenter", build, masks={name: masks})

    def network(self, lab: Lab) -> Callable[[], nn.Module]:
        """What makes its network."""
        pretrained = pretrained_from(self.seg_pretrained)
        if self.seg_encoder != "resnet38":
            net = NETS[self.seg_net]
            return partial(net, len(lab.classes), self.seg_encoder, self.seg_depth, self.seg_width, pretrained)
        encoder = partial(Encoder, self.seg_encoder, STAGES[self.seg_depth], pretrained=pretrained)
        return partial(Pyramid, encoder, len(lab.classes), self.seg_width)


class Glass(BaseModel):
    """Options of leaving out of pseudo masks what is white, which is glass, for methods to derive from."""

    white: float = Field(default=0.0, ge=0, lt=255)
    white_size: int = Field(default=50, ge=1)

    def glass(self) -> tuple[partial[WhitePixels], ...]:
        """What makes the step that does: one or none."""
        return (partial(WhitePixels, self.white, self.white_size),) if self.white else ()


class Crf(BaseModel):
    """Options of a dense CRF between class maps and pseudo masks, for methods to derive from."""

    refine: Literal["none", "crf"] = "none"
    crf_smooth: tuple[PositiveFloat, NonNegativeFloat] = (3.0, 30.0)
    crf_edges: tuple[PositiveFloat, PositiveFloat, NonNegativeFloat] = (10.0, 20.0, 50.0)
    crf_steps: int = Field(default=5, ge=1)
    crf_scale: float = Field(default=1.0, gt=0, le=1)

    def refinement(self) -> tuple[partial[DenseCrf], ...]:
        """What makes the steps of refinement: the CRF or none."""
        crf = partial(DenseCrf, self.crf_smooth, self.crf_edges, self.crf_steps, self.crf_scale)
        return (crf,) if self.refine == "crf" else ()


def heed_stages(taps: Sequence[int], stage_weights: Sequence[float], fusion: Sequence[float]) -> None:
    """See that each stage has a weight in the tag loss and in the fusion, and the last one a say.

    Raises:
        ValueError: if not.
    """
    if not len(taps) == len(stage_weights) == len(fusion):
        told = f"taps {taps}, stage_weights {stage_weights}, fusion {fusion}"
        raise ValueError(f"{told}: give each stage a weight in both")
    if not stage_weights[-1] or not any(fusion):
        raise ValueError("the last of stage_weights and one of fusion must be above 0: tags and answer need them")


class Prototypical(BaseModel):
    """Options of a network that draws by likeness to prototypes at several stages, for methods to derive from."""

    encoder: str = "mit_b1"
    taps: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0, 1, 2, 3), min_length=1)
    output_stride: Literal[8, 16, 32] = 16
    pretrained: str = "none"
    scale: float = Field(default=1.0, gt=0, le=4)
    per_class: int = Field(default=10, ge=1)
    width: int = Field(default=512, ge=2)
    projection: Literal["mlp", "linear"] = "mlp"
    pool: Literal["gap", "highest"] = "gap"
    share: float = Field(default=0.1, gt=0, le=1)
    stage_weights: tuple[NonNegativeFloat, ...] = (0.0, 0.1, 1.0, 1.0)
    fusion: tuple[NonNegativeFloat, ...] = (0.0, 0.3, 0.3, 0.4)
    merge: Literal["softmax", "mean"] = "softmax"
    gate: Literal["none", "predicted"] = "none"
    warmup: float = Field(default=0.0, ge=0, lt=1)
    contrast_weight: NonNegativeFloat = 0.1
    area_weight: NonNegativeFloat = 5e-5
    temperature: PositiveFloat = 0.07
    pairs: int = Field(default=16, ge=0)
    negatives: Literal["others", "all"] = "others"
    guide: Literal["own", "encoder"] = "own"
    guide_encoder: str = "swin_tiny_patch4_window7_224"
    guide_pretrained: str = "none"

    @model_validator(mode="after")
    def _a_weight_for_each_stage(self) -> Self:
        heed_stages(self.taps, self.stage_weights, self.fusion)
        return self

    def backbone(self) -> partial[Encoder]:
        """What builds the encoder."""
        pretrained = pretrained_from(self.pretrained)
        return partial(Encoder, self.encoder, self.taps, self.output_stride, pretrained=pretrained)

    def guiding(self) -> partial[FrozenGuide]:
        """What builds the encoder that never learns."""
        return partial(FrozenGuide, self.guide_encoder, self.width, pretrained_from(self.guide_pretrained))

    def network(
        self, prototypes: Callable[[], Tensor], contrast: partial[PrototypeContrast], more: Terms | None = None
    ) -> partial[PrototypeNet]:
        """What builds the network.

        Args:
            prototypes: makes them.
            contrast: makes the loss of the mask refiner.
            more: further loss terms by name, each with its weight; those without one are left out.
        """
        guide = self.guiding() if self.guide == "encoder" else None
        refiner = partial(MaskRefiner, contrast, guide, self.pairs, self.negatives)
        terms: Terms = {"contrast": (self.contrast_weight, refiner), **(more or {})}
        terms["area"] = (self.area_weight, partial(Area))
        return partial(
            PrototypeNet,
            encoder=self.backbone(),
            prototypes=prototypes,
            pool=partial(GAP) if self.pool == "gap" else partial(HighestMean, self.share),
            loss=partial(SoftMargin),
            stage_weights=self.stage_weights,
            fusion=partial(Fusion, self.fusion, self.merge, self.gate),
            terms={name: term for name, term in terms.items() if term[0]},
            warmup=self.warmup,
            projection=self.projection,
            scale=self.scale,
        )
