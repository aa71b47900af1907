"""Advice on tags: classes that come together too often for maps to separate them, and tiles that would mend it.

It is for the person who cuts the tags; nothing that trains reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from eosin.data.contract import ITEMS, Finding, Head, Table
from eosin.slides.image import read_mask

Size = tuple[int, int]

FEW_SHARE = 0.05
FEW_ITEMS = 20
WELL = 0.25
"""Classes are well apart where so many of the items that hold either hold just one; see :func:`entangled`."""

_SIDES = (224, 112, 56)  # usual patches, for items that have no side in common
_LEAST_SIDE = 32  # an encoder of stride 32 turns a smaller tile into less than one cell of its map
_MASKS = 200
_TILES = 20  # holding either class; fewer tell nothing


@dataclass(frozen=True, slots=True)
class Pair:
    """Two classes by index, and how many items hold both, the first alone of the two, the second alone."""

    first: int
    second: int
    both: int
    only_first: int
    only_second: int

    @property
    def either(self) -> int:
        """Items that hold at least one of the two."""
        return self.both + self.only_first + self.only_second

    @property
    def apart(self) -> int:
        """Items that hold just one of the two."""
        return self.only_first + self.only_second

    @property
    def few(self) -> bool:
        """Whether these are too few to separate the classes; see :func:`entangled`."""
        share = self.apart / max(1, self.either)
        return share < FEW_SHARE or (self.apart < FEW_ITEMS and share < WELL)


def entangled(tags: NDArray[np.float32]) -> list[Pair]:
    """Pairs of classes that tags cannot tell apart, or hardly.

    A class activation map is the evidence by which a classifier explains a tag. On an item with both classes, both
    tags ask for the same answer, and any tissue of the item may give it: the item teaches nothing about which pixels
    belong to which class. On one with neither, both tags say no. So a map can be kept off the other class's tissue
    only by items that hold one of the two: there the same network must say yes to one and no to the other. One
    direction is enough (items with the first alone keep the second's map off the first's tissue, and the larger of the
    two then decides), so that both are counted together.

    Such items are too few below 5 % of those that hold either class: a batch of 32 then has fewer than two of them, and
    answering "both" every time is right in 19 of 20 items. They are also too few below 20 in all, which a network
    learns by heart, unless they are a quarter or more: the data set is then small rather than entangled. The limits
    are ours; none is published.

    Args:
        tags: float32 ``[N, K]`` of training items, 1 present, 0 absent, NaN unknown; an item counts for a pair if both
            of its tags are known.

    Returns:
        The pairs in class order, without those of which no item that counts holds either class.
    """
    present, absent = (tags == 1).astype(np.int64), (tags == 0).astype(np.int64)
    both, alone = present.T @ present, present.T @ absent
    ever = np.flatnonzero(present.any(axis=0))
    pairs = [Pair(int(a), int(b), *map(int, (both[a, b], alone[a, b], alone[b, a]))) for a, b in combinations(ever, 2)]
    return [pair for pair in pairs if pair.either and pair.few]


def tile_tags(
    mask: NDArray[np.uint8], sides: Sequence[int], classes: int, min_fraction: float
) -> list[NDArray[np.bool_]]:
    """Tags of the tiles that a mask can be cut into, side by side from its upper left corner.

    Args:
        mask: ``[H, W]``, class indices.
        sides: of the tiles in pixels.
        classes: how many, ``K``.
        min_fraction: a class is present if it covers more than this share of a tile's pixels.

    Returns:
        For each side ``[T, K]``, whether a tile holds a class; ``T`` is 0 if the mask is smaller than a tile.
    """
    shares: list[list[NDArray[np.float64]]] = [[] for _ in sides]
    for k in range(classes):
        sums = cv2.integral((mask == k).view(np.uint8))
        for side, found in zip(sides, shares, strict=True):
            pixels = np.diff(np.diff(sums[::side, ::side], axis=0), axis=1)
            found.append(pixels.ravel() / side**2)
    return [np.stack(found, axis=-1) > min_fraction for found in shares]


def together(folder: Path, head: Head, table: Table, sizes: Sequence[Size | None]) -> Iterator[Finding]:
    """Tell each entangled pair with its numbers and, where masks can tell it, the tile size that would help.

    Args:
        folder: the data set.
        head: its ``dataset.yaml``.
        table: its items.
        sizes: height and width of each item's image, None where something is wrong with it or its mask; empty if
            images were not looked at, and then nothing is said about tiles.
    """
    pairs = entangled(table.tags[table.split == "train"])
    tiles = _Tiles.cut(folder, head, table, sizes) if pairs and sizes else None
    for pair in pairs:
        cut = tiles.advice(pair) if tiles else ""
        if pair.apart:
            message = f"{_numbers(head, pair)}; add items with one of them{cut}"
            yield Finding("warning", folder / ITEMS, message, "cooccurring")
        else:
            first, second = head.classes[pair.first].name, head.classes[pair.second].name
            message = (
                f"classes {first!r} and {second!r} occur together on every training item, so that tags cannot tell"
            )
            message += f" them apart; add items with one of them, or merge them{cut}"
            yield Finding("error", folder / ITEMS, message, "inseparable")


def _numbers(head: Head, pair: Pair) -> str:
    first, second = (repr(head.classes[k].name) for k in (pair.first, pair.second))
    return (
        f"classes {first} and {second} come together on {pair.both / pair.either:.1%} of the {pair.either:,} training"
        f" items that hold either; the others ({pair.only_first:,} {first} without {second}, {pair.only_second:,}"
        f" {second} without {first}) are too few to tell their maps apart"
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Tiles:
    """Tags of smaller tiles: where the masks are from, and by side, largest first, bool ``[T, K]``."""

    source: str
    tags: dict[int, NDArray[np.bool_]]

    @classmethod
    def cut(cls, folder: Path, head: Head, table: Table, sizes: Sequence[Size | None]) -> _Tiles | None:
        """Cut masks of train, or else of val, by the tag rule; None without masks, rule or a smaller side."""
        sides = _smaller({size for size, split in zip(sizes, table.split, strict=True) if size and split == "train"})
        if head.tag_rule is None or not sides:
            return None
        sound = np.array([size is not None for size in sizes]) & (table.mask != b"")
        for split in ("train", "val"):
            rows = np.flatnonzero(sound & (table.split == split))
            if len(rows):
                rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MASKS)).round().astype(np.int64)]
                files = (folder / str(table.mask[row], "utf-8") for row in rows)
                cut = [tile_tags(read_mask(f), sides, len(head.classes), head.tag_rule.min_fraction) for f in files]
                tags = [np.concatenate(one) for one in zip(*cut, strict=True)]
                return cls(f"{len(rows)} masks of {split}", dict(zip(sides, tags, strict=True)))
        return None

    def advice(self, pair: Pair) -> str:
        """The largest side that separates the pair well, or that none does; nothing where tiles are too few."""
        tried = []
        for side, tags in self.tags.items():
            first, second = tags[:, pair.first], tags[:, pair.second]
            if (either := int((first | second).sum())) >= _TILES:
                share = int((first ^ second).sum()) / either
                if share >= WELL:
                    holds = f"of those that hold either, {share:.0%} hold just one ({self.source})"
                    return f", or cut tiles of {side} px: {holds}"
                tried.append(f"{share:.0%} at {side} px")
        if not tried:
            return ""
        return f"; smaller tiles would not do: just one is on {', '.join(tried)} ({self.source})"


def _smaller(sizes: set[Size]) -> list[int]:
    """Sides to try, largest first: a half and a quarter of the items' side, or usual ones where sizes differ."""
    if not sizes:
        return []
    least = min(min(size) for size in sizes)
    sides = (least // 2, least // 4) if len(sizes) == 1 else _SIDES
    return [side for side in sides if _LEAST_SIDE <= side < least]
