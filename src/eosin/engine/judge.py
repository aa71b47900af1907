"""How an epoch is judged on the validation split: by masks, by tags alone, or not at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eosin.core.errors import WrongUse
from eosin.core.learner import Learner
from eosin.core.values import FitSpec, Selection
from eosin.data.dataset import Dataset, Items
from eosin.data.module import LabelledView, WeakView
from eosin.engine.device import Device
from eosin.engine.evaluate import Tiling, count_view, of_learner, score_tags
from eosin.engine.loop import Judge
from eosin.metrics.protocols import Protocol
from eosin.metrics.tags import mean_average_precision


def judge_of(
    spec: FitSpec, dataset: Dataset, protocol: Protocol, tiling: Tiling, device: Device
) -> tuple[Selection, Judge]:
    """What selects the epoch, and the function that scores a learner by it.

    Raises:
        WrongUse: if the validation split cannot carry the selection that was asked for.
    """
    has_val = "val" in dataset.splits
    truth = dataset.truth("val") if has_val else None
    if spec.select == "masks" and truth is None:
        raise WrongUse(f"{dataset.folder}: select = 'masks' needs a split 'val' with masks; use auto or tags")
    if spec.select == "tags" and not has_val:
        raise WrongUse(f"{dataset.folder}: select = 'tags' needs a split 'val'; use auto or last")
    if spec.select == "last" or not has_val:
        return "last", _unjudged
    items = dataset.items("val")
    if truth is not None and spec.select != "tags":
        view = LabelledView(items, truth, dataset.classes.ignore, device.team.rank, device.team.world)
        return "masks", _by_masks(view, protocol, tiling, device)
    if _vary(items.tags):
        return "tags", _by_tags(items, tiling, device)
    if spec.select == "tags":
        raise WrongUse(
            f"{dataset.folder}: no class is known to be in one val item and absent from another, "
            "so select = 'tags' cannot choose"
        )
    return "last", _unjudged


def _unjudged(learner: Learner) -> dict[str, float]:
    return {}


def _by_masks(view: LabelledView, protocol: Protocol, tiling: Tiling, device: Device) -> Judge:
    def judge(learner: Learner) -> dict[str, float]:
        counts = count_view(of_learner(learner, device, autocast=True), view, tiling, protocol)
        return {"miou": protocol.miou(device.team.sum(counts))}

    return judge


def _by_tags(items: Items, tiling: Tiling, device: Device) -> Judge:
    share = device.team.share(len(items))
    view = WeakView(items.subset(share), None, 0)

    def judge(learner: Learner) -> dict[str, float]:
        scores = np.zeros(items.tags.shape, np.float32)
        if len(share):
            scores[share] = score_tags(learner, view, tiling, device)
        return {"tag_map": float(mean_average_precision(device.team.sum(scores), items.tags))}

    return judge


def _vary(tags: NDArray[np.float32]) -> bool:
    """Whether some class is known to be present in one item and absent in another."""
    return bool(((tags == 0).any(0) & (tags == 1).any(0)).any())
