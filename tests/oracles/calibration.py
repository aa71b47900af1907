"""Confidence, one pixel at a time in Python's double precision."""

from __future__ import annotations

import math


def softmax(logits):
    """Probabilities of one pixel."""
    powers = [math.exp(value - max(logits)) for value in logits]
    return [power / sum(powers) for power in powers]


def tempered(probabilities, temperature):
    """The powers p**(1/T) of one pixel, made to sum to 1."""
    powers = [p ** (1 / temperature) for p in probabilities]
    return [power / sum(powers) for power in powers]


def loss(rows, truth, temperature):
    """Mean of -log p_T[truth] over the pixels."""
    total = 0.0
    for probabilities, true in zip(rows, truth, strict=True):
        total -= math.log(tempered([max(p, 1e-12) for p in probabilities], temperature)[true])
    return total / len(rows)


def best_temperature(rows, truth, steps=400):
    """The best of temperatures that lie evenly on the logarithm of 0.05..20."""
    low, high = math.log(0.05), math.log(20)
    tried = [math.exp(low + (high - low) * k / steps) for k in range(steps + 1)]
    return min(tried, key=lambda temperature: loss(rows, truth, temperature))


def reliability(rows, truth, bins=15):
    """The calibration error and, for each bin, the list of (confidence, right) in it."""
    diagram = [[] for _ in range(bins)]
    for probabilities, true in zip(rows, truth, strict=True):
        confidence = max(probabilities)
        right = probabilities.index(confidence) == true
        for m in range(bins):
            if m / bins < confidence <= (m + 1) / bins:
                diagram[m].append((confidence, right))
    error = 0.0
    for pixels in diagram:
        if pixels:
            mean = sum(confidence for confidence, _ in pixels) / len(pixels)
            accuracy = sum(right for _, right in pixels) / len(pixels)
            error += len(pixels) / len(rows) * abs(accuracy - mean)
    return error, diagram
