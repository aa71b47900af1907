"""Learning-rate factors and averaged weights, written out."""

from __future__ import annotations

import math


def poly(step, steps):
    """(1 - t/T)^0.9."""
    return (1 - step / steps) ** 0.9


def cosine(step, steps):
    """From 1 to 0 along half a cosine."""
    return (1 + math.cos(math.pi * step / steps)) / 2


def constant(step, steps):
    """Always 1."""
    return 1.0


def onecycle(step, steps):
    """Half a cosine from 1/25 to 1 over 30 %, half a cosine from 1 to 0 over the rest."""

    def between(low, high, share):
        return low + (high - low) * (1 - math.cos(math.pi * share)) / 2

    done = step / steps
    return between(1 / 25, 1, done / 0.3) if done < 0.3 else between(1, 0, (done - 0.3) / 0.7)


def average(values, decay, start):
    """The moving average after each value; the past weighs at most (1 + t) / (10 + t)."""
    means, mean = [], start
    for t, value in enumerate(values):
        past = min(decay, (1 + t) / (10 + t))
        mean = past * mean + (1 - past) * value
        means.append(mean)
    return means
