"""ARML: a classifier whose features are re-activated where they are weak, and three networks that teach each other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor, nn

from eosin.core.artifact import MaskSet, Trained
from eosin.core.lab import Lab
from eosin.core.values import Batch, Clock
from eosin.methods.method import FirstStage, Glass, Ingredient, Method, SecondStage
from eosin.parts.attention.criss_cross import CrissCross
from eosin.parts.attention.reactivation import ReactivationGate
from eosin.parts.cams import GradCam, Mapped, Scaled
from eosin.parts.classifiers import CamClassifier, Features
from eosin.parts.losses.correlation import Correlation
from eosin.parts.losses.kl import KL
from eosin.parts.losses.point_wise import PointWise
from eosin.parts.losses.srm import SRM
from eosin.parts.losses.swv import SWV
from eosin.parts.peers import Peers
from eosin.parts.pseudo import RefinedArgmax
from eosin.parts.segmenters import Net


class Relocalization(nn.Sequential):
    """The activation relocalization scheme (ARS), ``[B, D, h, w]`` to the same.

    Criss-cross attention tells every pixel of its row and its column; then a gate damps features where they are strong
    already. Both begin as nothing: the attention by its gate, the damping because its convolution begins at 0 here.

    Args:
        channels: D.
        attention: ``criss-cross`` or ``none``.
        reactivation: whether features are damped.
    """

    def __init__(self, channels: int, attention: Literal["criss-cross", "none"], reactivation: bool) -> None:
        super().__init__()
        if attention == "criss-cross":
            self.attention = CrissCross(channels)
        if reactivation:
            self.reactivation = ReactivationGate()
            nn.init.zeros_(self.reactivation.conv.weight)


class Relocalized(CamClassifier):
    """A classifier whose last features pass a module, also when maps are drawn, but not in the first epochs.

    The module begins as nothing: maps that are drawn before ``begin`` are those of a plain classifier, and nothing
    jumps at it.

    Args:
        classes: K.
        encoder: makes the encoder; its last tap is refined and classified.
        pool: makes the pooling, ``[B, K, h, w]`` to ``[B, K]``.
        loss: makes the tag loss, ``(scores [B, K], tags [B, K])`` to a scalar.
        ars: makes the module, of D: ``[B, D, h, w]`` to the same.
        begin: the epoch, counted from 0, from which on training uses and trains it.
        compete: as in :class:`CamClassifier`.
        scale: images are resized by this factor before the encoder.
        dropout: share of feature channels dropped before the 1x1 convolution.
        head_rate: by what the learning rate of the 1x1 convolution is multiplied.
        imagenet: as in :class:`CamClassifier`.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what the classifier takes, and the module
        self,
        classes: int,
        encoder: Callable[[], Features],
        pool: Callable[[], nn.Module],
        loss: Callable[[], nn.Module],
        ars: Callable[[int], nn.Module],
        begin: int,
        compete: Literal["softmax", "none"] = "none",
        scale: float = 1.0,
        dropout: float = 0.0,
        head_rate: float = 1.0,
        imagenet: bool = True,
    ) -> None:
        super().__init__(classes, encoder, pool, loss, compete, scale, dropout, head_rate, imagenet)
        self.ars = ars(self.encoder.channels[-1])
        self.begin = begin

    def begins(self) -> dict[str, int]:
        """When the module, if there is anything in it, begins to learn."""
        return {"activation relocalization (ARS)": self.begin} if [*self.ars.parameters()] else {}

    def taps(self, image: Tensor) -> list[Tensor]:
        """Feature maps ``[B, D, h, w]`` at each tap of the encoder, the last one refined."""
        *finer, last = super().taps(image)
        return [*finer, self.ars(last)]

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """``tags``: the tag loss of the pooled maps."""
        if clock.epoch >= self.begin:
            return super().losses(batch, clock)
        plain = super().taps(batch.image)[-1]
        return {"tags": self.loss(self.logits(self.classify(plain)), batch.tags)}


class SignedCam:
    """A classifier's signed class maps, before they compete. Of a pooled mean, Grad-CAM without ReLU is the same."""

    def __call__(self, learner: Mapped, image: Tensor) -> Tensor:
        """Maps ``[B, K, h, w]`` of images ``[B, 3, H, W]``."""
        return learner.maps(image).float()


class Arml(FirstStage, Glass, SecondStage, Method):
    """Maps of re-activated features, and three networks that vote for pixels and compare how images relate.

    Idea:
        A classifier looks at what tells a tissue best and leaves the rest of it out. Where features are strong they
        are damped, so that the weak ones get a say. What is still wrong in the masks, three networks sort out among
        them: where two agree, the third trusts the mask more, and it learns to see the images of a batch in the same
        relations to each other as they do, which single wrong pixels do not change.

    Follows:
        Feng et al. 2024: criss-cross attention and ``f exp(-Conv7x7(mean_c f))`` on the last features (ARS); signed
        maps scaled together; three networks, each with ``0.8`` times the voted cross-entropy (SWV, equation 4) and
        ``0.2`` times distances (30) and angles (60) between images (SRM, equations 6 and 7); one is deployed.

    Differs:
        What the released code does otherwise: attention over the cross, trained, and kept when maps are drawn; three
        networks and not one that is run three times; no further logit for white pixels, which are left out. The table
        on the method's page has every row.

    Shapes:
        image ``[B, 3, H, W]``, features ``[B, D, h, w]``, maps ``[B, K, h, w]``, logits of each network ``[B, K, H,
        W]``, relations ``[B, B]`` and ``[B, B, B]``, masks and output ``H x W``.
    """

    paper: ClassVar[str] = (
        "Feng, Chen, Liu, Liu, Wang, Lan, Pan: Mining gold from the sand: weakly supervised histological tissue "
        "segmentation with activation relocalization and mutual learning, MICCAI 2024"
    )
    steps: ClassVar[tuple[str, ...]] = ("classifier", "segmenter")
    ingredients: ClassVar[tuple[Ingredient, ...]] = (
        Ingredient("criss-cross attention", "classifier", {"attention": "none"}, ("ars.attention.",)),
        Ingredient("reactivation", "classifier", {"reactivation": False}, ("ars.reactivation.",)),
        Ingredient("samples weighted voting (SWV)", "segmenter", {"omega": 1.0}),
        Ingredient("samples relation mining (SRM)", "segmenter", {"relation": "none"}),
    )

    colours: Literal["plain", "imagenet"] = "plain"
    compete: Literal["softmax", "none"] = "none"
    attention: Literal["criss-cross", "none"] = "criss-cross"
    reactivation: bool = True
    ars_begin: int = Field(default=2, ge=0)
    head_rate: PositiveFloat = 1.0
    mask_taps: tuple[Annotated[int, Field(ge=0)], ...] = ()
    networks: int = Field(default=3, ge=1)
    vote_weight: PositiveFloat = 0.8
    omega: Annotated[float, Field(ge=1, allow_inf_nan=False)] | Literal["inf"] = 2.0
    relation: Literal["structure", "point", "kl", "crl", "none"] = "structure"
    relation_weight: PositiveFloat = 0.2
    alpha: float = Field(default=30.0, ge=0)
    beta: float = Field(default=60.0, ge=0)
    temperature: PositiveFloat = 30.0
    seg_net: Net = "pspnet"
    seg_depth: int = Field(default=3, ge=3, le=5)
    seg_width: int = Field(default=512, ge=4)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if any(tap > self.tap for tap in self.mask_taps) or len({*self.mask_taps}) != len(self.mask_taps):
            raise ValueError(f"mask_taps = {list(self.mask_taps)}: name levels up to tap = {self.tap}, each once")
        if self.networks == 1 and not (self.omega == 1 and self.relation == "none"):
            raise ValueError("networks = 1 has no peers: set omega to 1 and relation to 'none', too")
        if self.networks == 2 and self.omega != 1:
            raise ValueError("networks = 2 has one peer, with which none can disagree: set omega to 1")
        if self.relation == "structure" and not (self.alpha or self.beta):
            raise ValueError(
                "alpha and beta are both 0, so that nothing is learnt of relations: set relation to 'none'"
            )
        return self

    def plan(self, lab: Lab) -> Trained:
        """Classifier, masks, three networks of which the first is deployed."""
        levels = sorted({*self.mask_taps, self.tap})
        imagenet = self.colours == "imagenet"
        build = self.classifier(
            lab,
            Relocalized,
            *levels[:-1],
            ars=partial(Relocalization, attention=self.attention, reactivation=self.reactivation),
            begin=self.ars_begin,
            compete=self.compete,
            head_rate=self.head_rate,
            imagenet=imagenet,
        )
        classifier = lab.fit("classifier", build)
        masks = {}
        for tap in self.mask_taps or (self.tap,):
            name = f"pseudo-{tap}" if self.mask_taps else "pseudo"
            graded = partial(GradCam, "mean", tap, levels, signed=True)
            masks[name] = self.drawn(lab, name, classifier, graded if self.mask_taps else partial(SignedCam))
        peers = partial(
            Peers,
            net=self.network(lab),
            loss=partial(SWV, float(self.omega)),
            masks=tuple(masks),
            relation=self.related(),
            loss_weight=self.vote_weight,
            relation_weight=self.relation_weight,
            scale=self.seg_scale,
            count=self.networks,
            imagenet=imagenet,
        )
        return lab.fit("segmenter", peers, masks=masks)

    def drawn(self, lab: Lab, name: str, classifier: Trained, source: Callable[[], Callable[..., Tensor]]) -> MaskSet:
        """Pseudo masks by the maps of one source."""
        rule = partial(
            RefinedArgmax,
            source=source,
            maker=partial(Scaled, self.averaged(), "joint"),
            merge=self.merge,
            band=self.band,
            steps=self.glass(),
        )
        return lab.label(name, classifier, rule)

    def related(self) -> Callable[[], nn.Module] | None:
        """What makes the second loss of the networks."""
        kinds: dict[str, Callable[[], nn.Module] | None] = {
            "structure": partial(SRM, self.alpha, self.beta),
            "point": partial(PointWise),
            "kl": partial(KL, self.temperature),
            "crl": partial(Correlation),
            "none": None,
        }
        return kinds[self.relation]
