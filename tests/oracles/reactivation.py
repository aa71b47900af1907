"""ReCAM's second loss, one image and one class at a time, in Python's double precision."""

from __future__ import annotations

import math


def vectors(maps, features, eps=1e-5):
    """``f_c[d] = mean_ij(M_c F_d)`` with ``M_c = relu(A_c) / (max relu(A_c) + eps)``; ``maps[c][i][j]``."""
    found = []
    for m in maps:
        top = max(0.0, *(v for row in m for v in row)) + eps
        shown = [[max(0.0, v) / top for v in row] for row in m]
        pairs = [(i, j) for i in range(len(m)) for j in range(len(m[0]))]
        found.append([sum(shown[i][j] * f[i][j] for i, j in pairs) / len(pairs) for f in features])
    return found


def loss(logits, tags):
    """Mean over the present classes of an image, then over the images that hold one; ``logits[b][c][k]``."""
    means = []
    for rows, known in zip(logits, tags, strict=True):
        losses = [
            math.log(sum(math.exp(x) for x in row)) - row[c]
            for c, (row, tag) in enumerate(zip(rows, known, strict=True))
            if tag == 1
        ]
        if losses:
            means.append(sum(losses) / len(losses))
    return sum(means) / len(means) if means else 0.0
