"""Scores of tags, one tag at a time."""

from __future__ import annotations

import math


def average_precision(scores, tags):
    """Average precision of one class: walk down all distinct scores as thresholds."""
    known = [(s, t) for s, t in zip(scores, tags, strict=True) if not math.isnan(t)]
    positives = sum(t == 1 for _, t in known)
    if positives in (0, len(known)):
        return math.nan
    total, recall_before = 0.0, 0.0
    for threshold in sorted({s for s, _ in known}, reverse=True):
        taken = [t for s, t in known if s >= threshold]
        hits = sum(t == 1 for t in taken)
        total += (hits / positives - recall_before) * hits / len(taken)
        recall_before = hits / positives
    return total


def exact_match(scores, tags):
    """Share of images without a wrong known tag, among those with a known one."""
    counted = right = 0
    for image_scores, image_tags in zip(scores, tags, strict=True):
        known = [(s, t) for s, t in zip(image_scores, image_tags, strict=True) if not math.isnan(t)]
        if known:
            counted += 1
            right += all((s >= 0.5) == bool(t) for s, t in known)
    return right / counted if counted else math.nan
