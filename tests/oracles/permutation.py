"""Randomisation tests and corrections of p values, in plain loops."""

from __future__ import annotations

import itertools
import math

from oracles.segmentation_scores import mean


def score(matrix, over):
    """Mean IoU of a nested list ``[truth][prediction]`` over some classes."""
    size = range(len(matrix))
    ious = []
    for k in over:
        union = sum(matrix[k]) + sum(matrix[t][k] for t in size) - matrix[k][k]
        ious.append(matrix[k][k] / union if union else math.nan)
    return mean(ious)


def data_set_score(images, over):
    """Score of the sum of nested lists ``images[n][truth][prediction]``."""
    size = range(len(images[0]))
    return score([[sum(int(image[t][p]) for image in images) for p in size] for t in size], over)


def enumerated(a, b, clusters, over):
    """Difference of the mean-over-seeds scores of ``a[s][n]`` and ``b[s][n]``, and the exact two-sided p."""
    names = sorted(set(clusters))

    def difference(swapped):
        gaps = []
        for seed_a, seed_b in zip(a, b, strict=True):
            first, second = [], []
            for image_a, image_b, cluster in zip(seed_a, seed_b, clusters, strict=True):
                pair = (image_b, image_a) if cluster in swapped else (image_a, image_b)
                first.append(pair[0])
                second.append(pair[1])
            gaps.append(data_set_score(first, over) - data_set_score(second, over))
        return sum(gaps) / len(gaps)

    seen, hits, ways = difference(set()), 0, 0
    for choice in itertools.product([False, True], repeat=len(names)):
        swapped = {name for name, chosen in zip(names, choice, strict=True) if chosen}
        ways += 1
        hits += abs(difference(swapped)) >= abs(seen) - 1e-12
    return seen, hits / ways


def holm(values):
    """Reject one by one at alpha / (m - i): the smallest alpha at which each hypothesis is rejected."""
    corrected = []
    for value in values:
        # All hypotheses up to this one, in order of p, must be rejected at their own level.
        before = [v for v in values if v <= value]
        levels = [v * (len(values) - sum(w < v for w in values)) for v in before]
        corrected.append(min(1.0, max(levels)))
    return corrected
