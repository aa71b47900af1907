"""Class maps by Zhou et al. 2016 and Selvaraju et al. 2017, and masks from them, with plain loops over nested lists."""

from __future__ import annotations

import math


def linear_maps(features, weights, bias=None):
    """``A_c(i, j) = sum_d W_cd F_d(i, j)`` of one image: ``features[d][i][j]`` and ``weights[c][d]``."""
    height, width = len(features[0]), len(features[0][0])
    return [
        [
            [sum(w * features[d][i][j] for d, w in enumerate(row)) + (bias[c] if bias else 0.0) for j in range(width)]
            for i in range(height)
        ]
        for c, row in enumerate(weights)
    ]


def mean(rows):
    """The mean of a nested list of pixels."""
    values = [value for row in rows for value in row]
    return sum(values) / len(values)


def softmax_maps(maps):
    """Probabilities over classes at each pixel."""
    height, width = len(maps[0]), len(maps[0][0])
    total = [[sum(math.exp(m[i][j]) for m in maps) for j in range(width)] for i in range(height)]
    return [[[math.exp(m[i][j]) / total[i][j] for j in range(width)] for i in range(height)] for m in maps]


def tag_logit(share):
    """The logit of a pooled probability that is brought a little nearer to 1/2, by 1e-4 at 0 and at 1."""
    near = 1e-4 + (1 - 2e-4) * share
    return math.log(near / (1 - near))


def joint_min_max(maps):
    """All maps of an image scaled together to 0..1, as ARML does; it keeps every order of values."""
    values = [value for m in maps for row in m for value in row]
    low, high = min(values), max(values)
    return [[[(value - low) / (high - low) for value in row] for row in m] for m in maps]


def gated_argmax(maps, tags, band=0.0, ignore=255):
    """The best class among those whose tag is not 0; ``ignore`` where there is none, no lead, or one below ``band``."""
    result = []
    for i in range(len(maps[0])):
        row = []
        for j in range(len(maps[0][0])):
            ranked = sorted(((m[i][j], -c) for c, m in enumerate(maps) if tags[c] != 0), reverse=True)
            lead = ranked[0][0] - ranked[1][0] if len(ranked) > 1 else None
            unsure = not ranked or (lead is not None and (lead == 0 or lead < band))
            row.append(ignore if unsure else -ranked[0][1])
        result.append(row)
    return result
