"""Attention one pixel at a time, in Python's double precision: maps are ``x[c][i][j]``, matrices nested lists."""

from __future__ import annotations

import math


def _pixels(x):
    return [(i, j) for i in range(len(x[0])) for j in range(len(x[0][0]))]


def _project(x, weight, bias, at):
    i, j = at
    return [
        sum(w * channel[i][j] for w, channel in zip(row, x, strict=True)) + b
        for row, b in zip(weight, bias, strict=True)
    ]


def _softmax(values):
    highest = max(values)
    powers = [math.exp(v - highest) for v in values]
    return [p / sum(powers) for p in powers]


def _attend(x, query, key, value, gate, neighbours):
    """``x_u + gate * sum_w softmax_w(q_u . k_w) v_w`` over the neighbours of each pixel; projections are (W, b)."""
    q, k, v = ({at: _project(x, *how, at) for at in _pixels(x)} for how in (query, key, value))
    out = [[list(row) for row in channel] for channel in x]
    for u in _pixels(x):
        seen = neighbours(u)
        weights = _softmax([sum(a * b for a, b in zip(q[u], k[w], strict=True)) for w in seen])
        for c in range(len(x)):
            out[c][u[0]][u[1]] += gate * sum(a * v[w][c] for a, w in zip(weights, seen, strict=True))
    return out


def criss_cross(x, query, key, value, gate, passes=1):
    """Each pixel attends to the H + W - 1 pixels in its column and its row."""
    cross = lambda u: [w for w in _pixels(x) if w[0] == u[0] or w[1] == u[1]]  # noqa: E731
    for _ in range(passes):
        x = _attend(x, query, key, value, gate, cross)
    return x


def position(x, query, key, value, gate):
    """Each pixel attends to all pixels."""
    return _attend(x, query, key, value, gate, lambda u: _pixels(x))


def reactivated(x, kernel, bound=5.0):
    """``f * exp(-z)``, ``z`` the 7x7 correlation of the mean over channels, zeros beyond the border."""
    mean = {at: sum(channel[at[0]][at[1]] for channel in x) / len(x) for at in _pixels(x)}
    out = [[list(row) for row in channel] for channel in x]
    for i, j in _pixels(x):
        z = sum(kernel[a][b] * mean.get((i + a - 3, j + b - 3), 0.0) for a in range(7) for b in range(7))
        for channel in out:
            channel[i][j] *= math.exp(-min(bound, max(-bound, z)))
    return out


def dropped(features, maps, bound):
    """``F * (1/K) sum_c relu(A_c)``, each map without what is above ``bound`` times its maximum."""
    out = [[list(row) for row in channel] for channel in features]
    highest = [max(max(max(row), 0.0) for row in plane) for plane in maps]
    for i, j in _pixels(features):
        shown = [max(plane[i][j], 0.0) for plane in maps]
        kept = sum(s for s, most in zip(shown, highest, strict=True) if s <= bound * most) / len(maps)
        for channel in out:
            channel[i][j] *= kept
    return out
