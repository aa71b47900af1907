"""Drawing a mask for every training item, where wanted after merging the maps of overlapping items of one image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosin.core.lab import MaskRule
from eosin.core.learner import Learner
from eosin.data.dataset import Items
from eosin.data.module import InOrder, WeakView, loader
from eosin.engine.device import Device, workers

Keep = Callable[[str, NDArray[np.uint8]], None]
BATCH = 64


def draw_masks(learner: Learner, rule: MaskRule, items: Items, device: Device, keep: Keep) -> None:
    """Call ``keep`` with each item's id and mask uint8 ``[H, W]``.

    Items are streamed: at most one batch, or with ``rule.merge`` the items of one parent image, are held at a time.
    """
    for group in _groups(items, rule.merge):
        if rule.merge and items.parents[group[0]] != "":
            _merged(learner, rule, items.subset(group), device, keep)
        else:
            for ids, maps, tags in _maps(learner, rule, items.subset(group), device):
                allowed = (tags != 0)[:, :, None, None]
                for name, mask in zip(ids, rule.decide(maps, allowed).cpu().numpy(), strict=True):
                    keep(name, mask)


def _groups(items: Items, merge: bool) -> list[NDArray[np.int64]]:
    """Positions of the items of each parent, or all of them at once."""
    if not merge:
        return [np.arange(len(items))]
    _, group = np.unique(items.parents, return_inverse=True)
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def _maps(
    learner: Learner, rule: MaskRule, items: Items, device: Device
) -> Iterator[tuple[tuple[str, ...], Tensor, Tensor]]:
    view = WeakView(items, None, 0)
    batches: Any = loader(view, InOrder(items, BATCH), workers(len(view)))
    for batch in batches:
        sent = device.send(batch)
        with torch.inference_mode(), device.autocast():
            yield batch.ids, rule.maps(learner, sent.image).float(), sent.tags


def _merged(learner: Learner, rule: MaskRule, items: Items, device: Device, keep: Keep) -> None:
    """Average the maps where items overlap; a class is allowed at a pixel only if every item over it may hold it."""
    drawn = [
        (name, m, t) for ids, maps, tags in _maps(learner, rule, items, device) for name, m, t in zip(ids, maps, tags, strict=True)
    ]
    xy = items.xy - items.xy.min(0)
    width, height = (xy + [[m.shape[2], m.shape[1]] for _, m, _ in drawn]).max(0)
    classes = drawn[0][1].shape[0]
    total = torch.zeros(classes, height, width, device=drawn[0][1].device)
    count = torch.zeros(height, width, device=total.device)
    allowed = torch.ones(classes, height, width, dtype=torch.bool, device=total.device)
    windows = [(slice(y, y + m.shape[1]), slice(x, x + m.shape[2])) for (x, y), (_, m, _) in zip(xy, drawn, strict=True)]
    for (_, maps, tags), (rows, columns) in zip(drawn, windows, strict=True):
        total[:, rows, columns] += maps
        count[rows, columns] += 1
        allowed[:, rows, columns] &= (tags != 0)[:, None, None]
    mask = rule.decide((total / count.clamp(min=1))[None], allowed[None])[0].cpu().numpy()
    for (name, _, _), (rows, columns) in zip(drawn, windows, strict=True):
        keep(name, np.ascontiguousarray(mask[rows, columns]))
