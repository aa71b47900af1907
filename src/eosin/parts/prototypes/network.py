"""What LPD and PBIP train: class maps by likeness to prototypes at several stages of an encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from eosin.core.learner import Learner, Normalise, resized
from eosin.core.values import Batch, Clock
from eosin.parts.prototypes.head import PrototypeHead
from eosin.parts.prototypes.maps import averaged
from eosin.parts.prototypes.seen import Fusion, Seen, Stage


class Features(Protocol):
    """An encoder: a module with ``channels`` per tap."""

    channels: list[int]

    def __call__(self, image: Tensor) -> list[Tensor]:
        """Feature maps per tap."""
        ...


class PrototypeNet(Learner):
    """Maps of prototypes at several stages of an encoder, taught by tags and by what they show; it draws by itself.

    At stage ``s`` the map of a prototype is ``g_s`` times its cosine to each pixel, with a scale ``g_s`` that learns;
    a class scores the mean over its prototypes of their pooled maps. In its answer the maps of a class are joined and
    stages are added up, as :class:`Fusion` says.

    Args:
        encoder: makes the encoder; each of its taps is a stage.
        prototypes: makes the prototypes, ``[K, k, width]``: a parameter if they learn, else a tensor.
        pool: makes the pooling of maps, ``[B, C, h, w]`` to ``[B, C]``.
        loss: makes the tag loss, ``(scores [B, K], tags [B, K])`` to a scalar.
        stage_weights: of each stage's tag loss, the last one above 0. A stage that has no weight here nor in the
            fusion is not asked.
        fusion: makes the fusion of stages.
        terms: by name, the weight of a further loss term and what makes it, a module from :class:`Seen` to a scalar.
        warmup: share of the steps before which the tag loss is alone.
        projection: as in :class:`PrototypeHead`.
        scale: images are resized by this factor before the encoder.
    """

    def __init__(
        self,
        encoder: Callable[[], Features],
        prototypes: Callable[[], Tensor],
        pool: Callable[[], nn.Module],
        loss: Callable[[], nn.Module],
        stage_weights: Sequence[float],
        fusion: Callable[[], Fusion],
        terms: Mapping[str, tuple[float, Callable[[], nn.Module]]],
        warmup: float = 0.0,
        projection: Literal["mlp", "linear"] = "mlp",
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.encoder = encoder()
        made = prototypes()
        self.learnt = isinstance(made, nn.Parameter)
        if self.learnt:
            self.prototypes = made
        else:
            self.register_buffer("bank", made)
            self.given = ("bank",)
        self.heads = nn.ModuleList(PrototypeHead(made.shape[2], d, projection) for d in self.encoder.channels)
        self.pool = pool()
        self.loss = loss()
        self.stage_weights = tuple(stage_weights)
        self.fusion = fusion()
        self.weights = {name: weight for name, (weight, _) in terms.items()}
        self.terms = nn.ModuleDict({name: make() for name, (_, make) in terms.items()})
        self.warmup = warmup
        self.scale = scale

    @property
    def known(self) -> Tensor:
        """The prototypes, ``[K, k, width]``."""
        found: Tensor = self.prototypes if self.learnt else self.bank  # type: ignore[assignment]
        return found

    def stages(self, image: Tensor) -> list[Stage]:
        """What prototypes see of images ``[B, 3, H, W]``, at the stages that are asked."""
        taps = self.encoder(resized(self.normalise(image), self.scale))
        asked = zip(taps, self.stage_weights, self.fusion.weights, strict=True)
        return [self._stage(number, tap) for number, (tap, *weights) in enumerate(asked) if any(weights)]

    def _stage(self, number: int, features: Tensor) -> Stage:
        head = self.heads[number]
        cosines, here = head(features, self.known)
        return Stage(number, features, head.scale * cosines, cosines, here)

    def scores(self, stage: Stage) -> Tensor:
        """Tag logits ``[B, K]`` by a stage."""
        pooled: Tensor = self.pool(stage.maps.flatten(1, 2))
        return averaged(pooled.unflatten(1, stage.maps.shape[1:3]))

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """``tags``; after the warm-up also the further terms."""
        stages = self.stages(batch.image)
        weighed = [(stage, self.stage_weights[stage.number]) for stage in stages]
        tags = [weight * self.loss(self.scores(stage), batch.tags) for stage, weight in weighed if weight]
        found = {"tags": torch.stack(tags).sum()}
        if clock.progress >= self.warmup:
            seen = Seen(batch.image, batch.tags, self.known, stages, self.fusion)
            found.update({name: self.weights[name] * term(seen) for name, term in self.terms.items()})
        return found

    def predict(self, image: Tensor) -> Tensor:
        """Class maps as probabilities, resized bilinearly to the image."""
        stages = self.stages(image)
        return self.fusion.probabilities(stages, self.scores(stages[-1]), image.shape[2:])

    def tag_scores(self, image: Tensor) -> Tensor:
        """Probability of each tag by the last stage, ``[B, K]``."""
        return self.scores(self.stages(image)[-1]).sigmoid()

    def views(self, image: Tensor) -> dict[str, Tensor]:
        """The fused signed map of each prototype of a class: view ``u`` has the u-th of every class."""
        stages = self.stages(image)
        return {f"prototype {u + 1}": self.fusion.each(stages, u) for u in range(self.known.shape[1])}
