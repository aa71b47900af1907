"""Paired transforms, one pixel at a time."""

from __future__ import annotations

import math

HAEMATOXYLIN = (0.650, 0.704, 0.286)
EOSIN = (0.072, 0.990, 0.105)


def _unit(v):
    length = math.sqrt(sum(x * x for x in v))
    return [x / length for x in v]


def _cross(a, b):
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]


def _determinant(a, b, c):
    return sum(x * y for x, y in zip(a, _cross(b, c), strict=True))


def stain_jitter(pixel, scale, offset):
    """Beer and Lambert: density = sum of amounts times stain vectors; each amount is scaled and shifted."""
    stains = [_unit(HAEMATOXYLIN), _unit(EOSIN), _unit(_cross(HAEMATOXYLIN, EOSIN))]
    density = [-math.log(channel) for channel in pixel]
    whole = _determinant(*stains)
    amounts = [  # by Cramer's rule
        _determinant(*[density if i == k else stains[i] for i in range(3)]) / whole for k in range(3)
    ]
    changed = [a * s + o for a, s, o in zip(amounts, scale, offset, strict=True)]
    return [min(1.0, math.exp(-sum(a * v[c] for a, v in zip(changed, stains, strict=True)))) for c in range(3)]


def zoomed_from(x, length, zoom, shift):
    """Where pixel ``x`` of a zoomed axis comes from: centres lie at halves, ``shift`` places the window or the item."""
    start = shift * (length - length * zoom)
    return (x + 0.5 - start) / zoom - 0.5


def flip_and_turn(rows, up_down, left_right, quarters):
    """Mirror a nested list and turn it counter-clockwise."""
    rows = [list(row) for row in rows]
    if up_down:
        rows = rows[::-1]
    if left_right:
        rows = [row[::-1] for row in rows]
    for _ in range(quarters):
        rows = [[row[-1 - i] for row in rows] for i in range(len(rows[0]))]
    return rows
