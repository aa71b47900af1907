"""Losses, one tag or one pixel at a time, in Python's double precision."""

from __future__ import annotations

import math


def soft_margin(logits, tags, positive=None):
    """Mean over the known tags of -[w y log s(x) + (1 - y) log(1 - s(x))], s = sigmoid, w a weight for each class."""
    losses = []
    for image_logits, image_tags in zip(logits, tags, strict=True):
        for k, (x, y) in enumerate(zip(image_logits, image_tags, strict=True)):
            if not math.isnan(y):
                s = 1 / (1 + math.exp(-x))
                weight = positive[k] if positive else 1.0
                losses.append(-(weight * y * math.log(s) + (1 - y) * math.log(1 - s)))
    return sum(losses) / len(losses) if losses else 0.0


def soft_margin_gradient(logits, tags, positive=None):
    """The derivative: w (s(x) - 1) where present, s(x) where absent, over the number of known tags; 0 for unknown."""
    known = sum(not math.isnan(y) for row in tags for y in row)
    gradient = []
    for image_logits, image_tags in zip(logits, tags, strict=True):
        row = []
        for k, (x, y) in enumerate(zip(image_logits, image_tags, strict=True)):
            s = 1 / (1 + math.exp(-x))
            weight = positive[k] if positive else 1.0
            row.append(0.0 if math.isnan(y) else (weight * (s - 1) if y else s) / known)
        gradient.append(row)
    return gradient


def pixel_cross_entropy(logits, masks, ignore=255):
    """Mean over labelled pixels of -log softmax(x)[label]; ``logits[b][k][i][j]``."""
    losses = []
    for image, mask in zip(logits, masks, strict=True):
        classes = len(image)
        for i, row in enumerate(mask):
            for j, label in enumerate(row):
                if label == ignore:
                    continue
                total = sum(math.exp(image[k][i][j]) for k in range(classes))
                losses.append(-math.log(math.exp(image[label][i][j]) / total))
    return sum(losses) / len(losses) if losses else 0.0
