"""What training and evaluation see of a data set: a weak view without any path to truth, and a labelled view."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from eosin.core.errors import EosinError
from eosin.core.values import Augment, Batch
from eosin.data import joint
from eosin.data.dataset import Items, Truth
from eosin.slides.image import image_size, read_mask, read_rgb

T = TypeVar("T")
Place = tuple[int, int]  # (epoch, index into the items)
IGNORE = 255  # in every mask that a learner sees, whatever the data set says


@dataclass(frozen=True, slots=True)
class Sample:
    """One item as tensors: image float32 ``[3, H, W]``, tags ``[K]``, masks int64 ``[H, W]``."""

    image: Tensor
    tags: Tensor
    masks: dict[str, Tensor]
    id: str


class WeakView(TorchDataset[Sample]):
    """Training items: images, tags and the masks that a method made itself. It holds no path to a true mask.

    Args:
        items: the training items.
        augment: paired transforms; ``None`` gives the items as they are.
        seed: with epoch and index, decides an item's augmentation.
        masks: where a method's own masks lie, by name.
        ignore: the data set's ignore index; in the samples it is 255, as is what lies outside of the item.
    """

    def __init__(
        self,
        items: Items,
        augment: Augment | None,
        seed: int,
        masks: Mapping[str, Callable[[str], Path]] | None = None,
        ignore: int = IGNORE,
    ) -> None:
        self.items = items
        self.augment = augment
        self.seed = seed
        self.masks = dict(masks or {})
        self.ignore = ignore

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: Place) -> Sample:
        epoch, index = place
        image = read_rgb(self.items.path(index))
        name = str(self.items.ids[index])
        height, width = image.shape[:2]
        classes = self.items.tags.shape[1]
        masks = {
            key: _fitting_mask(path(name), (height, width), classes, self.ignore) for key, path in self.masks.items()
        }
        drawn = joint.Drawn()
        if self.augment is not None:
            rng = np.random.default_rng([self.seed, epoch, index])
            try:
                drawn = joint.draw(self.augment, rng, height, width)
            except ValueError as error:
                raise EosinError(f"{self.items.path(index)}: {error}") from None
        for mask in masks.values():
            mask[mask == self.ignore] = IGNORE
        pixels, moved = joint.apply(image, masks, drawn, IGNORE)
        return Sample(
            torch.from_numpy(pixels).permute(2, 0, 1),
            torch.from_numpy(self.items.tags[index]),
            {key: torch.from_numpy(mask).long() for key, mask in moved.items()},
            name,
        )


class Plan(Sampler[list[Place]]):
    """The whole order of a fit: batches of (epoch, index), derived from the seed alone, so a fit may begin anywhere.

    Args:
        tags: float ``[N, K]`` of all items.
        size: items a batch.
        epochs: passes.
        seed: decides the order.
        limit: items an epoch; 0 takes all.
        sampler: ``uniform``: a permutation; ``balanced``: drawn with replacement, a tag combination in proportion to
            the square root of its share.
        step: where to begin.

    The last batch of an epoch may be smaller; one of a single item is joined to the one before it, since batch
    norms cannot learn from one item.
    """

    def __init__(
        self,
        tags: NDArray[np.float32],
        size: int,
        epochs: int,
        seed: int,
        limit: int = 0,
        sampler: Literal["uniform", "balanced"] = "uniform",
        step: int = 0,
    ) -> None:
        self.count, self.size, self.epochs, self.seed, self.step = len(tags), size, epochs, seed, step
        self.items = min(limit, self.count) if limit else self.count
        self.chances = _balanced(tags) if sampler == "balanced" else None
        self.per_epoch = max(1, -(-self.items // size) - (self.items % size == 1))

    def __len__(self) -> int:
        return self.per_epoch * self.epochs - self.step

    def __iter__(self) -> Iterator[list[Place]]:
        at = -1
        order: NDArray[np.int64] = np.empty(0, np.int64)
        for step in range(self.step, self.per_epoch * self.epochs):
            epoch, batch = divmod(step, self.per_epoch)
            if epoch != at:
                order, at = self.order(epoch), epoch
            stop = self.items if batch == self.per_epoch - 1 else (batch + 1) * self.size
            yield [(epoch, int(i)) for i in order[batch * self.size : stop]]

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The items of an epoch, ``[items]``."""
        rng = np.random.default_rng([self.seed, epoch])
        if self.chances is not None:
            return rng.choice(self.count, self.items, p=self.chances)
        return rng.permutation(self.count)[: self.items]


def _balanced(tags: NDArray[np.float32]) -> NDArray[np.float64]:
    _, group, count = np.unique(np.nan_to_num(tags, nan=2.0), axis=0, return_inverse=True, return_counts=True)
    chances = 1.0 / np.sqrt(count[group.reshape(-1)])
    return np.asarray(chances / chances.sum())


class InOrder(Sampler[list[Place]]):
    """Every item once, in order; a batch holds items of one size only."""

    def __init__(self, items: Items, size: int) -> None:
        self.groups: list[list[Place]] = []
        last = None
        for index in range(len(items)):
            side = image_size(items.path(index))
            if side != last or len(self.groups[-1]) == size:
                self.groups.append([])
            self.groups[-1].append((0, index))
            last = side

    def __iter__(self) -> Iterator[list[Place]]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)


def collate(samples: list[Sample]) -> Batch:
    """Stack samples of one size.

    Raises:
        EosinError: if sizes differ, naming two items.
    """
    first = samples[0]
    for sample in samples[1:]:
        if sample.image.shape != first.image.shape:
            sizes = [f"{s.id} {tuple(s.image.shape[1:])}" for s in (first, sample)]
            raise EosinError(f"training items differ in size ({' and '.join(sizes)}): set fit.augment.crop")
    return Batch(
        torch.stack([s.image for s in samples]),
        torch.stack([s.tags for s in samples]),
        {key: torch.stack([s.masks[key] for s in samples]) for key in first.masks},
        tuple(s.id for s in samples),
    )


def loader(view: WeakView, plan: Sampler[list[Place]], workers: int) -> Iterator[Batch]:
    """The batches of a plan, one loader for all; its own generator keeps the global random state untouched."""
    batches: Iterable[Batch] = DataLoader(
        view,
        batch_sampler=plan,
        num_workers=workers,
        collate_fn=collate,
        generator=torch.Generator(),
        prefetch_factor=4 if workers else None,
    )
    return _plainly(batches)


Labelled = tuple[int, Tensor, Tensor | None]


class LabelledView(TorchDataset[Labelled]):
    """Items to score: image uint8 ``[3, H, W]`` and, where there is one, truth uint8 ``[H, W]``."""

    def __init__(self, items: Items, truth: Truth | None, ignore: int = IGNORE) -> None:
        self.items = items
        self.truth = truth
        self.ignore = ignore
        self.places = range(len(items)) if truth is None else truth.index

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, at: int) -> Labelled:
        index = int(self.places[at])
        image = torch.from_numpy(read_rgb(self.items.path(index))).permute(2, 0, 1)
        if self.truth is None:
            return index, image, None
        classes = self.items.tags.shape[1]
        mask = _fitting_mask(self.truth.path(at), tuple(image.shape[1:]), classes, self.ignore)
        return index, image, torch.from_numpy(mask)

    def stream(self, workers: int) -> Iterator[Labelled]:
        """The items in order, decoded beside the computation."""
        return _plainly(DataLoader(self, batch_size=None, num_workers=workers, generator=torch.Generator()))


def _fitting_mask(path: Path, shape: tuple[int, ...], classes: int, ignore: int) -> NDArray[np.uint8]:
    """Read a mask.

    Raises:
        EosinError: if its size is not ``shape`` or a value is neither a class nor ignored.
    """
    mask = read_mask(path)
    if mask.shape != shape:
        raise EosinError(f"{path}: {mask.shape} px, but its image has {shape}; give a mask of the image's size")
    wrong = mask[(mask >= classes) & (mask != ignore) & (mask != IGNORE)]
    if wrong.size:
        raise EosinError(f"{path}: value {wrong[0]} is neither one of {classes} classes nor ignored; see 'data check'")
    return mask


def _plainly(source: Iterable[T]) -> Iterator[T]:
    """Pass things on; an error from a worker process loses the traceback that torch wraps around its one line."""
    try:
        yield from source
    except EosinError as error:
        last = str(error).strip().splitlines()[-1]
        raise type(error)(last.partition("Error: ")[2] or last) from None


def item_side(items: Items) -> int:
    """The shorter side in pixels of the first item: the size at which a model is trained when nothing is cropped."""
    return min(image_size(items.path(0)))


def batch_size(items: Items, pixels: int) -> int:
    """How many items at a time hold at most ``pixels``, judged by the largest; at least 1 and at most 64."""
    largest = max((math.prod(image_size(items.path(i))) for i in range(len(items))), default=1)
    return max(1, min(64, pixels // largest))
