"""TPRO: class maps by likeness to vectors of the classes' names, and what is known of them as further tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, NonNegativeFloat, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from eosin.core.artifact import Trained
from eosin.core.errors import EosinError, WrongUse
from eosin.core.fingerprint import file_digest
from eosin.core.lab import Lab
from eosin.core.learner import Learner, Normalise, resized
from eosin.core.values import Batch, Clock
from eosin.methods.method import Glass, Ingredient, Method, SecondStage, heed_stages
from eosin.parts.attention.knowledge import KnowledgeAttention
from eosin.parts.backbones.encoder import Encoder, WeightFile, pretrained_from
from eosin.parts.backbones.weights import read_weights
from eosin.parts.cams import EPS, Averaged
from eosin.parts.classifiers import Features
from eosin.parts.losses.soft_margin import SoftMargin
from eosin.parts.pooling.gap import GAP
from eosin.parts.pooling.highest import HighestMean
from eosin.parts.prototypes.head import PrototypeHead
from eosin.parts.pseudo import RefinedArgmax
from eosin.parts.segmenters import Net

LABELS, KNOWLEDGE = "labels", "knowledge"  # the entries of a file of texts


def texts_from(source: str) -> WeightFile | None:
    """What a recipe means by ``none`` or the path of a file of texts.

    Raises:
        WrongUse: if there is no such file.
    """
    if source == "none":
        return None
    path = Path(source)
    if not path.is_file():
        raise WrongUse(f"texts = {source!r}: no such file; give the path of one of safetensors, or 'none'")
    return WeightFile(path, file_digest(path))


class Texts:
    """Vectors of the classes' names and of what is known of them: a user's, or random ones that learn.

    A user's are brought to the length ``sqrt(width)``, so that their numbers are about 1, as those of random ones.

    Args:
        classes: K.
        file: holds ``labels`` ``[K, width]`` and, where they are asked for, ``knowledge`` ``[M, any width]``, as any
            text encoder makes them. None: they are learnt.
        width: of vectors that are learnt.
        known: whether there are knowledge tokens.
        tokens: M, of those that are learnt.

    Raises:
        EosinError: if the file has not these vectors.
    """

    def __init__(self, classes: int, file: WeightFile | None, width: int, known: bool, tokens: int) -> None:
        self.labels: Tensor
        self.knowledge: Tensor | None = None
        if file is None:
            self.labels = nn.Parameter(torch.randn(classes, 1, width))
            if known:
                self.knowledge = nn.Parameter(torch.randn(tokens, width))
            return
        stored = read_weights(file.path)
        self.labels = _matrix(stored.get(LABELS), LABELS, file)[:, None]
        if len(self.labels) != classes:
            raise EosinError(f"{file.path}: {len(self.labels)} {LABELS} for {classes} classes; give one for each")
        if known:
            self.knowledge = _matrix(stored.get(KNOWLEDGE), KNOWLEDGE, file)


def _matrix(found: Tensor | None, name: str, file: WeightFile) -> Tensor:
    if found is None or found.ndim != 2 or not found.isfinite().all() or not found.any(1).all():
        raise EosinError(f"{file.path}: has no finite matrix {name!r} without rows of zeros; store one vector a row")
    scaled: Tensor = F.normalize(found.float(), dim=1) * found.shape[1] ** 0.5
    return scaled


class TextPrompted(Learner):
    """Maps by likeness to one vector a class at several stages of an encoder, taught by tags (TPRO).

    At stage ``s`` the map of a class is ``g_s`` times the product of each pixel, of length 1, and the class's vector,
    which an MLP of the stage's own brings there; ``g_s`` learns. The last stage has seen the knowledge tokens before.

    Args:
        classes: K.
        encoder: makes the encoder; each of its taps is a stage.
        texts: makes the vectors.
        pool: makes the pooling of maps, ``[B, K, h, w]`` to ``[B, K]``.
        loss: makes the tag loss, ``(scores [B, K], tags [B, K])`` to a scalar.
        stage_weights: of each stage's tag loss.
        fusion: of each stage's maps.
        projection: ``mlp`` or ``linear``, as in :class:`PrototypeHead`.
        depth: blocks of attention that see the knowledge tokens.
        scale: images are resized by this factor before the encoder.
    """

    labels: Tensor

    def __init__(
        self,
        classes: int,
        encoder: Callable[[], Features],
        texts: Callable[[int], Texts],
        pool: Callable[[], nn.Module],
        loss: Callable[[], nn.Module],
        stage_weights: Sequence[float],
        fusion: Sequence[float],
        projection: Literal["mlp", "linear"] = "mlp",
        depth: int = 2,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.encoder = encoder()
        given = texts(classes)
        if isinstance(given.labels, nn.Parameter):
            self.labels = given.labels
        else:
            self.register_buffer("labels", given.labels)
        known = {"labels": given.labels, "knowledge.knowledge": given.knowledge}
        self.given = tuple(name for name, value in known.items() if value is not None and not value.requires_grad)
        channels = self.encoder.channels
        self.heads = nn.ModuleList(PrototypeHead(given.labels.shape[2], d, projection, "product") for d in channels)
        self.knowledge = None if given.knowledge is None else KnowledgeAttention(given.knowledge, channels[-1], depth)
        self.pool = pool()
        self.loss = loss()
        self.stage_weights, self.fusion = tuple(stage_weights), tuple(fusion)
        self.scale = scale

    def stages(self, image: Tensor) -> list[Tensor]:
        """Signed maps float32 ``[B, K, h, w]`` of each stage."""
        *taps, last = self.encoder(resized(self.normalise(image), self.scale))
        taps = [*taps, last if self.knowledge is None else self.knowledge(last)]
        return [head.scale * head(tap, self.labels)[0][:, :, 0] for head, tap in zip(self.heads, taps, strict=True)]

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """``tags``: the weighted sum of the tag losses of all stages."""
        stages = zip(self.stage_weights, self.stages(batch.image), strict=True)
        each = [weight * self.loss(self.pool(maps), batch.tags) for weight, maps in stages if weight]
        return {"tags": torch.stack(each).sum()}

    def fused(self, stages: Sequence[Tensor]) -> Tensor:
        """The weighted sum of maps of all stages, ``[B, K, h, w]`` at the size of the first."""
        size = stages[0].shape[-2:]
        weighed = zip(self.fusion, stages, strict=True)
        parts = [w * F.interpolate(maps, size=size, mode="bilinear", align_corners=False) for w, maps in weighed if w]
        return torch.stack(parts).sum(0)

    def shown(self, image: Tensor) -> Tensor:
        """Fused maps of what speaks for each class, ``relu(A) / (max relu(A) + 1e-5)`` a stage: ``[B, K, h, w]``."""
        positive = [maps.relu() for maps in self.stages(image)]
        return self.fused([maps / (maps.amax((2, 3), keepdim=True) + EPS) for maps in positive])

    def predict(self, image: Tensor) -> Tensor:
        """Class maps as probabilities: a softmax over the fused signed maps, resized bilinearly to the image."""
        fused = self.fused(self.stages(image))
        return F.interpolate(fused, size=image.shape[-2:], mode="bilinear", align_corners=False).softmax(1)

    def tag_scores(self, image: Tensor) -> Tensor:
        """Probability of each tag by the last stage, ``[B, K]``."""
        scores: Tensor = self.pool(self.stages(image)[-1])
        return scores.sigmoid()

    def views(self, image: Tensor) -> dict[str, Tensor]:
        """The signed maps of each stage."""
        return {f"stage {number}": maps for number, maps in enumerate(self.stages(image), 1)}


class ShownMaps:
    """The fused maps of a classifier of several stages."""

    def __call__(self, learner: TextPrompted, image: Tensor) -> Tensor:
        """Maps ``[B, K, h, w]`` in 0..1 of images ``[B, 3, H, W]``."""
        return learner.shown(image)


class Tpro(Glass, SecondStage, Method):
    """Maps by likeness to vectors of the classes' names and to what is known of them, pseudo masks, segmenter.

    Idea:
        A classifier of tags looks at what tells one class best. What a class is called, and how it is described in
        words, says more: the name's vector is what the pixels of a class are to be like, at fine stages and at coarse
        ones, and descriptions are tokens that the coarsest pixels attend to.

    Follows:
        Zhang et al. 2023: a MiT with a last stride of 1; at each stage products with vectors of the class names, which
        an MLP brings there and a number that learns scales; tag losses of three stages; knowledge tokens in two blocks
        of attention at the last; maps of three stages fused; a second stage with a SegFormer.

    Differs:
        No text encoder is run here: its vectors come in a file of the user's, or are learnt from tags. The background
        is no class that the segmenter predicts, and its encoder has strides up to 32.

    Shapes:
        image ``[B, 3, H, W]``, label vectors ``[K, width]``, knowledge ``[M, any]``, maps of a stage ``[B, K, h, w]``,
        tag logits ``[B, K]``, masks and output ``H x W``.
    """

    paper: ClassVar[str] = (
        "Zhang, Zhang, Xie, Xia: TPRO: text-prompting-based weakly supervised histopathology tissue segmentation, "
        "MICCAI 2023"
    )
    steps: ClassVar[tuple[str, ...]] = ("classifier", "segmenter")
    ingredients: ClassVar[tuple[Ingredient, ...]] = (
        Ingredient("class vectors brought to stages", "classifier", {"projection": "linear"}, ("labels", "heads.")),
        Ingredient("knowledge tokens", "classifier", {"knowledge": False}, ("knowledge.",)),
        Ingredient("maps of several stages", "classifier", {"fusion": (0.0, 0.0, 1.0)}),
        Ingredient("merged overlaps", "pseudo", {"merge": False}),
    )

    encoder: str = "mit_b1"
    taps: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(1, 2, 3), min_length=1)
    output_stride: Literal[8, 16, 32] = 16
    pretrained: str = "none"
    scale: float = Field(default=1.0, gt=0, le=4)
    texts: str = "none"
    width: int = Field(default=512, ge=2)
    knowledge: bool = False
    knowledge_tokens: int = Field(default=16, ge=1)
    knowledge_depth: int = Field(default=2, ge=1)
    projection: Literal["mlp", "linear"] = "mlp"
    pool: Literal["gap", "highest"] = "gap"
    share: float = Field(default=0.1, gt=0, le=1)
    stage_weights: tuple[NonNegativeFloat, ...] = (0.1, 1.0, 1.0)
    fusion: tuple[NonNegativeFloat, ...] = (0.3, 0.3, 0.4)
    map_views: Literal[1, 2, 4, 8] = 2
    merge: bool = True
    band: float = Field(default=0.0, ge=0, lt=1)
    white_size: int = Field(default=80, ge=1)
    seg_net: Net = "segformer"
    seg_encoder: str = "mit_b3"
    seg_width: int = Field(default=256, ge=4)

    @model_validator(mode="after")
    def _a_weight_for_each_stage(self) -> Self:
        heed_stages(self.taps, self.stage_weights, self.fusion)
        return self

    def plan(self, lab: Lab) -> Trained:
        """Classifier, masks, segmenter."""
        encoder = partial(
            Encoder, self.encoder, self.taps, self.output_stride, pretrained=pretrained_from(self.pretrained)
        )
        classifier = lab.fit(
            "classifier",
            partial(
                TextPrompted,
                classes=len(lab.classes),
                encoder=encoder,
                texts=partial(
                    Texts,
                    file=texts_from(self.texts),
                    width=self.width,
                    known=self.knowledge,
                    tokens=self.knowledge_tokens,
                ),
                pool=partial(GAP) if self.pool == "gap" else partial(HighestMean, self.share),
                loss=partial(SoftMargin),
                stage_weights=self.stage_weights,
                fusion=self.fusion,
                projection=self.projection,
                depth=self.knowledge_depth,
                scale=self.scale,
            ),
        )
        rule = partial(
            RefinedArgmax,
            source=partial(ShownMaps),
            maker=partial(Averaged, views=self.map_views),
            merge=self.merge,
            band=self.band,
            steps=self.glass(),
        )
        return self.segmenter(lab, lab.label("pseudo", classifier, rule))
