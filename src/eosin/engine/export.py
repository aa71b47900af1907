"""What a model folder stores of a learner, the tiles its forms are compared on, and the look of its training images."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eosin.core.errors import WrongUse
from eosin.core.learner import Learner
from eosin.data.dataset import Items
from eosin.data.phantom import PhantomSpec, draw_image
from eosin.predictor.domain import Domain, domain_of, measure
from eosin.slides.image import read_rgb

CALIBRATED, JUDGED, MEASURED = 256, 64, 256  # tiles


class Exported(nn.Module):
    """From uint8 tiles ``[B, tile, tile, 3]`` to probabilities float32 ``[B, K, tile, tile]``."""

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, tiles: Tensor) -> Tensor:
        """Scale to 0..1, put channels first, predict."""
        return self.learner.predict(tiles.permute(0, 3, 1, 2).float() / 255).float()


class TagOdds(nn.Module):
    """From images float32 ``[B, 3, tile, tile]`` in 0..1 to ``[B, 2]``, whose softmax is (absent, present) of one tag.

    Tags are independent of each other, and a softmax over all of them is not: it adds up to 1. So each tag is a model
    of its own with two outputs, the logarithms of ``1 - p`` and of ``p``.
    """

    def __init__(self, learner: Learner, tag: int) -> None:
        super().__init__()
        self.learner, self.tag = learner, tag

    def forward(self, image: Tensor) -> Tensor:
        """Log-probabilities of absent and present; exact also near 0 and 1."""
        present = self.learner.tag_scores(image)[:, self.tag].float()
        return torch.stack([(-present).log1p(), present.log()], 1).clamp(min=-100)


def tag_probabilities(learner: Learner) -> Callable[[Tensor], Tensor]:
    """A learner as a function from uint8 tiles ``[B, tile, tile, 3]`` to tags (absent, present), ``[B, 2, K]``."""

    def run(tiles: Tensor) -> Tensor:
        present = learner.tag_scores(tiles.permute(0, 3, 1, 2).float() / 255).float()
        return torch.stack([1 - present, present], 1)

    return run


def tissue(side: int, count: int = 5) -> Tensor:
    """Drawn tiles that look like H&E, uint8 ``[count, side, side, 3]``; each of another patient, always the same."""
    tiles = [draw_image(PhantomSpec(), (patient, 1), side, side)[0] for patient in range(count)]
    return torch.from_numpy(np.stack(tiles))


def calibration(items: Items, side: int) -> tuple[Tensor, Tensor]:
    """Tiles to calibrate a model on, and tiles of other images to judge it on; always the same.

    Args:
        items: the images, of which every fifth is judged on.
        side: of a tile in pixels; a smaller image is mirrored.

    Returns:
        uint8 ``[N, side, side, 3]``, N about 256 and 64, or as many as the images give.

    Raises:
        WrongUse: if there are fewer than five images.
    """
    if len(items) < 5:
        raise WrongUse(f"{items.folder}: {len(items)} training images are too few to calibrate on; give at least 5")
    chosen = np.unique(np.linspace(0, len(items) - 1, min(len(items), CALIBRATED + JUDGED)).round().astype(int))
    judged = np.arange(len(chosen)) % 5 == 4
    return _cut(items.subset(chosen[~judged]), side, CALIBRATED), _cut(items.subset(chosen[judged]), side, JUDGED)


def training_domain(items: Items, side: int, mpp: float | None) -> Domain | None:
    """Measure what the images a model was trained on look like; always the same.

    Args:
        items: the training images, of which 256 are read, spread evenly over all.
        side: of the square in an image's middle that is measured, in pixels; the whole of a smaller image.
        mpp: micrometres per pixel, or None.

    Returns:
        None if fewer than two of them show tissue.
    """
    chosen = np.unique(np.linspace(0, len(items) - 1, min(len(items), MEASURED)).round().astype(int)).tolist()
    tiles = (_middle(read_rgb(items.path(index)), side) for index in chosen)
    return domain_of(np.concatenate([measure(tile[None]) for tile in tiles]), mpp)


def _middle(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    top, left = (max(0, (length - side) // 2) for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def _cut(items: Items, side: int, count: int) -> Tensor:
    """About ``count`` tiles: as many of each image, but not more than lie side by side in it."""
    rng = np.random.default_rng(0)
    tiles = []
    for index in range(len(items)):
        image = read_rgb(items.path(index))
        short = [max(0, side - length) for length in image.shape[:2]]
        image = np.pad(image, [(0, short[0]), (0, short[1]), (0, 0)], mode="symmetric")
        height, width = image.shape[:2]
        for _ in range(min(math.ceil(count / len(items)), (height // side) * (width // side))):
            top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
            tiles.append(image[top : top + side, left : left + side])
    return torch.from_numpy(np.stack(tiles))
