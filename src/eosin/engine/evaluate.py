"""Predicting and counting a labelled split, during a fit and after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosin.core.learner import Learner
from eosin.core.tiling import blend, origins, stride
from eosin.core.values import Batch
from eosin.data.module import InOrder, LabelledView, WeakView, batch_size, loader
from eosin.engine.device import Device, workers
from eosin.metrics.protocols import Protocol

Predict = Callable[[Tensor], Tensor]
BATCH = 64
TAG_PIXELS = 16 * 256 * 256  # that are scored for tags at a time


@dataclass(frozen=True, slots=True)
class Tiling:
    """How images of any size are predicted: tiles of ``tile`` px whose rim of ``margin`` px is trusted less."""

    tile: int
    margin: int


def predict_view(predict: Predict, view: LabelledView, tiling: Tiling) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    """Predict every item of a view.

    Args:
        predict: uint8 ``[B, 3, tile, tile]`` to probabilities ``[B, K, tile, tile]``.
        view: the items.
        tiling: tile and margin; items of exactly one tile are predicted in batches.

    Yields:
        Index of the item, probabilities float32 ``[K, H, W]``, truth uint8 ``[H, W]`` or None.
    """
    side = (tiling.tile, tiling.tile)
    waiting: list[tuple[int, Tensor, Tensor | None]] = []
    for index, image, truth in view.stream(workers(len(view))):
        if tuple(image.shape[1:]) == side:
            waiting.append((index, image, truth))
            if len(waiting) == BATCH:
                yield from _batch(predict, waiting)
                waiting = []
        else:
            yield index, blend(predict, image, tiling.tile, tiling.margin, BATCH), truth
    if waiting:
        yield from _batch(predict, waiting)


def _batch(
    predict: Predict, waiting: list[tuple[int, Tensor, Tensor | None]]
) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    maps = predict(torch.stack([image for _, image, _ in waiting]))
    for (index, _, truth), probabilities in zip(waiting, maps, strict=True):
        yield index, probabilities, truth


def of_learner(learner: Learner, device: Device, autocast: bool) -> Predict:
    """A learner as a function of uint8 tiles; ``autocast`` runs it in the device's fast precision."""

    @torch.inference_mode()
    def predict(tiles: Tensor) -> Tensor:
        image = device.send(Batch(tiles, torch.empty(0))).image.float() / 255
        if not autocast:
            return learner.predict(image).float()
        with device.autocast():
            return learner.predict(image).float()

    return predict


@dataclass(frozen=True, slots=True)
class Seen:
    """A predicted item: its position, probabilities ``[K, H, W]``, classes uint8 ``[H, W]``, truth likewise or None."""

    index: int
    probabilities: NDArray[np.float32]
    prediction: NDArray[np.uint8]
    truth: NDArray[np.uint8] | None


def predicted(predict: Predict, view: LabelledView, tiling: Tiling, protocol: Protocol) -> Iterator[Seen]:
    """Predict every item of a view and make it ready by a protocol, which is shown truth only if it declares that."""
    for index, maps, mask in predict_view(predict, view, tiling):
        truth = None if mask is None else mask.numpy()
        prediction = protocol.prepare(maps, truth if protocol.uses_truth else None).cpu().numpy()
        yield Seen(index, maps.cpu().numpy(), prediction, truth)


def count_view(predict: Predict, view: LabelledView, tiling: Tiling, protocol: Protocol) -> NDArray[np.int64]:
    """The confusion matrix of all labelled items together, int64 ``[K, K]``, by a protocol."""
    total: NDArray[np.int64] | None = None
    for seen in predicted(predict, view, tiling, protocol):
        if seen.truth is not None:
            counts = protocol.count(seen.prediction, seen.truth)
            total = counts if total is None else total + counts
    nothing = np.zeros((0, 0), np.uint8)
    return protocol.count(nothing, nothing) if total is None else total


def score_tags(learner: Learner, view: WeakView, tiling: Tiling, device: Device) -> NDArray[np.float32]:
    """Tag scores of every item, float32 ``[N, K]`` in 0..1, in the order of the items.

    What is larger than a tile is scored in the tiles that its maps are predicted in, and has the highest score of them.
    """
    learner.eval()
    batch = batch_size(view.items, TAG_PIXELS)
    found = []
    for items in loader(view, InOrder(view.items, batch), workers(len(view))):
        with torch.inference_mode():
            found.append(_highest(learner, device.send(items).image, tiling).float().cpu().numpy())
    return np.concatenate(found)


def _highest(learner: Learner, images: Tensor, tiling: Tiling) -> Tensor:
    """``[B, K]`` of images of one size: of the tiles that cover them, as many at a time as hold ``TAG_PIXELS``."""
    tile, step = tiling.tile, stride(tiling.tile, tiling.margin)
    rows, columns = (origins(length, tile, step) for length in images.shape[2:])
    cut = [images[:, :, y : y + tile, x : x + tile] for y in rows for x in columns]  # views
    most = max(1, TAG_PIXELS // cut[0][:, 0].numel())
    parts = (torch.stack(cut[first : first + most]) for first in range(0, len(cut), most))
    return torch.cat([learner.tag_scores(part.flatten(0, 1)).unflatten(0, part.shape[:2]) for part in parts]).amax(0)
