"""Losses between networks, one pixel, pair or triple at a time, in Python's double precision.

Logits are lists ``[b][k][i][j]``, masks and votes ``[b][i][j]``. Everything is written from the printed formulas.
"""

from __future__ import annotations

import math


def _softmax(values, temperature=1.0):
    top = max(values)
    powers = [math.exp((v - top) / temperature) for v in values]
    return [p / sum(powers) for p in powers]


def _at(image, i, j):
    return [plane[i][j] for plane in image]


def _places(image):
    return [(i, j) for i in range(len(image[0])) for j in range(len(image[0][0]))]


def argmax(logits):
    """The class of each pixel."""
    return [
        [[max(range(len(image)), key=lambda k: image[k][i][j]) for j in range(len(image[0][0]))]
         for i in range(len(image[0]))]
        for image in logits
    ]  # fmt: skip


def swv(logits, masks, votes, omega, ignore=255):
    """Sum of weight times cross-entropy over the number of labelled pixels."""
    total, labelled = 0.0, 0
    for b, image in enumerate(logits):
        for i, j in _places(image):
            label = masks[b][i][j]
            if label == ignore:
                continue
            agree = len({vote[b][i][j] for vote in votes}) == 1
            weight = (1.0 if agree else 0.0) if math.isinf(omega) else (omega if agree else 1 / omega)
            total += weight * -math.log(_softmax(_at(image, i, j))[label])
            labelled += 1
    return total / labelled if labelled else 0.0


def _flat(image):
    return [value for plane in image for row in plane for value in row]


def _huber(x):
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def _distances(points):
    apart = [[math.dist(p, q) for q in points] for p in points]
    positive = [d for row in apart for d in row if d > 0]
    mean = sum(positive) / len(positive) if positive else 1.0
    return [[d / mean for d in row] for row in apart]


def _direction(p, q):
    difference = [b - a for a, b in zip(p, q, strict=True)]
    length = math.hypot(*difference)
    return [d / length for d in difference] if length else difference


def structure(student, teacher):
    """Mean smooth L1 of distances over all pairs, and of angles over all triples: of lists of points."""
    count = len(student)
    if count < 3:
        return 0.0, 0.0
    s, t = _distances(student), _distances(teacher)
    apart = sum(_huber(s[i][j] - t[i][j]) for i in range(count) for j in range(count)) / count**2
    angles = 0.0
    for i in range(count):
        ways = [[_direction(points[i], q) for q in points] for points in (student, teacher)]
        for j in range(count):
            for k in range(count):
                a, b = (sum(x * y for x, y in zip(w[j], w[k], strict=True)) for w in ways)
                angles += _huber(a - b)
    return apart, angles / count**3


def srm(student, teacher, distance=30.0, angle=60.0):
    """The weighted sum of both, an image being a point."""
    apart, angles = structure(list(map(_flat, student)), list(map(_flat, teacher)))
    return distance * apart + angle * angles


def point_wise(student, teacher):
    """Mean over pixels of the distance of two probability vectors."""
    found = [
        math.dist(_softmax(_at(s, i, j)), _softmax(_at(t, i, j)))
        for s, t in zip(student, teacher, strict=True)
        for i, j in _places(s)
    ]
    return sum(found) / len(found)


def kl(student, teacher, temperature=30.0):
    """Mean over pixels of T^2 sum p log(p / q)."""
    found = []
    for s, t in zip(student, teacher, strict=True):
        for i, j in _places(s):
            q, p = _softmax(_at(s, i, j), temperature), _softmax(_at(t, i, j), temperature)
            found.append(temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    return sum(found) / len(found)


def correlation(student, teacher):
    """Mean squared difference of the matrices of scalar products with rows of norm 1."""
    both = []
    for logits in (student, teacher):
        points = list(map(_flat, logits))
        rows = [[sum(a * b for a, b in zip(p, q, strict=True)) for q in points] for p in points]
        both.append([[v / math.hypot(*row) for v in row] for row in rows])
    count = len(student)
    return sum((both[0][i][j] - both[1][i][j]) ** 2 for i in range(count) for j in range(count)) / count**2


def rotated(logits, mask, omega, weight, relation=None, relation_weight=0.0, teacher="each"):
    """The objective of several networks, each in turn taught by the others: (pixel term, relation term)."""
    pixels = related = 0.0
    for a, own in enumerate(logits):
        peers = [logits[i] for i in range(len(logits)) if i != a]
        pixels += weight * swv(own, mask, list(map(argmax, peers)), omega)
        if relation is not None:
            teachers = peers if teacher == "each" else [_mean(peers)]
            related += relation_weight * sum(relation(own, t) for t in teachers) / len(teachers)
    return pixels, related


def _mean(many):
    if not isinstance(many[0], list):
        return sum(many) / len(many)
    return [_mean([one[i] for one in many]) for i in range(len(many[0]))]
