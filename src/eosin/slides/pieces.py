"""Connected pieces of large masks, found by runs of cells, so that memory follows the outline and not the area."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Mask = NDArray[np.bool_]
Places = NDArray[np.int64]

_ROWS = 256  # that are looked at at once


def turn_small(mask: Mask, value: bool, least: float) -> None:
    """Turn small pieces of ``value`` into the other value, in place.

    Args:
        mask: bool ``[H, W]``, changed.
        value: of the pieces: True drops dust, False fills holes.
        least: cells of a piece that stays, connected over shared edges (not corners).
    """
    row, start, end = _runs(mask, value)
    above, below = _touching(row, start, end, mask.shape[1])
    graph = coo_array((np.ones(len(above), np.int8), (above, below)), shape=(len(row), len(row)))
    piece = connected_components(graph, directed=False)[1] if len(row) else np.empty(0, np.int32)
    small = (np.bincount(piece, end - start) < least)[piece]
    for y, first, last in zip(row[small].tolist(), start[small].tolist(), end[small].tolist(), strict=True):
        mask[y, first:last] = not value


def _runs(mask: Mask, value: bool) -> tuple[Places, Places, Places]:
    """The runs of ``value``, in reading order: the row of each, its first column, and that after its last."""
    rows, columns = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for top in range(0, len(mask), _ROWS):
        part = mask[top : top + _ROWS]
        framed = np.zeros((len(part), mask.shape[1] + 2), np.bool_)
        framed[:, 1:-1] = part == value
        row, column = np.nonzero(framed[:, 1:] != framed[:, :-1])
        rows.append(row + top)
        columns.append(column)
    ends = np.concatenate(columns)
    return np.concatenate(rows)[::2], ends[::2], ends[1::2]


def _touching(row: Places, start: Places, end: Places, width: int) -> tuple[Places, Places]:
    """Pairs of runs that share an edge, by their numbers: one of a row and one of the row below."""
    line = width + 1
    first = np.searchsorted(row * line + end, (row + 1) * line + start, side="right")
    behind = np.searchsorted(row * line + start, (row + 1) * line + end, side="left")
    count = behind - first
    above = np.repeat(np.arange(len(row)), count)
    return above, np.arange(len(above)) + np.repeat(first - (np.cumsum(count) - count), count)
