"""Regions of a map found slowly: by flooding from each pixel, and polygons filled pixel by pixel."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import numpy as np
from shapely.geometry import Polygon


def flooded(classes: np.ndarray) -> list[tuple[int, frozenset[tuple[int, int]]]]:
    """The class and the pixels (row, column) of each region that shared pixel edges connect; 255 is none."""
    height, width = classes.shape
    seen, found = np.zeros(classes.shape, bool), []
    for start in np.argwhere(classes != 255).tolist():
        if seen[tuple(start)]:
            continue
        kind, queue, pixels = int(classes[tuple(start)]), deque([tuple(start)]), set()
        seen[tuple(start)] = True
        while queue:
            y, x = queue.popleft()
            pixels.add((y, x))
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= near[0] < height and 0 <= near[1] < width
                if inside and not seen[near] and classes[near] == kind:
                    seen[near] = True
                    queue.append(near)
        found.append((kind, frozenset(pixels)))
    return found


def filled(polygon: Polygon, height: int, width: int) -> frozenset[tuple[int, int]]:
    """The pixels (row, column) whose middle an odd number of vertical edges lies left of."""
    crossings = np.zeros((height, width), int)
    for ring in (polygon.exterior, *polygon.interiors):
        points = list(ring.coords)
        for (x, y), (next_x, next_y) in pairwise(points):
            if x == next_x:
                low, high = sorted((round(y), round(next_y)))
                crossings[low:high, round(x) :] += 1
    return frozenset((int(y), int(x)) for y, x in np.argwhere(crossings % 2 == 1))
