"""The smallest learner and data sets that an engine can work with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from eosin.core.classes import Classes, Tissue
from eosin.core.learner import Learner
from eosin.core.values import Batch, Clock
from eosin.data.dataset import Row, write_dataset
from eosin.recipe import Recipe

RED_BLUE = Classes(tissues=(Tissue(name="red", colour=(220, 40, 40)), Tissue(name="blue", colour=(40, 40, 220))))
SIDE = 16


class Toy(Learner):
    """A 1x1 convolution: class maps of single colours, trained by tags, or by a mask if it is named."""

    def __init__(self, classes: int = 2, mask: str = "", poison: float = 0.0) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, classes, 1)
        self.mask = mask
        self.poison = poison

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        maps = self.head(batch.image).float()
        if self.poison and clock.step == 1:
            return {"bad": maps.mean() * float("nan")}
        if self.mask:
            return {"pixels": functional.cross_entropy(maps, batch.masks[self.mask], ignore_index=255)}
        return {"tags": functional.binary_cross_entropy_with_logits(maps.mean((2, 3)), batch.tags)}

    def predict(self, image: Tensor) -> Tensor:
        return self.head(image).float().softmax(1)


class Warming(Toy):
    """A toy with a second head that the first three steps do not use; no batch norm, no dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.late = nn.Conv2d(3, 2, 1)
        self.gradients: list[dict[str, Tensor]] = []

    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        losses = super().losses(batch, clock)
        if clock.step >= 3:
            maps = self.late(batch.image).float()
            losses["late"] = functional.binary_cross_entropy_with_logits(maps.mean((2, 3)), batch.tags)
        return losses

    def after_step(self, clock: Clock) -> None:
        found = {name: p.grad.clone() for name, p in self.named_parameters() if p.grad is not None}
        self.gradients.append(found)


def write_toys(folder: Path, train: int = 12, masks: bool = True, vary: bool = True, seed: int = 0) -> Path:
    """Patches of red, blue or both halves, with one larger test image; masks on all but training items."""
    rng = np.random.default_rng(seed)
    rows = []
    for split, count in (("train", train), ("val", 6), ("test", 4)):
        for i in range(count):
            side = 40 if split == "test" and i == 0 else SIDE
            kind = i % 3 if vary else 2
            mask = np.zeros((side, side), np.uint8)
            mask[:, (0 if kind == 1 else side if kind == 0 else side // 2) :] = 1
            image = np.where(mask[..., None] == 0, [200, 60, 60], [60, 60, 200]) + rng.integers(
                -30, 30, (side, side, 3)
            )
            name = f"{split}_{i}"
            (folder / "images").mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.astype(np.uint8)).save(folder / "images" / f"{name}.png")
            where = ""
            if masks:
                (folder / "masks").mkdir(exist_ok=True)
                Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
                where = f"masks/{name}.png"
            tags = [float((mask == k).any()) for k in (0, 1)]
            rows.append(Row(name, split, f"images/{name}.png", where, patient=f"{split}-{i % 3}", tags=tags))
    write_dataset(folder, name="toys", classes=RED_BLUE, rows=rows, mpp=0.5, licence="CC0", citation="none")
    return folder


def recipe(**fit: Any) -> Recipe:
    """A recipe for two steps called a and b."""
    common = {"batch": 4, "lr": 0.05, "precision": "fp32", "epochs": 2, **fit}
    return Recipe(method="toy", fit=common, data={"tile": SIDE})  # type: ignore[arg-type]


def first_class(image: Tensor) -> Tensor:
    """Probabilities that always say the first class."""
    maps = torch.zeros(image.shape[0], 2, *image.shape[2:])
    maps[:, 0] = 1
    return maps
