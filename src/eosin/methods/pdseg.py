"""PDSeg: a transformer that segments from tags, and whose further tokens learn the class of each patch from a CNN."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal, Self, get_args

import torch
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from eosin.core.artifact import Trained
from eosin.core.errors import WrongUse
from eosin.core.lab import Lab
from eosin.core.learner import Learner, Normalise, resized
from eosin.core.values import Batch, Clock
from eosin.methods.method import Ingredient, Method
from eosin.parts.backbones.distilled import DistilledViT, Tokens, in_patches
from eosin.parts.backbones.encoder import Undilated, WeightFile, pretrained_from
from eosin.parts.losses.patch_distillation import PatchDistillation
from eosin.parts.losses.soft_margin import SoftMargin
from eosin.parts.mask_transformer import MaskTransformer
from eosin.parts.pooling.gap import GAP
from eosin.parts.pooling.ngwp import NGWP

Stride = Literal[8, 16, 32]
Token = Literal["none", "global_label", "global_logits", "patch"]
TOKENS: dict[Token, Tokens] = {"none": "none", "global_label": "global", "global_logits": "global", "patch": "patch"}


class Teacher(nn.Module):
    """A ResNet whose late stages keep their resolution without dilation, and three convolutions behind it.

    Args:
        encoder: its name.
        tap: the level of it that the convolutions stand behind; 4 is its last stage.
        pretrained: ``none``, ``imagenet`` or weights on disk.
        stride: of its maps, 8, 16 or 32.
        classes: K.
        width: channels of the convolutions.

    Shapes:
        ``[B, 3, H, W]`` to class maps ``[B, K, H / stride, W / stride]``, rounded up.

    Raises:
        WrongUse: if it is no plain ResNet, has no such stride, or that level of it is finer.
    """

    def __init__(
        self, encoder: str, tap: int, pretrained: str | WeightFile, stride: Stride, classes: int, width: int
    ) -> None:
        super().__init__()
        if stride not in get_args(Stride):
            raise WrongUse(f"the student has patches of {stride} px, a stride that no ResNet has; take 8, 16 or 32 px")
        self.encoder = Undilated(encoder, (tap,), stride, pretrained=pretrained)
        if self.encoder.strides != [stride]:
            raise WrongUse(
                f"teacher_tap = {tap}: {encoder} has stride {self.encoder.strides[0]} there, the student patches of "
                f"{stride} px; tap later, or take a ViT of smaller patches"
            )
        layers: list[nn.Module] = []
        for channels in (self.encoder.channels[-1], width):
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU()]
        self.decoder = nn.Sequential(*layers, nn.Conv2d(width, classes, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Signed class maps."""
        maps: Tensor = self.decoder(self.encoder(image)[-1])
        return maps


class Linear(nn.Module):
    """Scores by a 1x1 convolution, in place of a mask transformer.

    Args:
        channels: D.
        classes: K.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.classify = nn.Conv2d(channels, classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        """``[B, D, h, w]`` to ``[B, K, h, w]``."""
        scores: Tensor = self.classify(features)
        return scores


class Lesson:
    """What distillation tokens learn, and from when on.

    Args:
        token: ``patch``: the teacher's maps; ``global_logits``: the probability of its pooled scores; ``global_label``:
            the tags themselves, without a teacher; ``none``.
        patch_loss: makes the loss of tokens of patches, ``(logits, teacher's maps, tags)`` to a scalar.
        weight: of the loss.
        begin: the epoch, counted from 0, from which on they learn.
    """

    def __init__(self, token: Token, patch_loss: Callable[[], PatchDistillation], weight: float, begin: int) -> None:
        self.token = token
        self.patch_loss = patch_loss()
        self.weight, self.begin = weight, begin

    def of_teacher(self, logits: Tensor, maps: Tensor, pooled: Tensor, tags: Tensor) -> Tensor:
        """The loss against a teacher's maps and their pooled scores, neither of which learn by it.

        Args:
            logits: of the tokens, ``[B, K, h, w]`` or ``[B, K]``.
            maps: of the teacher, ``[B, K, h, w]``.
            pooled: their scores, ``[B, K]``.
            tags: ``[B, K]``, by which the teacher's maps may be gated.
        """
        if self.token == "patch":
            return self.patch_loss(logits, maps, tags)  # type: ignore[no-any-return]
        with torch.autocast(logits.device.type, enabled=False):
            return F.binary_cross_entropy_with_logits(logits.float(), pooled.detach().sigmoid())


class Distilled(Learner):
    """A student that segments and a teacher of it, both trained on tags in one step (PDSeg).

    The student's scores are all that predicts. Its distillation tokens change them by attention alone, and what they
    have learnt is the teacher's.

    Args:
        classes: K.
        student: makes the student, ``[B, 3, H, W]`` to features ``[B, D, h, w]`` and those of its tokens.
        decoder: makes what scores features, of ``(D, K)``: ``[B, D, h, w]`` to ``[B, K, h, w]``.
        pool: makes the pooling of scores and of the teacher's maps, ``[B, K, h, w]`` to ``[B, K]``.
        loss: makes the tag loss, ``(scores [B, K], tags [B, K])`` to a scalar.
        lesson: makes what the tokens learn.
        teacher: makes the teacher, of ``(stride, K)``. None where nothing is learnt of one.
        held: whether the teacher learns no more once the tokens do, and answers as at test.
        imagenet: whether colours are shifted and scaled as for ImageNet.
        scale: images are resized by this factor before both networks.
        mirrored: whether what predicts is the mean of an image's scores and of those of its mirror image.
    """

    revision: ClassVar[int] = 2

    def __init__(  # noqa: PLR0913, PLR0917 - two networks and what each learns
        self,
        classes: int,
        student: Callable[[], DistilledViT],
        decoder: Callable[..., nn.Module],
        pool: Callable[[], nn.Module],
        loss: Callable[[], nn.Module],
        lesson: Callable[[], Lesson],
        teacher: Callable[..., Teacher] | None = None,
        held: bool = False,
        imagenet: bool = False,
        scale: float = 1.0,
        mirrored: bool = False,
    ) -> None:
        super().__init__()
        self.normalise: nn.Module = Normalise() if imagenet else nn.Identity()
        self.student = student()
        self.decoder = decoder(self.student.width, classes)
        self.lesson = lesson()
        self.head = None if self.lesson.token == "none" else nn.Linear(self.student.width, classes)
        self.teacher = None if teacher is None else teacher(stride=self.student.stride, classes=classes)
        self.pool = pool()
        self.loss = loss()
        self.held = held
        self.scale = scale
        self.mirrored = mirrored

    def begins(self) -> dict[str, int]:
        """When the tokens begin to learn of the teacher."""
        return {} if self.teacher is None else {"distillation": self.lesson.begin}

    def prepared(self, image: Tensor) -> Tensor:
        """What both networks are shown of images in 0..1: whole patches."""
        return in_patches(resized(self.normalise(image), self.scale), self.student.stride)

    def seen(self, prepared: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores float32 ``[B, K, h, w]``, and logits of the tokens ``[B, K, h, w]`` or ``[B, K]`` where there are."""
        features, tokens = self.student(prepared)
        scores: Tensor = self.decoder(features).float()
        if tokens is None or self.head is None:
            return scores, None
        return scores, self.head(tokens.movedim(1, -1)).movedim(-1, 1).float()

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """``tags``: of the student; ``teacher``: while it learns; ``tokens``: a teacher's from their epoch on.

        The teacher runs once a step: what it learns the tags by is what the tokens learn.
        """
        prepared = self.prepared(batch.image)
        scores, logits = self.seen(prepared)
        terms = {"tags": self.loss(self.pool(scores), batch.tags)}
        if self.teacher is None:
            if logits is not None:
                terms["tokens"] = self.lesson.weight * self.loss(logits, batch.tags)
            return terms
        late = clock.epoch >= self.lesson.begin
        held = self.held and late
        maps = self.taught(prepared, held)
        pooled = self.pool(maps)
        if not held:
            terms["teacher"] = self.loss(pooled, batch.tags)
        if logits is not None and late:
            terms["tokens"] = self.lesson.weight * self.lesson.of_teacher(logits, maps, pooled, batch.tags)
        return terms

    def taught(self, prepared: Tensor, held: bool) -> Tensor:
        """The teacher's maps float32 ``[B, K, h, w]``."""
        assert self.teacher is not None
        if not held:
            return self.teacher(prepared).float()  # type: ignore[no-any-return]
        with torch.no_grad():
            return self.teacher.eval()(prepared).float()  # type: ignore[no-any-return]

    def predict(self, image: Tensor) -> Tensor:
        """Class probabilities: the scores, resized bilinearly so that each covers its patch, and a softmax."""
        prepared = self.prepared(image)
        scores, _ = self.seen(prepared)
        if self.mirrored:
            scores = (scores + self.seen(prepared.flip(3))[0].flip(3)) / 2
        height, width = image.shape[-2:]
        cell = self.student.stride / self.scale
        reach = [max(side, round(n * cell)) for side, n in zip((height, width), scores.shape[-2:], strict=True)]
        maps = F.interpolate(scores, size=reach, mode="bilinear", align_corners=False)
        return maps[..., :height, :width].softmax(1)

    def tag_scores(self, image: Tensor) -> Tensor:
        """Probability of each tag, ``[B, K]``."""
        pooled: Tensor = self.pool(self.seen(self.prepared(image))[0])
        return pooled.sigmoid()

    def views(self, image: Tensor) -> dict[str, Tensor]:
        """The student's scores, and where the tokens are those of patches, what they say and what the teacher says."""
        prepared = self.prepared(image)
        scores, logits = self.seen(prepared)
        if self.lesson.token != "patch" or self.teacher is None or logits is None:
            return {"scores": scores}
        return {"scores": scores, "tokens": logits.sigmoid(), "teacher": self.teacher(prepared).float().softmax(1)}


class PdSeg(Method):
    """A transformer and a CNN, both pooled to tags; tokens of the transformer learn the CNN's class of each patch.

    Idea:
        A transformer sees a whole image at once and draws blurred masks when all it has is tags; a CNN sees near things
        sharply. So the transformer is given one more token for each patch, and those learn what the CNN says there. The
        tokens of the image attend to them, and the masks are drawn in one stage.

    Follows:
        Li et al. 2025: ViT-S/16 with 196 distillation tokens and the mask transformer of Segmenter; ResNet-101 of
        stride 16 as teacher; both pooled by nGWP and the focal penalty, without a background; the tokens learn half
        the teacher's softmax and half its one-hot (equation 1) from the second epoch on.

    Differs:
        The teacher runs once a step. Its tokens' positions begin small. Synthetic images are not made here. The epoch
        is chosen on the validation split.

    Shapes:
        image ``[B, 3, H, W]``, tokens ``[B, 1 + 2 h w, D]``, scores, logits of tokens and maps of the teacher
        ``[B, K, h, w]`` with ``h = H / 16``, tag scores ``[B, K]``, output ``[B, K, H, W]``.
    """

    paper: ClassVar[str] = (
        "Li, Hsieh, Yang, Chen: PDSeg: patch-wise distillation and controllable image generation for weakly-supervised "
        "histopathology tissue segmentation, ICASSP 2025"
    )
    steps: ClassVar[tuple[str, ...]] = ("segmenter",)
    ingredients: ClassVar[tuple[Ingredient, ...]] = (
        Ingredient("distillation tokens", "segmenter", {"token": "none"}, ("student.tokens", "student.positions")),
        Ingredient("teacher", "segmenter", {"token": "global_label"}, ("teacher.", "head.")),
        Ingredient("one-hot half of the target", "segmenter", {"alpha": 0.0}),
        Ingredient("mask transformer", "segmenter", {"decoder": "linear"}, ("decoder.",)),
        Ingredient("weighted pooling (nGWP)", "segmenter", {"pool": "gap"}),
        Ingredient("focal penalty", "segmenter", {"pool": "ngwp"}),
    )

    encoder: str = "vit_small_patch16_384"
    pretrained: str = "none"
    side: int = Field(default=14, ge=1)
    depth: int = Field(default=0, ge=0)
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    stem: Literal["patch", "conv"] = "patch"
    scale: float = Field(default=1.0, gt=0, le=4)
    colours: Literal["plain", "imagenet"] = "plain"
    mirrored: bool = False
    token: Token = "patch"
    decoder: Literal["mask", "linear"] = "mask"
    decoder_depth: int = Field(default=2, ge=1)
    decoder_dropout: float = Field(default=0.1, ge=0, lt=1)
    decoder_norm: Literal["layer", "scale"] = "layer"
    pool: Literal["gap", "ngwp", "ngwp_focal"] = "ngwp_focal"
    background: bool = False
    teacher: Literal["joint", "frozen"] = "joint"
    teacher_encoder: str = "resnet101"
    teacher_tap: int = Field(default=4, ge=0)
    teacher_pretrained: str = "none"
    teacher_width: int = Field(default=256, ge=1)
    distil_begin: int = Field(default=1, ge=0)
    distil_weight: PositiveFloat = 1.0
    alpha: float = Field(default=0.5, ge=0, le=1)
    gate: bool = False

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.teacher == "frozen" and self.distil_begin == 0:
            raise ValueError("teacher = 'frozen' learns before distil_begin alone: set that to 1 or more")
        if self.teacher == "frozen" and self.token in ("none", "global_label"):
            raise ValueError(f"token = {self.token!r} has no teacher: set teacher to 'joint'")
        if self.gate and self.token != "patch":
            raise ValueError(f"token = {self.token!r} learns of no patches: set gate to false")
        if self.alpha != 0.5 and self.token != "patch":
            raise ValueError(f"token = {self.token!r} learns of no patches: leave alpha at 0.5")
        if self.background and self.pool == "gap":
            raise ValueError("pool = 'gap' knows no background: set background to false, or pool to 'ngwp_focal'")
        return self

    def plan(self, lab: Lab) -> Trained:
        """One fit, in which the tokens begin to learn at an epoch."""
        student = partial(
            DistilledViT,
            self.encoder,
            TOKENS[self.token],
            self.side,
            self.depth,
            self.drop_path,
            self.stem,
            pretrained_from(self.pretrained),
        )
        build = partial(
            Distilled,
            classes=len(lab.classes),
            student=student,
            decoder=self.scoring(),
            pool=self.pooling(),
            loss=partial(SoftMargin),
            lesson=partial(
                Lesson,
                self.token,
                partial(PatchDistillation, self.alpha, self.gate),
                self.distil_weight,
                self.distil_begin,
            ),
            teacher=self.teaching(),
            held=self.teacher == "frozen",
            imagenet=self.colours == "imagenet",
            scale=self.scale,
            mirrored=self.mirrored,
        )
        return lab.fit("segmenter", build)

    def scoring(self) -> Callable[..., nn.Module]:
        """What makes the decoder, of channels and classes."""
        if self.decoder == "linear":
            return partial(Linear)
        return partial(MaskTransformer, depth=self.decoder_depth, dropout=self.decoder_dropout, norm=self.decoder_norm)

    def pooling(self) -> Callable[[], nn.Module]:
        """What makes the pooling, of the student and of the teacher."""
        return partial(GAP) if self.pool == "gap" else partial(NGWP, self.pool == "ngwp_focal", self.background)

    def teaching(self) -> Callable[..., Teacher] | None:
        """What makes the teacher; None where the tokens learn nothing of it."""
        if self.token in ("none", "global_label"):
            return None
        pretrained = pretrained_from(self.teacher_pretrained)
        return partial(Teacher, self.teacher_encoder, self.teacher_tap, pretrained, width=self.teacher_width)
