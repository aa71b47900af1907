"""Scores of the GlaS contest, with objects as sets of pixel positions and every pair of objects measured."""

from __future__ import annotations

import math


def pieces(mask):
    """The 8-connected pieces of a nested list, in the order of their first pixel, found by walking."""
    left = {(i, j) for i, row in enumerate(mask) for j, value in enumerate(row) if value}
    found = []
    for start in sorted(left):
        if start not in left:
            continue
        left.remove(start)
        piece, waiting = set(), [start]
        while waiting:
            i, j = waiting.pop()
            piece.add((i, j))
            around = {(i + di, j + dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)} & left
            left -= around
            waiting += around
        found.append(piece)
    return found


def numbered(objects):
    """The objects of a nested list of numbers, in the order of their numbers."""
    numbers = sorted({value for row in objects for value in row} - {0})
    return [{(i, j) for i, row in enumerate(objects) for j, v in enumerate(row) if v == n} for n in numbers]


def hausdorff(a, b):
    """Between all pixels of two sets."""
    there = max(min(math.dist(p, q) for q in b) for p in a)
    back = max(min(math.dist(p, q) for p in a) for q in b)
    return max(there, back)


def partner(one, others):
    """The number of the first object with the largest overlap; None if nothing overlaps."""
    best = max(range(len(others)), key=lambda k: (len(one & others[k]), -k), default=None)
    return best if best is not None and one & others[best] else None


def scores(images):
    """F1, Dice and Hausdorff of pairs (prediction, objects); None where no object is in any of them."""
    hits = wrong = missed = 0
    sides = {"predicted": [], "true": []}  # (area, Dice, distance) of each object
    for prediction, objects in images:
        segmented, true = pieces(prediction), numbered(objects)
        diagonal = math.sqrt(len(objects) ** 2 + len(objects[0]) ** 2)
        found = set()
        for one in segmented:
            k = partner(one, true)
            if k is not None and len(one & true[k]) >= len(true[k]) / 2:
                hits += 1
                found.add(k)
            else:
                wrong += 1
        missed += len(true) - len(found)
        for side, own, others in (("predicted", segmented, true), ("true", true, segmented)):
            for one in own:
                k = partner(one, others)
                if k is not None:
                    other = others[k]
                    dice = 2 * len(one & other) / (len(one) + len(other))
                    sides[side].append((len(one), dice, hausdorff(one, other)))
                else:
                    nearest = min((hausdorff(one, other) for other in others), default=diagonal)
                    sides[side].append((len(one), 0.0, nearest))
    means = [
        [sum(area * values[k] for area, *values in side) / sum(area for area, *_ in side) for k in (0, 1)]
        for side in sides.values()
        if side
    ]
    if not means:
        return None, None, None
    dice, distance = (sum(mean[k] for mean in means) / len(means) for k in (0, 1))
    return 2 * hits / (2 * hits + wrong + missed), dice, distance
