"""The protocols of papers, one pixel at a time: background, tags, smoothing, contours by border following."""

from __future__ import annotations

import math

STEPS = [(0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1)]  # (row, column), counter-clockwise


def with_background(prediction, truth, classes, ignore):
    """Count pairs of two flat lists ``[truth][prediction]``; the background is one more class, the last."""
    counts = [[0] * (classes + 1) for _ in range(classes + 1)]
    for predicted, true in zip(prediction, truth, strict=True):
        counts[classes if true == ignore else true][classes if predicted == ignore else predicted] += 1
    return counts


def restricted(maps, truth, ignore):
    """The best class of ``maps[k][i][j]`` among those that occur in ``truth[i][j]``; ``ignore`` if none does."""
    present = {value for row in truth for value in row} & set(range(len(maps)))
    result = []
    for i in range(len(truth)):
        row = []
        for j in range(len(truth[0])):
            best = ignore
            for k in sorted(present):
                if best == ignore or maps[k][i][j] > maps[best][i][j]:
                    best = k
            row.append(best)
        result.append(row)
    return result


def smoothed(rows, sigma=3.0):
    """A Gaussian cut off at four sigma, along columns and then rows; beyond the edge the image is mirrored."""
    reach = int(4 * sigma + 0.5)
    kernel = [math.exp(-0.5 * (x / sigma) ** 2) for x in range(-reach, reach + 1)]
    kernel = [weight / sum(kernel) for weight in kernel]

    def line(values):
        length = len(values)
        whole = [*values, *reversed(values)]  # d c b a | a b c d | d c b a, again and again
        return [
            sum(weight * whole[(i + x) % (2 * length)] for x, weight in enumerate(kernel, -reach))
            for i in range(length)
        ]

    def turned(image):
        return [list(column) for column in zip(*image, strict=True)]

    return turned([line(row) for row in turned([line(row) for row in rows])])


def f1_and_iou(prediction, truth, of):
    """F1 and IoU of one class from two flat lists."""
    both = sum(p == of and t == of for p, t in zip(prediction, truth, strict=True))
    ours, theirs = prediction.count(of), truth.count(of)
    return 2 * both / (ours + theirs), both / (ours + theirs - both)


def contour_vertices(mask):
    """Corners ``(x, y)`` of all outer and inner borders, the last border found first (Suzuki and Abe 1985).

    A pixel of a border is a corner if the border turns there.
    """
    height, width = len(mask), len(mask[0])
    label = {(i, j): int(bool(mask[i][j])) for i in range(height) for j in range(width)}
    borders, number = [], 1
    for i in range(height):
        for j in range(width):
            here = label[i, j]
            if here == 1 and not label.get((i, j - 1), 0):
                start = 4  # looked at from the left: an outer border
            elif here >= 1 and not label.get((i, j + 1), 0):
                start = 0  # looked at from the right: the border of a hole
            else:
                continue
            number += 1
            borders.append(_corners(_follow(label, (i, j), start, number)))
    return [corner for border in reversed(borders) for corner in border]


def _follow(label, first, start, number):
    """Walk round one border, marking its pixels: the pixels in order."""

    def neighbour(pixel, direction):
        step = STEPS[direction % 8]
        return pixel[0] + step[0], pixel[1] + step[1]

    clockwise = [d for d in range(start - 1, start - 8, -1) if label.get(neighbour(first, d), 0)]
    if not clockwise:
        label[first] = -number
        return [first]
    last = neighbour(first, clockwise[0])
    before, pixel, found = last, first, []
    while True:
        found.append(pixel)
        back = next(d for d in range(8) if neighbour(pixel, d) == before)
        passed_right = False
        for d in range(back + 1, back + 9):
            after = neighbour(pixel, d)
            if label.get(after, 0):
                break
            passed_right |= d % 8 == 0
        if passed_right:
            label[pixel] = -number
        elif label[pixel] == 1:
            label[pixel] = number
        if after == first and pixel == last:
            return found
        before, pixel = pixel, after


def _corners(pixels):
    if len(pixels) == 1:
        return [(pixels[0][1], pixels[0][0])]
    corners = []
    for n, (i, j) in enumerate(pixels):
        before, after = pixels[n - 1], pixels[(n + 1) % len(pixels)]
        if (i - before[0], j - before[1]) != (after[0] - i, after[1] - j):
            corners.append((j, i))
    return corners


def vertex_distance(prediction, truth):
    """From one corner of each mask, at 0.6 of the list, to the nearest corner of the other: the larger distance."""
    ours, theirs = (contour_vertices(mask) or [(0, 0)] for mask in (prediction, truth))
    distances = []
    for here, there in ((ours, theirs), (theirs, ours)):
        corner = here[int(0.6 * (len(here) - 1))]
        distances.append(min(math.dist(corner, other) for other in there))
    return max(distances)


def hausdorff_95(a, b):
    """Largest and 95th percentile of the distances between pixels with a 4-neighbour outside, the larger direction."""

    def rim(mask):
        height, width = len(mask), len(mask[0])

        def inside(i, j):
            return 0 <= i < height and 0 <= j < width and mask[i][j]

        around = ((0, 1), (0, -1), (1, 0), (-1, 0))
        return [
            (i, j)
            for i in range(height)
            for j in range(width)
            if mask[i][j] and not all(inside(i + di, j + dj) for di, dj in around)
        ]

    def percentile(values):
        values, place = sorted(values), 0.95 * (len(values) - 1)
        low = int(place)
        return values[low] + (place - low) * (values[min(low + 1, len(values) - 1)] - values[low])

    rims = rim(a), rim(b)
    if not all(rims):
        return (math.hypot(len(a), len(a[0])),) * 2
    ways = [[min(math.dist(p, q) for q in there) for p in here] for here, there in (rims, rims[::-1])]
    return max(max(way) for way in ways), max(percentile(way) for way in ways)
