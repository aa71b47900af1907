"""A small network, its card, and a model folder of it, for tests of the predictor and of what uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eosin.core.classes import Classes, Tissue
from eosin.engine.export import tissue
from eosin.predictor.spec import Card
from eosin.predictor.write import write_model

TILE = 32
CLASSES = Classes(
    tissues=(
        Tissue(name="tumour", colour=(200, 30, 30)),
        Tissue(name="stroma", colour=(30, 160, 60)),
        Tissue(name="white background", colour=(120, 120, 200)),
    )
)


class SmallNet(nn.Module):
    """Down, up and a skip, with the layers that exports trip over: BatchNorm, pooling to a grid, interpolation."""

    def __init__(self, classes: int = len(CLASSES)) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.second = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.context = nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Conv2d(16, 16, 1), nn.Dropout(0.5))
        self.head = nn.Conv2d(24, classes, 1)
        self.register_buffer("mean", torch.tensor([0.7, 0.5, 0.65]).view(1, 3, 1, 1))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 2.0)

    def forward(self, tiles: Tensor) -> Tensor:
        image = tiles.permute(0, 3, 1, 2).float() / 255 - self.mean
        skip = self.first(image)
        deep = self.second(skip)
        deep = deep + F.interpolate(self.context(deep), size=deep.shape[2:], mode="bilinear", align_corners=False)
        # A product with the batch in it, as attention layers have.
        deep = deep.reshape(deep.shape[0] * 2, 8, *deep.shape[2:]).reshape(deep.shape)
        deep = F.interpolate(deep, scale_factor=2, mode="nearest")
        with torch.autocast("cpu", enabled=False):
            return (8 * self.head(torch.cat([skip, deep], 1).float())).softmax(1)


class Brightness(nn.Module):
    """Answers by the pixel alone: dark, middle or bright."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("level", torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1))

    def forward(self, tiles: Tensor) -> Tensor:
        grey = tiles.permute(0, 3, 1, 2).float().mean(1, keepdim=True) / 255
        return (-50 * (grey - self.level) ** 2).softmax(1)


def card(**changes: Any) -> Card:
    values = {
        "classes": CLASSES,
        "tile": TILE,
        "margin": 4,
        "mpp": 0.5,
        "method": "cam",
        "recipe": "0" * 64,
        "selection": "masks",
        "scores": [{"split": "test", "miou": 0.7}],
        "dataset": "phantom",
        "licences": ["CC0-1.0"],
        "eosin": "0.1.0",
    }
    return Card(**(values | changes))


def model_folder(folder: Path, network: nn.Module | None = None, **changes: Any) -> Path:
    return write_model(folder, network or SmallNet(), card(**changes), tissue(TILE))
