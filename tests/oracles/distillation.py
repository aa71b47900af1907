"""What the tokens of patches learn of a teacher (PDSeg, equation 1), patch by patch."""

from __future__ import annotations

import math


def target(logits, alpha, tags=None):
    """Of the K logits of one patch: a softmax, of which the winners are raised. Absent classes (tag 0) may be out."""
    allowed = [tags is None or tag != 0 for tag in (tags or logits)]
    powers = [math.exp(value) if may else 0.0 for value, may in zip(logits, allowed, strict=True)]
    soft = [power / (sum(powers) or 1.0) for power in powers]
    hard = [float(may and value == max(soft)) for value, may in zip(soft, allowed, strict=True)]
    return [alpha * h + (1 - alpha) * s for h, s in zip(hard, soft, strict=True)]


def loss(student, teacher, alpha, tags=None):
    """The mean over patches and classes of the binary cross-entropy; both are lists of patches."""
    terms = []
    for own, other in zip(student, teacher, strict=True):
        for x, t in zip(own, target(other, alpha, tags), strict=True):
            p = 1 / (1 + math.exp(-x))
            terms.append(-t * math.log(p) - (1 - t) * math.log(1 - p))
    return sum(terms) / len(terms)
