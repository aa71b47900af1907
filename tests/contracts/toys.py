"""The smallest method that keeps the contract, and methods that each break one clause of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from eosin.core.artifact import Trained
from eosin.core.lab import Lab
from eosin.core.learner import Learner, highest_mean
from eosin.core.values import Batch, Clock
from eosin.data.phantom import CLASSES
from eosin.methods.method import Ingredient, Method
from eosin.parts.cams import Averaged
from eosin.parts.pseudo import TagGatedArgmax

# -- learners ------------------------------------------------------------------------------------------------------


class Net(Learner):
    """Two convolutions and a gate; class maps at half the resolution, pooled to tag scores."""

    def __init__(self, classes: int, width: int, share: float, gate: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        if gate:
            self.gate = nn.Conv2d(width, width, 1)
        self.head = nn.Conv2d(width, classes, 1)
        self.share = share

    def features(self, image: Tensor) -> Tensor:
        found: Tensor = self.body(image)
        return self.gated(found) if hasattr(self, "gate") else found

    def gated(self, found: Tensor) -> Tensor:
        return found * (0.5 + self.gate(found).sigmoid())

    def maps(self, image: Tensor) -> Tensor:
        maps: Tensor = self.head(self.features(image))
        return maps.float()

    def scores(self, maps: Tensor) -> Tensor:
        return torch.logit(highest_mean(maps.softmax(1), self.share), eps=1e-4)

    def targets(self, batch: Batch) -> Tensor:
        return batch.tags

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        scores, tags = self.scores(self.maps(batch.image)), self.targets(batch)
        known = ~tags.isnan()
        found = F.binary_cross_entropy_with_logits(scores, torch.where(known, tags, 0.0), reduction="none")
        return {"tags": torch.where(known, found, 0.0).sum() / known.sum().clamp(min=1)}

    def predict(self, image: Tensor) -> Tensor:
        maps = F.interpolate(self.maps(image), size=image.shape[-2:], mode="bilinear", align_corners=False)
        return maps.softmax(1)

    def tag_scores(self, image: Tensor) -> Tensor:
        return self.scores(self.maps(image)).sigmoid()


class NeverLearns(Net):
    """Its weights are not the optimizer's."""

    def groups(self, lr: float) -> list[dict[str, Any]]:
        return [{**group, "lr": 0.0} for group in super().groups(lr)]


class AnswersWithLogits(Net):
    """Answers with what softmax should still be taken of."""

    def predict(self, image: Tensor) -> Tensor:
        return F.interpolate(self.maps(image), size=image.shape[-2:], mode="bilinear", align_corners=False)


class RoundsSizes(Net):
    """Answers at twice the size of its maps, which is that of the image only where it is even."""

    def predict(self, image: Tensor) -> Tensor:
        return F.interpolate(self.maps(image), scale_factor=2, mode="nearest").softmax(1)


class ScoresBeyondOne(Net):
    """Tag scores that are no probabilities."""

    def tag_scores(self, image: Tensor) -> Tensor:
        return 2 * super().tag_scores(image)


class RemembersOutside(Net):
    """Its loss depends on all steps before, by a number that is in no state dict."""

    mean = 0.0

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        (loss,) = super().losses(batch, clock).values()
        self.mean = 0.9 * self.mean + 0.1 * float(loss.detach())
        return {"tags": loss * (1 + self.mean)}


class ExportsAnother(Net):
    """Bright images are treated apart, but not by the exported program, and noise is not bright enough to show it."""

    def predict(self, image: Tensor) -> Tensor:
        maps = super().predict(image)
        if torch.compiler.is_exporting():
            return maps
        bright = (image.mean((1, 2, 3), keepdim=True) > 0.55).float()
        return (maps.log() * (1 - 0.5 * bright)).softmax(1)


class Peeks(Net):
    """Opens training masks by guessing where they lie, and does nothing with them."""

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        for path in _guessed(batch):
            path.read_bytes()
        return super().losses(batch, clock)


class Cheats(Net):
    """Learns from training masks, which it opens by C code: Python's audit does not see that."""

    def targets(self, batch: Batch) -> Tensor:
        masks = [cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) for path in _guessed(batch)]
        return torch.tensor([[float((mask == colour).all(2).mean()) for colour in CLASSES.colours] for mask in masks])


def _guessed(batch: Batch) -> list[Path]:
    data = Path(sys.argv[sys.argv.index("--data") + 1])
    return [data / "masks" / f"{name}.png" for name in batch.ids]


class NoGradient(Net):
    """Its gate is applied, but cut off from the gradient."""

    def gated(self, found: Tensor) -> Tensor:
        return found * (0.5 + self.gate(found).sigmoid()).detach()


class NoEffect(Net):
    """Its gate is computed and thrown away."""

    def gated(self, found: Tensor) -> Tensor:
        return found + 0 * self.gate(found)


class NoPull(Net):
    """A second term that is told, but has no gradient."""

    def __init__(self, classes: int, width: int, share: float, second: bool) -> None:
        super().__init__(classes, width, share)
        self.second = second

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        terms = super().losses(batch, clock)
        return {**terms, "second": terms["tags"].detach()} if self.second else terms


class UnknownIsAbsent(Net):
    """Takes an unknown tag for an absent one."""

    def targets(self, batch: Batch) -> Tensor:
        return batch.tags.nan_to_num(0.0)


class UnknownIsPresent(Net):
    """Takes an unknown tag for a present one."""

    def targets(self, batch: Batch) -> Tensor:
        return batch.tags.nan_to_num(1.0)


class UnknownIsHalf(Net):
    """Takes an unknown tag for a half, but leaves images without any tag alone."""

    def targets(self, batch: Batch) -> Tensor:
        half = batch.tags.nan_to_num(0.5)
        return torch.where(batch.tags.isnan().all(1, keepdim=True), torch.nan, half)


class DividesByKnown(Net):
    """A mean over the known tags of each image, of which there may be none."""

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        scores, known = self.scores(self.maps(batch.image)), ~batch.tags.isnan()
        found = F.binary_cross_entropy_with_logits(scores, batch.tags.nan_to_num(0.0), reduction="none")
        return {"tags": ((found * known).sum(1) / known.sum(1)).mean()}


# -- methods -------------------------------------------------------------------------------------------------------

GATE = Ingredient("gate", "classifier", {"gate": False}, ("gate.",))


class Sound(Method):
    """A classifier with a gate and masks that it draws; keeps the contract."""

    paper: ClassVar[str] = "none"
    steps: ClassVar[tuple[str, ...]] = ("classifier",)
    ingredients: ClassVar[tuple[Ingredient, ...]] = (GATE, Ingredient("views", "pseudo", {"views": 1}))
    learner: ClassVar[type[Net]] = Net

    width: int = Field(default=8, ge=1)
    share: float = Field(default=0.2, gt=0, le=1)
    gate: bool = True
    views: Literal[1, 4, 8] = 4

    def plan(self, lab: Lab) -> Trained:
        trained = lab.fit(
            "classifier",
            partial(self.learner, classes=len(lab.classes), width=self.width, share=self.share, gate=self.gate),
        )
        lab.label("pseudo", trained, partial(TagGatedArgmax, maker=partial(Averaged, views=self.views)))
        return trained


def _with(learner_: type[Net]) -> type[Sound]:
    """The sound method with another learner."""
    return type(f"With{learner_.__name__}", (Sound,), {"learner": learner_, "__module__": __name__})


class DeafSwitch(Sound):
    """An ingredient whose switch changes nothing."""

    ingredients: ClassVar[tuple[Ingredient, ...]] = (Ingredient("views", "pseudo", {"views": 1}),)

    def plan(self, lab: Lab) -> Trained:
        return Sound(width=self.width, share=self.share, gate=self.gate).plan(lab)


class Pull(Sound):
    """An ingredient without weights, a second loss term, that has no gradient."""

    ingredients: ClassVar[tuple[Ingredient, ...]] = (Ingredient("second term", "classifier", {"second": False}),)
    second: bool = True

    def plan(self, lab: Lab) -> Trained:
        return lab.fit(
            "classifier",
            partial(NoPull, classes=len(lab.classes), width=self.width, share=self.share, second=self.second),
        )


class HardCodes(Sound):
    """A number in the plan that no recipe can change; it happens to be the default of an option."""

    def plan(self, lab: Lab) -> Trained:
        return lab.fit("classifier", partial(Net, classes=len(lab.classes), width=8, share=self.share))


class SameName(Sound):
    """Two steps of one name."""

    def plan(self, lab: Lab) -> Trained:
        trained = super().plan(lab)
        lab.label("pseudo", trained, partial(TagGatedArgmax, maker=partial(Averaged)))
        return trained


class TrainsInSecret(Sound):
    """A fit that no recipe can have settings for."""

    steps: ClassVar[tuple[str, ...]] = ()


class IgnoresOption(Sound):
    """An option that no step knows of."""

    warmth: float = 0.5


TOYS: Mapping[str, type[Method]] = {
    "sound": Sound,
    "deaf_switch": DeafSwitch,
    "pull": Pull,
    **{
        kind.__name__: _with(kind)
        for kind in (
            NeverLearns,
            AnswersWithLogits,
            RoundsSizes,
            ScoresBeyondOne,
            RemembersOutside,
            ExportsAnother,
            Peeks,
            Cheats,
            NoGradient,
            NoEffect,
            UnknownIsAbsent,
            UnknownIsPresent,
            UnknownIsHalf,
            DividesByKnown,
        )
    },
}
