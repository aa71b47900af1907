"""Masks of overlapping items of one image, one pixel at a time and in exact fractions."""

from __future__ import annotations

from fractions import Fraction


def merged_masks(items, ignore=255):
    """Decide every pixel of every item of one parent from all items that lie over it.

    Args:
        items: of each ``(x, y, maps[k][i][j] as whole numbers, tags[k])``.
        ignore: where no class is allowed.

    Returns:
        Of each item the mask ``[i][j]``, with None where the two best classes are exactly equal.
    """
    return [
        [[_decide(items, x + j, y + i, ignore) for j in range(len(maps[0][0]))] for i in range(len(maps[0]))]
        for x, y, maps, _ in items
    ]


def _decide(items, column, row, ignore):
    over = []
    for x, y, maps, tags in items:
        if 0 <= row - y < len(maps[0]) and 0 <= column - x < len(maps[0][0]):
            over.append(([m[row - y][column - x] for m in maps], tags))
    classes = range(len(over[0][0]))
    allowed = [k for k in classes if all(tags[k] != 0 for _, tags in over)]
    means = {k: sum(Fraction(values[k]) for values, _ in over) / len(over) for k in allowed}
    if not means:
        return ignore
    best = max(means.values())
    winners = [k for k, mean in means.items() if mean == best]
    return winners[0] if len(winners) == 1 else None
