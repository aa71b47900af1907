"""The losses of bags of pixels, one pixel at a time, in Python's double precision.

Maps are ``maps[b][s][k][i][j]``, S maps of each class of each image; tags are ``tags[b][k]``, NaN unknown.
"""

from __future__ import annotations

import math


def pixels(a_map):
    """The values of a map, row by row."""
    return [value for row in a_map for value in row]


def dice(outputs, targets):
    """1 - (2 sum o t + 1) / (sum o + sum t + 1)."""
    together = sum(o * t for o, t in zip(outputs, targets, strict=True))
    return 1 - (2 * together + 1) / (sum(outputs) + sum(targets) + 1)


def bag_dice(maps, tags, targets=None):
    """Of a present class D(o, t), of an absent one D(1 - o, 1); t is 1 where there are no targets."""
    terms, known = 0.0, 0
    for b, image in enumerate(tags):
        for k, tag in enumerate(image):
            if math.isnan(tag):
                continue
            known += 1
            for s, side in enumerate(maps[b]):
                o = pixels(side[k])
                t = [1.0] * len(o)
                if tag and targets is not None:
                    t = pixels(targets[b][min(s, len(targets[b]) - 1)][k])
                terms += dice(o if tag else [1 - v for v in o], t)
    return terms / known if known else 0.0


def generalised_mean(values, r):
    """(mean f^r)^(1/r)."""
    return (sum(v**r for v in values) / len(values)) ** (1 / r)


def bag_cross_entropy(maps, tags, r):
    """The binary cross-entropies of the generalised means of all maps, added up."""
    terms, known = 0.0, 0
    for b, image in enumerate(tags):
        for k, tag in enumerate(image):
            if math.isnan(tag):
                continue
            known += 1
            for side in maps[b]:
                score = generalised_mean(pixels(side[k]), r)
                terms -= math.log(score) if tag else math.log(1 - score)
    return terms / known if known else 0.0


def mining(student, teacher, tags, target, weighted=True):
    """sum_i w_i ce_i with w = softmax(-ce); maps here are ``[b][k][i][j]``."""
    terms, known = 0.0, 0
    for b, image in enumerate(tags):
        for k, tag in enumerate(image):
            if math.isnan(tag):
                continue
            known += 1
            p = pixels(student[b][k])
            t = pixels(teacher[b][k]) if tag else [0.0] * len(p)
            terms += mined(p, t, target, weighted)
    return terms / known if known else 0.0


def mined(p, t, target, weighted):
    """Of one map."""
    hard = [float(v >= 0.5) for v in t]
    if target == "printed":
        ce = [-b * math.log(a) for a, b in zip(p, t, strict=True)]
    else:
        wanted = hard if target == "hard" else t
        ce = [-b * math.log(a) - (1 - b) * math.log(1 - a) for a, b in zip(p, wanted, strict=True)]
    weights = [1 / len(p)] * len(p)
    if weighted and (target == "printed" or len({*hard}) == 2):
        total = sum(math.exp(-c) for c in ce)
        weights = [math.exp(-c) / total for c in ce]
    return sum(w * c for w, c in zip(weights, ce, strict=True))


def resized_corners(grid, height, width):
    """Bilinear resizing with aligned corners."""
    rows, columns = len(grid), len(grid[0])
    found = []
    for i in range(height):
        y = i * (rows - 1) / (height - 1) if height > 1 else 0.0
        above = min(int(y), rows - 1)
        below = min(above + 1, rows - 1)
        line = []
        for j in range(width):
            x = j * (columns - 1) / (width - 1) if width > 1 else 0.0
            left = min(int(x), columns - 1)
            right = min(left + 1, columns - 1)
            upper = grid[above][left] * (1 - (x - left)) + grid[above][right] * (x - left)
            lower = grid[below][left] * (1 - (x - left)) + grid[below][right] * (x - left)
            line.append(upper * (1 - (y - above)) + lower * (y - above))
        found.append(line)
    return found


def sides(logits, weights, height, width):
    """Probabilities of each side and of their weighted sum, from the small logits ``[s][i][j]`` of one class."""
    maps = [[[1 / (1 + math.exp(-v)) for v in row] for row in resized_corners(side, height, width)] for side in logits]
    total = sum(weights)
    fused = [
        [sum(w * side[i][j] for w, side in zip(weights, maps, strict=True)) / total for j in range(width)]
        for i in range(height)
    ]
    return [*maps, fused]
