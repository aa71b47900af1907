"""Pooling of one map, given as a nested list of pixels."""

from __future__ import annotations


def _pixels(rows):
    return [value for row in rows for value in row]


def gap(rows):
    """The mean."""
    return sum(_pixels(rows)) / len(_pixels(rows))


def highest_mean(rows, share):
    """The mean of the highest share of the pixels, at least one."""
    ranked = sorted(_pixels(rows), reverse=True)
    taken = ranked[: max(1, round(share * len(ranked)))]
    return sum(taken) / len(taken)
