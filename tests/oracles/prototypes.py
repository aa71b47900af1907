"""Losses and maps of prototypes, one image, class, prototype, pair and pixel at a time, in Python's double precision.

Everything is written from the printed formulas. Vectors are lists, maps ``[i][j]`` or flat lists of pixels.
"""

from __future__ import annotations

import math


def softmax(values):
    top = max(values)
    powers = [math.exp(v - top) for v in values]
    return [p / sum(powers) for p in powers]


def logsumexp(values):
    top = max(values)
    return top + math.log(sum(math.exp(v - top) for v in values))


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def weighted(values):
    """The softmax-weighted sum."""
    return sum(w * v for w, v in zip(softmax(values), values, strict=True))


def stretched(values):
    """Minimum to maximum, of a flat map."""
    low, high = min(values), max(values)
    return [(v - low) / (high - low) if high > low else 0.0 for v in values]


def split(values):
    """What a flat map in 0..1 shows and what it hides."""
    front = [float(v >= max(values) / 2) for v in values]
    return [b * m for b, m in zip(front, values, strict=True)], [
        (1 - b) * (1 - m) for b, m in zip(front, values, strict=True)
    ]


def heeded(scores, tags):
    """Pairs (image, class, prototype) of present classes whose score is above their class's mean."""
    found = []
    for b, image in enumerate(scores):
        for c, own in enumerate(image):
            for u, score in enumerate(own):
                above = score > sum(own) / len(own) or score == max(own)
                if tags[b][c] == 1 and above:
                    found.append((b, c, u))
    return found


# -- contrast ------------------------------------------------------------------------------------------------------


def contrast(shown, hidden, prototypes, own, negative, temperature):
    """FG + BG, the mean over pairs."""
    total = 0.0
    for front, back, index, strangers in zip(shown, hidden, own, negative, strict=True):
        plus = cosine(front, prototypes[index]) / temperature
        minus = [cosine(front, prototypes[j]) / temperature for j in strangers]
        total += logsumexp([plus, *minus]) - plus
        plus = cosine(back, prototypes[index]) / temperature
        minus = [cosine(back, prototypes[j]) / temperature for j in strangers]
        total += logsumexp([plus, *minus]) - logsumexp(minus)
    return total / len(own)


def joined_contrast(shown, hidden, prototypes, own, negative, temperature):
    """As PBIP has it: sums of exponentials over all pairs, one logarithm, and the mean of negatives in BG."""
    ups = [0.0, 0.0]
    alls = [0.0, 0.0]
    for front, back, index, strangers in zip(shown, hidden, own, negative, strict=True):
        plus = math.exp(cosine(front, prototypes[index]) / temperature)
        minus = sum(math.exp(cosine(front, prototypes[j]) / temperature) for j in strangers)
        ups[0] += plus
        alls[0] += plus + minus
        plus = math.exp(cosine(back, prototypes[index]) / temperature)
        minus = sum(math.exp(cosine(back, prototypes[j]) / temperature) for j in strangers) / len(strangers)
        ups[1] += minus
        alls[1] += plus + minus
    return math.log(alls[0] / ups[0]) + math.log(alls[1] / ups[1])


# -- diversity -----------------------------------------------------------------------------------------------------


def jeffreys(u, v):
    """KL both ways."""
    return sum(p * math.log(p / q) + q * math.log(q / p) for p, q in zip(u, v, strict=True))


def alike(shares):
    """The mean of exp(-J) over the pairs of some distributions."""
    pairs = [(u, v) for i, u in enumerate(shares) for v in shares[i + 1 :]]
    return sum(math.exp(-jeffreys(u, v)) for u, v in pairs) / len(pairs)


def diversity(cosines, masks, temperature):
    """Of cosines ``[b][c][u][n]`` and masks ``[b][n]``: the mean over classes of images with two pixels at least."""
    found = []
    for image, mask in zip(cosines, masks, strict=True):
        for c, prototypes in enumerate(image):
            at = [n for n, label in enumerate(mask) if label == c]
            if len(at) < 2 or len(prototypes) < 2:
                continue
            found.append(alike([softmax([p[n] / temperature for n in at]) for p in prototypes]))
    return sum(found) / len(found) if found else 0.0


def released_diversity(prototypes):
    """As it was released, of the cosines of one class's pixels: no temperature, and a softmax of the softmax."""
    return alike([softmax(softmax(p)) for p in prototypes])


# -- clusters ------------------------------------------------------------------------------------------------------


def likeness(vectors, centres):
    """What spherical k-means raises: the sum over vectors of the cosine to the nearest centre."""
    return sum(max(cosine(v, c) for c in centres) for v in vectors)
