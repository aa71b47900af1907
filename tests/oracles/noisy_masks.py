"""Losses of masks that hold mistakes, one pixel at a time, in Python's double precision: ``logits[b][k][i][j]``."""

from __future__ import annotations

import math


def _softmax(values):
    total = sum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


def _pixels(logits, mask, ignore):
    """Probabilities and label of every labelled pixel of one image, with its place."""
    return [
        ((i, j), _softmax([plane[i][j] for plane in logits]), label)
        for i, row in enumerate(mask)
        for j, label in enumerate(row)
        if label != ignore
    ]


def plf_weights(logits, mask, confidence=True, ignore=255):
    """The weight of every labelled pixel of one image, by its place."""
    pixels = _pixels(logits, mask, ignore)
    if len({label for _, _, label in pixels}) < 2:
        return {place: 1.0 for place, _, _ in pixels}
    mean = sum(p[label] for _, p, label in pixels) / len(pixels)
    return {place: p[label] / mean * (max(p) - min(p) if confidence else 1.0) for place, p, label in pixels}


def plf(logits, masks, confidence=True, ignore=255):
    """The mean over all labelled pixels of weight times cross-entropy."""
    losses = []
    for image, mask in zip(logits, masks, strict=True):
        weights = plf_weights(image, mask, confidence, ignore)
        losses += [weights[place] * -math.log(p[label]) for place, p, label in _pixels(image, mask, ignore)]
    return sum(losses) / len(losses) if losses else 0.0


def plf_gradient(logits, masks, confidence=True, ignore=255):
    """The derivative with the weights held still: w (p_k - [k = label]) over the number of labelled pixels."""
    count = sum(label != ignore for mask in masks for row in mask for label in row)
    gradient = [[[[0.0 for _ in row] for row in plane] for plane in image] for image in logits]
    for b, (image, mask) in enumerate(zip(logits, masks, strict=True)):
        weights = plf_weights(image, mask, confidence, ignore)
        for (i, j), p, label in _pixels(image, mask, ignore):
            for k in range(len(p)):
                gradient[b][k][i][j] = weights[i, j] * (p[k] - (k == label)) / count
    return gradient


def dice(outputs, targets):
    """``1 - (2 sum o t + 1) / (sum o + sum t + 1)`` of two lists of pixels."""
    together = sum(o * t for o, t in zip(outputs, targets, strict=True))
    return 1 - (2 * together + 1) / (sum(outputs) + sum(targets) + 1)


def soft_dice(logits, masks, ignore=255):
    """The mean over the images that have labelled pixels, and over their classes."""
    found = []
    for image, mask in zip(logits, masks, strict=True):
        pixels = _pixels(image, mask, ignore)
        if pixels:
            for k in range(len(image)):
                found.append(dice([p[k] for _, p, _ in pixels], [float(label == k) for _, _, label in pixels]))
    return sum(found) / len(found) if found else 0.0
