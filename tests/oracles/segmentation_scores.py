"""Scores of class maps, pixel by pixel, straight from the sets they are defined on."""

from __future__ import annotations

import math
import random


def confusion(prediction, truth, classes, ignore=255):
    """Count pairs of two flat lists: ``[truth][prediction]``."""
    counts = [[0] * classes for _ in range(classes)]
    for predicted, true in zip(prediction, truth, strict=True):
        if true != ignore:
            counts[true][predicted] += 1
    return counts


def class_scores(prediction, truth, classes, ignore=255):
    """Lists of IoU and Dice by class, from sets of pixel positions; NaN where both sets are empty."""
    kept = [i for i, true in enumerate(truth) if true != ignore]
    ious, dices = [], []
    for k in range(classes):
        true = {i for i in kept if truth[i] == k}
        predicted = {i for i in kept if prediction[i] == k}
        union, both = len(true | predicted), len(true & predicted)
        ious.append(both / union if union else math.nan)
        dices.append(2 * both / (len(true) + len(predicted)) if union else math.nan)
    return ious, dices


def accuracy(prediction, truth, ignore=255):
    """Share of the kept pixels that agree."""
    kept = [(p, t) for p, t in zip(prediction, truth, strict=True) if t != ignore]
    return sum(p == t for p, t in kept) / len(kept) if kept else math.nan


def fwiou(prediction, truth, classes, ignore=255):
    """IoU weighted by the share of each class in the kept truth."""
    kept = [t for t in truth if t != ignore]
    ious, _ = class_scores(prediction, truth, classes, ignore)
    return sum(kept.count(k) / len(kept) * ious[k] for k in range(classes) if k in kept) if kept else math.nan


def mean(values):
    """Mean of the values that are not NaN."""
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan


def matrix_miou(counts):
    """Mean IoU of a nested list ``[truth][prediction]``."""
    size = range(len(counts))
    ious = []
    for k in size:
        union = sum(counts[k]) + sum(counts[t][k] for t in size) - counts[k][k]
        ious.append(counts[k][k] / union if union else math.nan)
    return mean(ious)


def bootstrap_miou(counts, clusters, resamples, seed):
    """All resampled mean IoU, clusters drawn one by one with the standard library's generator."""
    chance = random.Random(seed)
    names = sorted(set(clusters))
    size = range(len(counts[0]))
    scores = []
    for _ in range(resamples):
        total = [[0 for _ in size] for _ in size]
        for _ in names:
            name = chance.choice(names)
            for image, cluster in zip(counts, clusters, strict=True):
                if cluster == name:
                    total = [[total[t][p] + int(image[t][p]) for p in size] for t in size]
        scores.append(matrix_miou(total))
    return scores
