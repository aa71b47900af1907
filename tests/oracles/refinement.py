"""Steps between class maps and masks, one pixel at a time: ``maps[c][i][j]``, ``image[i][j] = (r, g, b)`` in 0..255."""

from __future__ import annotations

import math


def highest(maps, allowed, i, j):
    """The highest map at a pixel among the classes that may be there."""
    return max((m[i][j] for m, may in zip(maps, allowed, strict=True) if may), default=0.0)


def remainder(maps, allowed, power, factor):
    """What the highest map leaves of 1."""
    rows, columns = range(len(maps[0])), range(len(maps[0][0]))
    return [[factor * (1 - highest(maps, allowed, i, j)) ** power for j in columns] for i in rows]


def subtracted(maps, allowed, spare_last):
    """Each map less the highest of the others, not below 0; classes that may not be count as 0."""
    maps = [m if may else [[0.0] * len(row) for row in m] for m, may in zip(maps, allowed, strict=True)]
    found = []
    for c, m in enumerate(maps):
        if spare_last and c == len(maps) - 1:
            found.append(m)
            continue
        others = [other for b, other in enumerate(maps) if b != c]
        found.append(
            [[max(0.0, v - max(o[i][j] for o in others)) for j, v in enumerate(row)] for i, row in enumerate(m)]
        )
    return found


def white(image, above, size):
    """Where grey is above ``above`` in a 4-connected group of ``size`` pixels at least, found by walking."""
    height, width = len(image), len(image[0])
    bright = {
        (i, j)
        for i in range(height)
        for j in range(width)
        if 0.299 * image[i][j][0] + 0.587 * image[i][j][1] + 0.114 * image[i][j][2] > above
    }
    kept = [[False] * width for _ in range(height)]
    while bright:
        group, waiting = set(), [bright.pop()]
        while waiting:
            i, j = waiting.pop()
            group.add((i, j))
            for near in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if near in bright:
                    bright.remove(near)
                    waiting.append(near)
        if len(group) >= size:
            for i, j in group:
                kept[i][j] = True
    return kept


def dense_crf(maps, allowed, image, smooth, edges, steps):
    """Mean field over all pairs of pixels, each with itself too: ``Q[c][i][j]``, ``allowed[c]`` for the whole image.

    ``smooth`` is (sxy, weight), ``edges`` is (sxy, srgb, weight); kernels are normalised symmetrically.
    """
    height, width = len(image), len(image[0])
    pixels = [(i, j) for i in range(height) for j in range(width)]
    classes = [c for c, may in enumerate(allowed) if may]

    def apart(a, b):
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))

    def near(sxy):
        return [[math.exp(-apart(p, q) / (2 * sxy**2)) for q in pixels] for p in pixels]

    def alike(sxy, srgb):
        colours = [image[i][j] for i, j in pixels]
        return [
            [k * math.exp(-apart(a, b) / (2 * srgb**2)) for k, b in zip(row, colours, strict=True)]
            for row, a in zip(near(sxy), colours, strict=True)
        ]

    kernels = []
    for kernel, weight in ((near(smooth[0]), smooth[1]), (alike(*edges[:2]), edges[2])):
        sums = [sum(row) for row in kernel]
        scaled = [
            [weight * k / math.sqrt(a * b) for k, b in zip(row, sums, strict=True)]
            for row, a in zip(kernel, sums, strict=True)
        ]
        kernels.append(scaled)
    unary = {c: [-math.log(min(1.0, max(1e-5, maps[c][i][j]))) for i, j in pixels] for c in classes}
    found = _softmax({c: [-u for u in unary[c]] for c in classes})
    for _ in range(steps):
        scores = {}
        for c in classes:
            messages = [[sum(k * q for k, q in zip(row, found[c], strict=True)) for row in kern] for kern in kernels]
            scores[c] = [-u + a + b for u, a, b in zip(unary[c], *messages, strict=True)]
        found = _softmax(scores)
    empty = [0.0] * len(pixels)
    return [[found.get(c, empty)[i * width : (i + 1) * width] for i in range(height)] for c in range(len(maps))]


def _softmax(scores):
    names = list(scores)
    result = {c: [] for c in names}
    for values in zip(*scores.values(), strict=True):
        top = max(values)
        powers = [math.exp(v - top) for v in values]
        for c, power in zip(names, powers, strict=True):
            result[c].append(power / sum(powers))
    return result
