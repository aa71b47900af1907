"""Drawing a mask for every training item, where wanted after merging the maps of overlapping items of one image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosin.core.lab import MaskRule
from eosin.core.learner import Learner
from eosin.data.dataset import Items
from eosin.data.module import InOrder, WeakView, batch_size, loader
from eosin.engine.device import Device, workers

Keep = Callable[[str, NDArray[np.uint8]], None]
Has = Callable[[str], bool]
PIXELS = 64 * 224 * 224  # in a batch


@runtime_checkable
class Refining(Protocol):
    """A mask rule that looks at the image again: after merging, before it decides."""

    def refine(self, maps: Tensor, allowed: Tensor, image: Tensor) -> Tensor:
        """Maps ``[B, C, H, W]`` from maps ``[B, K, H, W]``, where each class may be, and images ``[B, 3, H, W]``."""
        ...


def draw_masks(learner: Learner, rule: MaskRule, items: Items, device: Device, keep: Keep, has: Has) -> None:
    """Call ``keep`` with each item's id and mask uint8 ``[H, W]``.

    Items are streamed: at most one batch, or with ``rule.merge`` the items of one parent image, are held at a time.
    An item whose parent or whose place in it is unknown stands alone. A batch or a parent of which ``has`` says that
    every mask is there is passed over; batches are always the same, so that the others come out as they would have.
    """
    placed = (items.parents != "") & (items.xy >= 0).all(1) if rule.merge else np.zeros(len(items), bool)
    for ids, maps, tags, image in _maps(learner, rule, items.subset(~placed), device, has):
        allowed = (tags != 0)[:, :, None, None]
        refined = rule.refine(maps, allowed, image) if isinstance(rule, Refining) else maps
        masks = rule.decide(refined, allowed).cpu().numpy()
        for name, mask in zip(ids, masks, strict=True):
            keep(name, mask)
    for family in _families(items.subset(placed)):
        if not all(has(str(item)) for item in family.ids):
            _merged(learner, rule, family, device, keep)


def _families(items: Items) -> Iterator[Items]:
    """The items of each parent."""
    order = np.argsort(items.parents, kind="stable")
    _, starts = np.unique(items.parents[order], return_index=True)
    for family in np.split(order, starts)[1:]:
        yield items.subset(family)


def _maps(
    learner: Learner, rule: MaskRule, items: Items, device: Device, has: Has = lambda item: False
) -> Iterator[tuple[tuple[str, ...], Tensor, Tensor, Tensor]]:
    """Ids, maps float32 ``[B, K, H, W]``, tags ``[B, K]`` and images, in the order of the items, batch by batch."""
    view = WeakView(items, None, 0)
    batches = InOrder(items, batch_size(items, PIXELS))
    batches.groups = [group for group in batches.groups if not all(has(str(items.ids[i])) for _, i in group)]
    for batch in loader(view, batches, workers(len(view))):
        sent = device.send(batch)
        with torch.inference_mode(), device.autocast():
            maps = rule.maps(learner, sent.image).float()
        yield batch.ids, maps, sent.tags, sent.image


def _merged(learner: Learner, rule: MaskRule, items: Items, device: Device, keep: Keep) -> None:
    """Average the maps where items overlap; a class is allowed at a pixel only if every item over it may hold it."""
    drawn: list[tuple[str, Tensor, Tensor]] = []
    images: list[Tensor] = []
    for ids, batch, known, image in _maps(learner, rule, items, device):
        drawn += zip(ids, batch, known, strict=True)
        images += image if isinstance(rule, Refining) else ()
    xy = items.xy - items.xy.min(0)
    width, height = (xy + [[m.shape[2], m.shape[1]] for _, m, _ in drawn]).max(0)
    classes = drawn[0][1].shape[0]
    total = torch.zeros(classes, height, width, device=drawn[0][1].device)
    count = torch.zeros(height, width, device=total.device)
    allowed = torch.ones(classes, height, width, dtype=torch.bool, device=total.device)
    windows = [
        (slice(y, y + m.shape[1]), slice(x, x + m.shape[2])) for (x, y), (_, m, _) in zip(xy, drawn, strict=True)
    ]
    for (_, maps, tags), (rows, columns) in zip(drawn, windows, strict=True):
        total[:, rows, columns] += maps
        count[rows, columns] += 1
        allowed[:, rows, columns] &= (tags != 0)[:, None, None]
    merged = (total / count.clamp(min=1))[None]
    if isinstance(rule, Refining):
        parent = total.new_zeros(3, height, width)
        for image, (rows, columns) in zip(images, windows, strict=True):
            parent[:, rows, columns] = image
        merged = rule.refine(merged, allowed[None], parent[None])
    mask = rule.decide(merged, allowed[None])[0].cpu().numpy()
    for (name, _, _), (rows, columns) in zip(drawn, windows, strict=True):
        keep(name, np.ascontiguousarray(mask[rows, columns]))
