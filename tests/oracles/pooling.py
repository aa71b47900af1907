"""Pooling of one map, given as a nested list of pixels."""

from __future__ import annotations

import math


def _pixels(rows):
    return [value for row in rows for value in row]


def gap(rows):
    """The mean."""
    return sum(_pixels(rows)) / len(_pixels(rows))


def highest_mean(rows, share):
    """The mean of the highest share of the pixels, at least one."""
    ranked = sorted(_pixels(rows), reverse=True)
    taken = ranked[: max(1, round(share * len(ranked)))]
    return sum(taken) / len(taken)


def pyramid_level(rows, cells):
    """A map averaged to ``cells x cells`` windows that may overlap, and resized back with half-pixel centres."""
    height, width = len(rows), len(rows[0])

    def window(cell, length):
        return range(cell * length // cells, -(-(cell + 1) * length // cells))

    pooled = [
        [gap([[rows[y][x] for x in window(j, width)] for y in window(i, height)]) for j in range(cells)]
        for i in range(cells)
    ]

    def between(place, length):
        at = min(max((place + 0.5) * cells / length - 0.5, 0.0), cells - 1.0)
        low = min(int(at), max(cells - 2, 0))
        return low, min(low + 1, cells - 1), at - low

    out = []
    for y in range(height):
        top, bottom, down = between(y, height)
        out.append([])
        for x in range(width):
            left, right, across = between(x, width)
            upper = pooled[top][left] * (1 - across) + pooled[top][right] * across
            lower = pooled[bottom][left] * (1 - across) + pooled[bottom][right] * across
            out[-1].append(upper * (1 - down) + lower * down)
    return out


def fused(coarse, fine, positive, negative):
    """Two sets of maps ``[k][y][x]`` joined by gates from 3x3 kernels ``[2][2k][3][3]`` of each sign."""
    height, width = len(fine[0]), len(fine[0][0])
    out = [[[0.0] * width for _ in range(height)] for _ in fine]
    for sign, kernels in ((1, positive), (-1, negative)):
        halves = [[[[max(sign * v, 0.0) for v in row] for row in plane] for plane in maps] for maps in (coarse, fine)]
        planes = halves[0] + halves[1]
        for y in range(height):
            for x in range(width):
                for half, kernel in zip(halves, kernels, strict=True):
                    total = sum(
                        weights[a][b] * plane[y + a - 1][x + b - 1]
                        for plane, weights in zip(planes, kernel, strict=True)
                        for a in range(3)
                        for b in range(3)
                        if 0 <= y + a - 1 < height and 0 <= x + b - 1 < width
                    )
                    gate = 1 / (1 + math.exp(-total))
                    for k, plane in enumerate(half):
                        out[k][y][x] += sign * plane[y][x] * gate / 2
    return out


def signed_product(fused_map, rows):
    """The mean of ``r(P') r(F)`` less that of ``r(-P') r(-F)``."""
    pairs = list(zip(_pixels(fused_map), _pixels(rows), strict=True))
    return sum(max(p, 0) * max(f, 0) - max(-p, 0) * max(-f, 0) for p, f in pairs) / len(pairs)


def ngwp(maps, focal, background):
    """Scores of all classes of one image ``[k][y][x]``: each map's mean where it wins, and a price for nowhere."""
    flat = [_pixels(rows) for rows in maps]
    count = len(flat[0])
    claims = [[] for _ in flat]
    for p in range(count):
        powers = [math.exp(values[p]) for values in flat]
        total = sum(powers) + (math.e if background else 0.0)
        for claim, power in zip(claims, powers, strict=True):
            claim.append(power / total)
    scores = []
    for values, claim in zip(flat, claims, strict=True):
        score = sum(m * x for m, x in zip(claim, values, strict=True)) / (1 + sum(claim))
        share = sum(claim) / count
        scores.append(score + ((1 - share) ** 3 * math.log(0.01 + share) if focal else 0.0))
    return scores
