"""Grad-CAM and Grad-CAM++ of one class of one image, with plain loops over ``features[d][i][j]`` and ``g[d][i][j]``."""

from __future__ import annotations

import math


def mean_weights(gradients):
    """Grad-CAM: the mean of the gradients of each channel."""
    return [sum(map(sum, g)) / sum(map(len, g)) for g in gradients]


def rms_weights(gradients, eps=1e-5):
    """HistoSegNet: the same after division by the root mean square over all channels and pixels."""
    values = [v for g in gradients for row in g for v in row]
    size = math.sqrt(sum(v * v for v in values) / len(values)) + eps
    return mean_weights([[[v / size for v in row] for row in g] for g in gradients])


def plus_plus_weights(features, gradients):
    """Grad-CAM++: ``sum_ij a relu(g)`` with ``a = g^2 / (2 g^2 + sum_ab F_ab g^3)`` and 0/0 = 0."""
    weights = []
    for feature, gradient in zip(features, gradients, strict=True):
        total, weight = sum(map(sum, feature)), 0.0
        for row in gradient:
            for g in row:
                below = 2 * g**2 + total * g**3
                weight += (g**2 / below if below else 0.0) * max(0.0, g)
        weights.append(weight)
    return weights


def weighted_map(weights, features):
    """``relu(sum_d w_d F_d)``."""
    height, width = len(features[0]), len(features[0][0])
    return [
        [max(0.0, sum(w * f[i][j] for w, f in zip(weights, features, strict=True))) for j in range(width)]
        for i in range(height)
    ]


def by_class(maps, eps=1e-5):
    """Each map by its own maximum, what is negative as 0."""
    tops = [max(0.0, *(v for row in m for v in row)) + eps for m in maps]
    return [[[max(0.0, v) / top for v in row] for row in m] for m, top in zip(maps, tops, strict=True)]
