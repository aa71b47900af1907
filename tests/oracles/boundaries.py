"""Outlines as sets of pixel positions, every pair of pixels measured."""

from __future__ import annotations

import math


def pixels(mask):
    """The positions of a nested list's true values."""
    return {(i, j) for i, row in enumerate(mask) for j, value in enumerate(row) if value}


def outline(mask):
    """Pixels with one of their four neighbours not in the mask; what lies outside of the image is not in it."""
    inside = pixels(mask)
    steps = ((-1, 0), (1, 0), (0, -1), (0, 1))
    return {(i, j) for i, j in inside if any((i + di, j + dj) not in inside for di, dj in steps)}


def band(mask, width=2):
    """Pixels from which a square of ``width`` steps to each side is not all in the mask."""
    inside = pixels(mask)
    steps = range(-width, width + 1)
    return {(i, j) for i, j in inside if any((i + di, j + dj) not in inside for di in steps for dj in steps)}


def directed(from_pixels, to_pixels):
    """Distances of each pixel to the nearest of the others, sorted."""
    return sorted(min(math.dist(a, b) for b in to_pixels) for a in from_pixels)


def percentile(ranked, percent):
    """Linear interpolation between the two nearest ranks of sorted values."""
    place = (len(ranked) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (place - low) * (ranked[high] - ranked[low])


def hausdorff(a, b):
    """HD and HD95 of two masks; the diagonal if one is empty, 0 if both are."""
    first, second = outline(a), outline(b)
    if not first or not second:
        far = math.sqrt(len(a) ** 2 + len(a[0]) ** 2) if first or second else 0.0
        return far, far
    both = directed(first, second), directed(second, first)
    return max(ranked[-1] for ranked in both), max(percentile(ranked, 95) for ranked in both)


def scores(images, classes, ignore=255):
    """Boundary IoU of each class and a list of (HD, HD95) of each class, from pairs (prediction, truth)."""
    shared, joined = [0] * classes, [0] * classes
    distances = [[] for _ in range(classes)]
    for prediction, truth in images:
        for k in range(classes):
            true = [[t == k for t in row] for row in truth]
            predicted = [
                [p == k and t != ignore for p, t in zip(row, truth_row, strict=True)]
                for row, truth_row in zip(prediction, truth, strict=True)
            ]
            shared[k] += len(band(predicted) & band(true))
            joined[k] += len(band(predicted) | band(true))
            if pixels(true):
                distances[k].append(hausdorff(predicted, true))
    return [s / j if j else None for s, j in zip(shared, joined, strict=True)], distances
