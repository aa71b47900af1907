"""What training and evaluation see of a data set: a weak view without any path to truth, and a labelled view."""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from eosin.core.errors import EosinError
from eosin.core.values import Augment, Batch, Sampling
from eosin.data import joint
from eosin.data.dataset import Items, Truth
from eosin.slides.image import image_size, read_mask, read_rgb

T = TypeVar("T")
Place = tuple[int, int]  # (epoch, index into the items)
IGNORE = 255  # in every mask that a learner sees, whatever the data set says
_COMPARED = 10**7  # pairs of tag combinations at a time


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
            the square root of its share. An item with unknown tags counts as the combinations that agree with
            its known tags and know more, by how common each is, and its chance is the mean of theirs. ``even``: drawn
            with replacement, with the last class and without it equally often; an item of which that is unknown has
            the chance that it has in an order of all items.
        step: where to begin.
        rank: which of ``world`` processes this is for.
        world: how many processes share a batch.

    The last batch of an epoch may be smaller; one that leaves a process a single item is joined to the one before it,
    since batch norms cannot learn from one item.
    """

    def __init__(
        self,
        tags: NDArray[np.float32],
        size: int,
        epochs: int,
        seed: int,
        limit: int = 0,
        sampler: Sampling = "uniform",
        step: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.count, self.size, self.epochs, self.seed, self.step = len(tags), size, epochs, seed, step
        self.rank, self.world = rank, world
        self.items = min(limit, self.count) if limit else self.count
        self.chances = _CHANCES[sampler](tags) if sampler in _CHANCES else None
        self.per_epoch = max(1, -(-self.items // size) - (0 < self.items % size < 2 * world))
        self.steps = self.per_epoch * epochs
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))  # of the epoch asked for last

    def __len__(self) -> int:
        return self.steps - self.step

    def __iter__(self) -> Iterator[list[Place]]:
        for step in range(self.step, self.steps):
            yield self.batch(step)[self.rank :: self.world]

    def batch(self, step: int) -> list[Place]:
        """The whole batch of a step, of all processes together."""
        epoch, number = divmod(step, self.per_epoch)
        if epoch != self._order[0]:
            self._order = epoch, self.order(epoch)
        start = number * self.size
        return [(epoch, int(i)) for i in self._order[1][start : start + self.images(step)]]

    def images(self, step: int) -> int:
        """How many items the whole batch of a step has."""
        number = step % self.per_epoch
        return self.items - number * self.size if number == self.per_epoch - 1 else self.size

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The items of an epoch, ``[items]``."""
        rng = np.random.default_rng([self.seed, epoch])
        if self.chances is not None:
            return rng.choice(self.count, self.items, p=self.chances)
        return rng.permutation(self.count)[: self.items]


def _balanced(tags: NDArray[np.float32]) -> NDArray[np.float64]:
    kinds, group, count = np.unique(np.nan_to_num(tags, nan=2.0), axis=0, return_inverse=True, return_counts=True)
    size = count.astype(np.float64)
    vague, exact = _completions(kinds)
    # How probably a combination with unknown tags is each of those that it may be: by how common these are
    share = size[exact] / np.bincount(vague, size[exact], len(kinds))[vague]
    size += np.bincount(exact, share * size[vague], len(kinds))
    drawn = 1.0 / np.sqrt(size)
    drawn[vague] = np.bincount(vague, share * drawn[exact], len(kinds))[vague]
    chances = drawn[group.reshape(-1)]
    return np.asarray(chances / chances.sum())


def _completions(kinds: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of tag combinations: one with unknown tags, and each that it may be, as int64 ``[M]`` twice.

    It may be every one that agrees with its known tags and knows more, unless yet another one knows more than that.

    Args:
        kinds: distinct combinations ``[P, K]``: 1 present, 0 absent, 2 unknown.
    """
    told = np.hstack([kinds == 1, kinds == 0]).astype(np.float32)
    known = told.sum(1)
    unsure = np.flatnonzero(known < kinds.shape[1])
    pairs = [np.empty((0, 2), np.int64)]
    for part in np.array_split(unsure, 1 + len(unsure) * len(kinds) // _COMPARED):
        found = np.argwhere(told[part] @ told.T == known[part, None])
        pairs.append(np.column_stack([part[found[:, 0]], found[:, 1]]))
    vague, exact = np.concatenate(pairs).T
    more = known[exact] > known[vague]
    last = np.ones(len(kinds), bool)
    last[vague[more]] = False
    kept = more & last[exact]
    return vague[kept], exact[kept]


def _even(tags: NDArray[np.float32]) -> NDArray[np.float64]:
    """Half of the items whose last tag is known hold that class. Where all do, or none, items are alike."""
    last = tags[:, -1]
    chances = np.full(len(tags), 1 / len(tags))
    holds, lacks = last == 1, last == 0
    if holds.any() and lacks.any():
        known = (holds.sum() + lacks.sum()) / len(tags)
        chances[holds], chances[lacks] = known / 2 / holds.sum(), known / 2 / lacks.sum()
    return chances


_CHANCES: Mapping[str, Callable[[NDArray[np.float32]], NDArray[np.float64]]] = {"balanced": _balanced, "even": _even}


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
        worker_init_fn=_deaf,
    )
    return _plainly(batches)


Labelled = tuple[int, Tensor, Tensor | None]


class LabelledView(TorchDataset[Labelled]):
    """Items to score: image uint8 ``[3, H, W]`` and, where there is one, truth uint8 ``[H, W]``.

    Args:
        items: of a split.
        truth: their masks; items without one are left out, unless there is none at all.
        ignore: the data set's ignore index.
        rank: which of ``world`` processes this is for; each item is seen by just one of them.
        world: how many processes share the items.
    """

    def __init__(self, items: Items, truth: Truth | None, ignore: int = IGNORE, rank: int = 0, world: int = 1) -> None:
        self.items = items
        self.truth = truth
        self.ignore = ignore
        self.places = range(rank, len(items) if truth is None else len(truth), world)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, at: int) -> Labelled:
        place = self.places[at]
        index = place if self.truth is None else int(self.truth.index[place])
        image = torch.from_numpy(read_rgb(self.items.path(index))).permute(2, 0, 1)
        if self.truth is None:
            return index, image, None
        classes = self.items.tags.shape[1]
        mask = _fitting_mask(self.truth.path(place), tuple(image.shape[1:]), classes, self.ignore)
        return index, image, torch.from_numpy(mask)

    def stream(self, workers: int) -> Iterator[Labelled]:
        """The items in order, decoded beside the computation."""
        plain = DataLoader(
            self, batch_size=None, num_workers=workers, generator=torch.Generator(), worker_init_fn=_deaf
        )
        return _plainly(plain)


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


def _deaf(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the first one decides when its workers end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _plainly(source: Iterable[T]) -> Iterator[T]:
    """Pass things on; an error from a worker process loses the traceback that torch wraps around its one line."""
    try:
        yield from source
    except EosinError as error:
        last = str(error).strip().splitlines()[-1]
        raise type(error)(re.sub(r"^(\w+\.)*[A-Z]\w+: ", "", last)) from None
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise EosinError(
            "a process that loads images was killed, by the system if memory ran out: give the same command again, "
            "with a smaller fit.batch if it was memory"
        ) from error


def item_side(items: Items) -> int:
    """The shorter side in pixels of the first item: the size at which a model is trained when nothing is cropped."""
    return min(image_size(items.path(0)))


def batch_size(items: Items, pixels: int) -> int:
    """How many items at a time hold at most ``pixels``, judged by the largest; at least 1 and at most 64."""
    largest = max((math.prod(image_size(items.path(i))) for i in range(len(items))), default=1)
    return max(1, min(64, pixels // largest))
