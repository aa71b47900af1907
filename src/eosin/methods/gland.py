"""The gland method: cascaded attention, multi-scale pooling of signed maps, and a loss that filters pseudo labels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor, nn

from eosin.core.artifact import Trained
from eosin.core.lab import Lab
from eosin.core.learner import resized_masks
from eosin.core.values import Batch, Clock
from eosin.methods.method import ALIKE, Attention, Attentive, FirstStage, Ingredient, Method, SecondStage
from eosin.parts.backbones.encoder import Encoder
from eosin.parts.cams import LinearCam, Scaled, Scaling
from eosin.parts.classifiers import CamClassifier
from eosin.parts.losses.plf import PLF
from eosin.parts.pooling.mpfp import MPFP
from eosin.parts.pseudo import RefinedArgmax
from eosin.parts.segmenters import Net, Segmenter

# poolings that have a pyramid, and how it is scored
PYRAMIDS: dict[str, Literal["products", "mean"]] = {"mpfp": "products", "pyramid": "mean"}


class XavierClassifier(CamClassifier):
    """A classifier whose 1x1 convolution begins as Glorot and Bengio (2010) have it, as the paper prints.

    Scores that are products of maps grow with the square of these weights, which are 2.4 times the usual ones.
    """

    def begin_head(self) -> None:
        """Xavier's weights for the head."""
        nn.init.xavier_uniform_(self.head.weight)


class Pyramidal(XavierClassifier):
    """Such a classifier that shows the pyramid it is pooled by."""

    def views(self, image: Tensor) -> dict[str, Tensor]:
        """The signed maps ``F``, the levels ``P_t`` from coarse to fine, and the map ``P'`` that they are fused to."""
        assert isinstance(self.pool, MPFP)
        maps = self.maps(image)
        levels = {f"P{cells}": level for cells, level in zip(self.pool.scales, self.pool.levels(maps), strict=True)}
        return {"F": maps, **levels, "P'": self.pool.fused(maps)}


class PyramidCam:
    """Class maps weighed by the pyramid that they are pooled by, ``r(P') r(F)``: what speaks for a class."""

    def __call__(self, learner: CamClassifier, image: Tensor) -> Tensor:
        """Maps ``[B, K, h, w]`` of images ``[B, 3, H, W]``."""
        maps = learner.maps(image)
        assert isinstance(learner.pool, MPFP)
        return learner.pool.fused(maps).relu() * maps.relu()


class LateFilter(Segmenter):
    """A segmenter that learns all pixels alike until an epoch, and by its loss from then on.

    Args:
        net: makes the network, ``[B, 3, H, W]`` to logits ``[B, K, H, W]``.
        loss: makes the pixel loss that filters, ``(logits, mask)`` to a scalar.
        mask: which of the batch's masks is learnt.
        scale: as in :class:`Segmenter`.
        begin: the epoch, counted from 0, from which on it filters.
    """

    def __init__(
        self, net: Callable[[], nn.Module], loss: Callable[[], nn.Module], mask: str, scale: float, begin: int
    ) -> None:
        super().__init__(net, loss, mask, scale)
        self.alike = ALIKE()
        self.begin = begin

    def begins(self) -> dict[str, int]:
        """When the loss begins to filter."""
        return {"filtered labels (PLF)": self.begin}

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """``pixels``: the pixel loss against the named mask."""
        logits = self.logits(batch.image)
        loss = self.loss if clock.epoch >= self.begin else self.alike
        return {"pixels": loss(logits, resized_masks(batch.masks[self.mask], logits))}


class Gland(Attentive, FirstStage, SecondStage, Method):
    """Cascaded attention, multi-scale pooling of signed maps, pseudo masks whose doubtful pixels weigh less.

    Idea:
        Glands are round, and the same tissue lies all around: every pixel should know what the others of its image are,
        and a class's score should rise with regions that agree at several scales, not with a few pixels. What is wrong
        in the pseudo masks is what the segmenter learns last and is unsure of, and weighs less.

    Follows:
        Feng et al. 2025: criss-cross, position and criss-cross attention (CCA) behind three stages; scores from
        signed maps times a fused pyramid of them (MPFP, equation 9); maps ``r(F)`` over their maximum (equation 4);
        a PSPNet trained by cross-entropy with the weights of equation 11 (PLF).

    Differs:
        What the released code does otherwise: maps are signed, gates learn, the softmax is over the cross, and the maps
        that draw masks have passed the attention.

    Shapes:
        image ``[B, 3, H, W]``, maps ``[B, K, H/s, W/s]``, the levels of the pyramid likewise, tag logits ``[B, K]``,
        masks and output ``H x W``.
    """

    paper: ClassVar[str] = (
        "Feng, Wang, Han, Liu, Zhang, Lan, Pan: Weakly supervised gland segmentation with class semantic consistency "
        "and purified labels filtration, AAAI 2025"
    )
    steps: ClassVar[tuple[str, ...]] = ("classifier", "segmenter")
    ingredients: ClassVar[tuple[Ingredient, ...]] = (
        Ingredient("cascaded attention (CCA)", "classifier", {"attention": "none"}, ("encoder.net.attention",)),
        Ingredient("multi-scale pooling (MPFP)", "classifier", {"pool": "gap"}, ("pool.",)),
        Ingredient("fused levels", "classifier", {"fusion": "average"}),
        Ingredient("merged overlaps", "pseudo", {"merge": False}),
        Ingredient("filtered labels (PLF)", "segmenter", {"seg_loss": "ce"}),
    )

    attention: Attention = "cca"
    pool: Literal["gap", "highest", "mpfp", "pyramid"] = "mpfp"  # type: ignore[assignment]
    pyramid: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(2, 4, 8, 16), min_length=1)
    fusion: Literal["fused", "average"] = "fused"
    head_rate: PositiveFloat = 1.0
    map_weights: Literal["none", "pyramid"] = "none"
    scaling: Scaling = "class"
    seg_loss: Literal["plf", "oeem", "ce"] = "plf"
    filter_begin: int = Field(default=0, ge=0)
    seg_net: Net = "pspnet"
    seg_depth: int = Field(default=3, ge=3, le=5)
    seg_width: int = Field(default=512, ge=4)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if any(coarse >= fine for coarse, fine in pairwise(self.pyramid)):
            raise ValueError(f"pyramid = {list(self.pyramid)}: cells a side, in rising order, each once")
        if self.map_weights == "pyramid" and self.pool not in PYRAMIDS:
            raise ValueError(f"map_weights = 'pyramid' needs pool = 'mpfp' or 'pyramid': {self.pool!r} has none")
        return self

    def encoding(self, *taps: int) -> partial[Encoder]:
        """What builds the encoder, with its attention."""
        return self.attended(super().encoding(*taps))

    def pooling(self, lab: Lab) -> Callable[[], nn.Module]:
        """What makes the pooling of class maps."""
        if self.pool not in PYRAMIDS:
            return super().pooling(lab)
        return partial(MPFP, len(lab.classes), self.pyramid, self.fusion, PYRAMIDS[self.pool])

    def plan(self, lab: Lab) -> Trained:
        """Classifier, masks, segmenter."""
        kind = Pyramidal if self.pool in PYRAMIDS else XavierClassifier
        classifier = lab.fit("classifier", self.classifier(lab, kind, head_rate=self.head_rate))
        source: Callable[[], Callable[..., Tensor]]
        source = partial(LinearCam) if self.map_weights == "none" else partial(PyramidCam)
        rule = partial(
            RefinedArgmax,
            source=source,
            maker=partial(Scaled, self.averaged(), self.scaling),
            merge=self.merge,
            band=self.band,
        )
        masks = lab.label("pseudo", classifier, rule)
        if self.seg_loss == "ce":
            return self.segmenter(lab, masks)
        loss = partial(PLF, confidence=self.seg_loss == "plf")
        return self.segmenter(lab, masks, loss=loss, kind=partial(LateFilter, begin=self.filter_begin))
