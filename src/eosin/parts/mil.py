"""Networks that answer for every pixel and learn from bags of them: side decoders, their fusion, a teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eosin.core.learner import Frozen, Learner, Normalise, resized
from eosin.core.values import Batch, Clock

GATES = 10.0  # by what the learning rate of the gates of attention is multiplied, as in classifiers
POSITIVES = "f_w on positives"
COLLAPSED = 0.05, 0.95  # below and above them a map says no more than the image's tag (seen by users of SA-MIL)


class Features(Protocol):
    """An encoder: a module with ``channels`` per tap."""

    channels: list[int]

    def __call__(self, image: Tensor) -> list[Tensor]:
        """Feature maps per tap."""
        ...


class Sides(nn.Module):
    """Side decoders on the taps of an encoder, and their weighted fusion (DWS-MIL, IKD-MIL).

    Of each tap a 1x1 convolution makes one logit a class, which is resized bilinearly (corners aligned) and passes a
    sigmoid, in this order: ``f_i``. They are fused as probabilities, ``f_w = sum_i w_i f_i``. The weights are
    ``softmax(theta)``, with ``theta = log w`` at the beginning, which does not learn unless somebody lets it.

    Args:
        classes: how many maps each side has.
        encoder: makes the encoder.
        names: of the sides, one for each tap; their heads are called so.
        fusion: the weights ``w`` at the beginning, one a side, above 0; they are divided by their sum.
        norm: put a LayerNorm over channels before each convolution, as Swin Transformers do.

    Shapes:
        ``[B, 3, H, W]`` to float32 ``[B, S + 1, classes, H, W]`` in 0..1: S sides, and the fused map last.
    """

    def __init__(
        self,
        classes: int,
        encoder: Callable[[], Features],
        names: Sequence[int],
        fusion: Sequence[float],
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = encoder()
        sides = list(zip(map(str, names), self.encoder.channels, strict=True))
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width) for name, width in sides} if norm else {})
        self.heads = nn.ModuleDict({name: nn.Conv2d(width, classes, 1) for name, width in sides})
        self.theta = nn.Parameter(torch.tensor(fusion).log(), requires_grad=False)

    @property
    def fusion(self) -> Tensor:
        """The weights of the sides, ``[S]``, adding up to 1."""
        return self.theta.softmax(0)

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities of the sides and of their fusion."""
        logits = [
            F.interpolate(self._logits(name, taps).float(), image.shape[-2:], mode="bilinear", align_corners=True)
            for name, taps in zip(self.heads, self.encoder(image), strict=True)
        ]
        with torch.autocast(image.device.type, enabled=False):
            sides = torch.stack(logits, 1).sigmoid()
            fused = (self.fusion.view(-1, 1, 1, 1) * sides).sum(1, keepdim=True)
            return torch.cat([sides, fused], 1)

    def _logits(self, name: str, taps: Tensor) -> Tensor:
        if name in self.norms:
            taps = self.norms[name](taps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        logits: Tensor = self.heads[name](taps)
        return logits


class Mil(Learner):
    """A network of side decoders trained by the tags of whole images.

    Of two classes the second is the positive one, and each side has one map: its probability at each pixel. Of more
    classes each side has one map a class, which tells it from all others; that is our extension of the papers.

    Args:
        classes: K.
        net: makes the network, from a number of maps; ``[B, 3, H, W]`` to ``[B, S + 1, maps, H, W]`` in 0..1.
        loss: makes the loss of bags, ``(maps [B, S + 1, maps, H, W], tags [B, maps])`` to a scalar.
        pool: makes the pooling of a map to the score of its bag, ``[..., H, W]`` to ``[...]``, for ``tag_scores``.
        scale: images are resized by this factor before the network.
        head_rate: by what the learning rate of the side decoders is multiplied.
    """

    def __init__(
        self,
        classes: int,
        net: Callable[[int], Sides],
        loss: Callable[[], nn.Module],
        pool: Callable[[], nn.Module],
        scale: float = 1.0,
        head_rate: float = 1.0,
    ) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.binary = classes == 2
        self.net = net(1 if self.binary else classes)
        self.loss = loss()
        self.pool = pool()
        self.scale = scale
        self.head_rate = head_rate

    def rate(self, name: str) -> float:
        """The gates of attention begin at 0 and learn ten times as fast; the decoders as they are told to."""
        if name.endswith(".gate"):
            return GATES
        return self.head_rate if name.startswith(("net.heads.", "net.norms.")) else 1.0

    def prepared(self, image: Tensor) -> Tensor:
        """Images as the network takes them."""
        return resized(self.normalise(image), self.scale)

    def bags(self, tags: Tensor) -> Tensor:
        """The tags ``[B, maps]`` of those classes that have a map."""
        return tags[:, 1:] if self.binary else tags

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """``bags``: the loss of the maps of all sides and of the fused one."""
        maps, present = self.net(self.prepared(batch.image)), self.bags(batch.tags)
        self.notice(maps, present)
        return {"bags": self.loss(maps, present)}

    def notice(self, maps: Tensor, present: Tensor) -> None:
        """Remember how much of the present classes the fused maps show."""
        there = present == 1
        self.shown = (maps[:, -1].detach().mean((-2, -1)) * there).sum(), there.sum()

    def noticed(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The mean of the fused maps of classes that are present."""
        return {POSITIVES: self.shown}

    def warning(self, means: Mapping[str, float]) -> str | None:
        """A line where maps have become all 1 or all 0: then they only repeat the tag of the image (collapse)."""
        low, high = COLLAPSED
        mean = means.get(POSITIVES, 0.5)
        if low <= mean <= high:
            return None
        return (
            f"maps of present classes are {mean:.3f} on average, outside {low} to {high}: they repeat the image's tag; "
            "lower the learning rate, or give images with less of the class"
        )

    def fused(self, image: Tensor) -> Tensor:
        """The fused maps, float32 ``[B, maps, H, W]`` in 0..1, at the size of the image."""
        maps = self.net(self.prepared(image))[:, -1]
        return F.interpolate(maps, size=image.shape[-2:], mode="bilinear", align_corners=False)

    def predict(self, image: Tensor) -> Tensor:
        """Class probabilities, float32 ``[B, K, H, W]``: ``1 - f_w`` and ``f_w``, or of K maps each over their sum."""
        maps = self.fused(image)
        if self.binary:
            return torch.cat([1 - maps, maps], 1)
        some = maps + 1e-6  # where no class is seen, all are alike
        return some / some.sum(1, keepdim=True)

    def tag_scores(self, image: Tensor) -> Tensor:
        """The score of the bag for each class, ``[B, K]``: the pooled map."""
        maps = self.fused(image)
        scores: Tensor = self.pool(torch.cat([1 - maps, maps], 1) if self.binary else maps)
        return scores

    def views(self, image: Tensor) -> dict[str, Tensor]:
        """The maps of the sides, ``f1`` the finest, and the fused one."""
        *sides, fused = self.net(self.prepared(image)).unbind(1)
        return {**{f"f{number}": side for number, side in enumerate(sides, 1)}, "f_w": fused}


class Fusing(Mil):
    """A trained network of which only the weights of the fusion learn, by the loss of the fused map (IKD-MIL).

    Takes what :class:`Mil` takes. The network begins with the weights of a trained one, and neither its weights nor the
    running means of its norms change.
    """

    def __init__(
        self,
        classes: int,
        net: Callable[[int], Sides],
        loss: Callable[[], nn.Module],
        pool: Callable[[], nn.Module],
        scale: float = 1.0,
        head_rate: float = 1.0,
    ) -> None:
        super().__init__(classes, net, loss, pool, scale, head_rate)
        self.requires_grad_(False)
        self.net.theta.requires_grad_(True)

    def train(self, mode: bool = True) -> Self:
        """Train or not, but for the network."""
        super().train(mode)
        self.net.eval()
        return self

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """``bags``: the loss of the fused map."""
        maps, present = self.net(self.prepared(batch.image)), self.bags(batch.tags)
        self.notice(maps, present)
        return {"bags": self.loss(maps[:, -1:], present)}


class Student(Mil):
    """A network of side decoders that learns the maps of a trained one of its kind (IKD-MIL, Fig. 2).

    It fuses its sides as its teacher does.

    Args:
        classes: K.
        net: as in :class:`Mil`.
        loss: makes the loss of maps and targets, ``(maps, tags, targets [B, S + 1 or 1, maps, H, W])`` to a scalar.
        pool: as in :class:`Mil`.
        scale: as in :class:`Mil`.
        head_rate: as in :class:`Mil`.
        structure: which of the teacher's maps each map learns. ``layers`` (a): each side that of the same depth, the
            fused one the fused one; ``output`` (b): the fused one the fused one, and the sides nothing; ``fusion``
            (c): all of them the fused one.
        mining: makes the loss of the fused map, ``(student, teacher [B, maps, H, W], tags)`` to a scalar; None for
            none.
        alpha: weight of that.
    """

    teacher: Frozen

    def __init__(
        self,
        classes: int,
        net: Callable[[int], Sides],
        loss: Callable[[], nn.Module],
        pool: Callable[[], nn.Module],
        scale: float = 1.0,
        head_rate: float = 1.0,
        structure: Literal["layers", "output", "fusion"] = "fusion",
        mining: Callable[[], nn.Module] | None = None,
        alpha: float = 0.25,
    ) -> None:
        super().__init__(classes, net, loss, pool, scale, head_rate)
        self.structure = structure
        self.mining = None if mining is None else mining()
        self.alpha = alpha

    def taught_by(self, teacher: Learner) -> None:
        """Take in the network of a trained learner, and the weights of its fusion."""
        assert isinstance(teacher, Mil)
        self.teacher = Frozen(teacher.net)
        self.net.theta.data.copy_(teacher.net.theta)

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """``distillation``: the loss of the teacher's maps; with mining also ``mining``, that of the fused one."""
        image, present = self.prepared(batch.image), self.bags(batch.tags)
        taught, maps = self.teacher(image), self.net(image)
        self.notice(maps, present)
        learnt = maps[:, -1:] if self.structure == "output" else maps
        targets = taught if self.structure == "layers" else taught[:, -1:]
        terms = {"distillation": self.loss(learnt, present, targets)}
        if self.mining is not None:
            terms["mining"] = self.alpha * self.mining(maps[:, -1], taught[:, -1], present)
        return terms
