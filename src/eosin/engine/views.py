"""What learners show of their inside: the named maps of a few images, kept as numbers for whoever draws them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from eosin.core.learner import Learner
from eosin.core.tiling import blend
from eosin.core.values import Batch
from eosin.data.dataset import Items
from eosin.data.module import LabelledView
from eosin.engine.device import Device
from eosin.engine.evaluate import BATCH, Tiling

VIEWED = 3  # items of a split
SIDE = 256  # of what is kept, the most pixels: a report draws no larger
VIEWING = 1  # raised when what is kept changes
NOTHING = 255  # in an index map


def has_views(build: partial[Any]) -> bool:
    """Whether what is built is a learner that offers views."""
    kind = build.func
    return isinstance(kind, type) and issubclass(kind, Learner) and kind.views is not Learner.views


def worth_a_view(items: Items) -> Items:
    """The items of a split that are looked into: those of the most tissues by their tags, evenly spaced.

    Every run on a data set shows the same ones, so that what methods see of them can be compared.
    """
    told = np.nansum(items.tags, 1)
    richest = np.sort(np.argsort(-told, kind="stable")[: max(VIEWED, np.count_nonzero(told == told.max(initial=0)))])
    return items.subset(richest[np.unique(np.linspace(0, len(richest) - 1, VIEWED).round().astype(int))])


def keep_views(
    learner: Learner, items: Items, tiling: Tiling, device: Device, folder: Path, done: Callable[[], None]
) -> list[str]:
    """Write ``<id>.npz`` for each item that the learner has views of: an array for each, of the image's proportions.

    Images are viewed in tiles that are blended, as they are predicted: what is pooled over an image in training is
    pooled over a tile here.

    Returns:
        The names of the views.

    Raises:
        ValueError: if a view has another shape or type than :meth:`Learner.views` promises.
    """
    classes, names = items.tags.shape[1], []
    for index, image, _ in LabelledView(items, None).stream(0):
        seen = _Seen(learner, device, classes)
        maps = blend(seen, image, tiling.tile, tiling.margin, BATCH).cpu()
        if found := seen.apart(maps):
            names = list(found)
            np.savez_compressed(folder / f"{items.ids[index]}.npz", **found)  # type: ignore[arg-type]
        done()
    return names


class _Seen:
    """A learner's views as one stack of channels, so that tiles can be blended, and the way back."""

    def __init__(self, learner: Learner, device: Device, classes: int) -> None:
        self.learner, self.device, self.classes = learner, device, classes
        self.layout: dict[str, tuple[int, bool]] = {}  # of each view the channels, and whether they are of indices

    @torch.inference_mode()
    def __call__(self, tiles: Tensor) -> Tensor:
        """Views float32 ``[B, C, tile, tile]`` of tiles uint8 ``[B, 3, tile, tile]``."""
        image = self.device.send(Batch(tiles, torch.empty(0))).image.float() / 255
        parts = [image.new_zeros(len(image), 0, *image.shape[2:])]
        for name, view in self.learner.views(image).items():
            indices = view.ndim == 3 and not view.is_floating_point() and view.dtype != torch.bool
            part = self._one_hot(view) if indices else view.float() if view.ndim == 4 else view.float()[:, None]
            if part.ndim != 4 or len(part) != len(image) or (not indices and part.shape[1] not in (1, self.classes)):
                wanted = f"[{len(image)}, {self.classes} or 1, h, w], or without the second if it holds class indices"
                raise ValueError(f"view {name!r} of {type(self.learner).__name__}: {list(view.shape)}, not {wanted}")
            mode = {"mode": "nearest"} if indices else {"mode": "bilinear", "align_corners": False}
            parts.append(part if part.shape[2:] == image.shape[2:] else F.interpolate(part, image.shape[2:], **mode))
            self.layout[name] = part.shape[1], indices
        return torch.cat(parts, dim=1)

    def _one_hot(self, view: Tensor) -> Tensor:
        """Class indices ``[B, h, w]`` as channels ``[B, K + 1, h, w]``; the last is no class."""
        known = torch.where((view >= 0) & (view < self.classes), view.long(), self.classes)
        return F.one_hot(known, self.classes + 1).movedim(-1, 1).float()

    def apart(self, maps: Tensor) -> dict[str, NDArray[Any]]:
        """Each view of a whole image, small: float16 ``[K, h, w]`` or ``[1, h, w]``, or indices uint8 ``[h, w]``."""
        found: dict[str, NDArray[Any]] = {}
        at = 0
        for name, (channels, indices) in self.layout.items():
            part = maps[at : at + channels]
            at += channels
            found[name] = self._indices(part) if indices else _small(part.numpy(), cv2.INTER_AREA).astype(np.float16)
        return found

    def _indices(self, channels: Tensor) -> NDArray[np.uint8]:
        best = channels.argmax(0)
        mask = torch.where(best == self.classes, NOTHING, best).to(torch.uint8).numpy()
        return np.asarray(_small(mask[None], cv2.INTER_NEAREST)[0], np.uint8)


def _small(maps: NDArray[Any], how: int) -> NDArray[Any]:
    """Maps ``[C, H, W]`` whose longer side is at most ``SIDE``."""
    height, width = maps.shape[1:]
    scale = SIDE / max(height, width)
    if scale >= 1:
        return maps
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.stack([cv2.resize(one, size, interpolation=how) for one in maps])
