"""Predicting images of any size by a model of fixed size: overlapping tiles, softly blended, in bands of rows.

Tiles overlap by twice the margin, so that away from the image's border every pixel lies outside the margin of at
least one tile. Inside an overlap the weights of neighbours cross-fade, see :func:`ramp`. All tiles form a grid, so the
weight of a tile is the product of a weight per row and a weight per column, and each of the two is normalised
beforehand: the weights over any pixel add up to 1 and nothing is divided afterwards.

Tiles are added in one order (left to right, top to bottom), and a band of rows is handed out as soon as no later tile
touches it. A map is therefore the same bit for bit whether it is kept whole or streamed, and streaming never holds
more than one tile row of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from eosin.core.errors import WrongUse

EASED = 1 / 6
"""The share of an overlap, at each of its ends, over which the slope of the weights rises from 0 and falls to 0."""


def origins(length: int, tile: int, stride: int) -> list[int]:
    """Where tiles begin so that they cover ``length`` pixels.

    Args:
        length: pixels to cover, at least 1.
        tile: side of a tile.
        stride: step between tiles, in ``1..tile``.

    Returns:
        Rising starts, the first 0 and the last ``length - tile`` (aligned to the border, so the last step may be
        shorter than ``stride``); only 0 if ``length <= tile``.

    Raises:
        WrongUse: if the numbers leave gaps or cover nothing.
    """
    if length < 1 or not 1 <= stride <= tile:
        raise WrongUse(f"cannot cover {length} px by tiles of {tile} px every {stride} px; choose 1 <= stride <= tile")
    last = max(0, length - tile)
    return [*range(0, last, stride), last]


def stride(tile: int, margin: int) -> int:
    """The step between tiles that overlap by twice the margin.

    Raises:
        WrongUse: unless ``0 <= 2 * margin < tile``.
    """
    if not 0 <= 2 * margin < tile:
        raise WrongUse(f"a margin of {margin} px leaves nothing of a tile of {tile} px; choose 0 <= margin < tile / 2")
    return tile - 2 * margin


def ramp(place: Tensor) -> Tensor:
    """How a tile's weight grows from its border to the other end of the overlap.

    Where neighbours disagree by ``d``, blending adds ``d`` times the slope of the weights to the gradient of the map,
    and that is what is seen of a seam. Two things must be small. A slope that jumps draws a line where it does: a
    linear fade jumps at the tile's border, just where its answers are worst. And the slope cannot be small everywhere,
    as it adds up to 1: that of a squared sine is pi / 2 in the middle. This slope rises linearly over the first
    ``EASED`` of the overlap, stays at ``1 / (1 - EASED)`` = 1.2, and falls over the last ``EASED``.

    Args:
        place: float, 0 at the tile's border to 1 at the other end of the overlap.

    Returns:
        The weight in 0..1, of the same shape; ``ramp(x) + ramp(1 - x) = 1``.
    """
    near = torch.minimum(place, 1 - place)  # by symmetry only the first half is needed
    rising = torch.where(near < EASED, near**2 / (2 * EASED), near - EASED / 2) / (1 - EASED)
    return torch.where(place < 0.5, rising, 1 - rising)


def weights(length: int, tile: int, margin: int) -> Tensor:
    """Blending weights along one axis.

    Args:
        length: pixels of the axis, at least ``tile``.
        tile: side of a tile.
        margin: pixels at a tile's border that are trusted less.

    Returns:
        float32 ``[tiles, tile]``, one row for each of ``origins(length, tile, tile - 2 * margin)``, in (0, 1]. A tile
        fades towards a neighbour over ``2 * margin`` pixels and not at all towards the image's border; over each
        pixel the weights add up to 1.
    """
    starts = origins(length, tile, stride(tile, margin))
    fade = torch.ones(tile, dtype=torch.float64)
    fade[: 2 * margin] = ramp((torch.arange(2 * margin, dtype=torch.float64) + 0.5) / (2 * margin))
    table = torch.ones(len(starts), tile, dtype=torch.float64)
    table[1:] *= fade
    table[:-1] *= fade.flip(0)
    total = torch.zeros(length, dtype=torch.float64)
    for start, row in zip(starts, table, strict=True):
        total[start : start + tile] += row
    return torch.stack([row / total[start : start + tile] for start, row in zip(starts, table, strict=True)]).float()


def stitch(batches: Iterable[Tensor], height: int, width: int, tile: int, margin: int) -> Iterator[Tensor]:
    """Blend predicted tiles into bands of rows.

    Args:
        batches: float tiles ``[B, C, tile, tile]`` in row-major order of the grid; any batch sizes.
        height: rows of the map, at least ``tile``.
        width: columns of the map, at least ``tile``.
        tile: side of a tile.
        margin: as in :func:`weights`.

    Yields:
        float32 ``[C, rows, width]`` from top to bottom: the rows that no later tile touches. Together they are the
        whole map.

    Raises:
        WrongUse: if the tiles are not of that size, too few or too many.
    """
    step = stride(tile, margin)
    tops, lefts = origins(height, tile, step), origins(width, tile, step)
    down, across = weights(height, tile, margin), weights(width, tile, margin)
    canvas: Tensor | None = None
    place = 0
    for part in (part for batch in batches for part in batch):
        row, column = divmod(place, len(lefts))
        if row == len(tops) or part.shape[1:] != (tile, tile):
            shape = tuple(part.shape)
            raise WrongUse(f"tile {place} of shape {shape} does not fit a grid of {len(tops)} x {len(lefts)}")
        if canvas is None:
            canvas = torch.zeros(part.shape[0], tile, width, device=part.device)
            down, across = down.to(part.device), across.to(part.device)
        left = lefts[column]
        canvas[:, :, left : left + tile] += part.float() * (down[row, :, None] * across[column])
        if column == len(lefts) - 1:
            done = tops[row + 1] - tops[row] if row + 1 < len(tops) else tile
            yield canvas[:, :done].clone()
            _shift_up(canvas, done)
        place += 1
    if place != len(tops) * len(lefts):
        raise WrongUse(f"{place} tiles do not fill a grid of {len(tops)} x {len(lefts)}")


def _shift_up(canvas: Tensor, rows: int) -> None:
    """Drop the first ``rows`` rows and clear as many at the end, in place and never copying more than them at once."""
    height = canvas.shape[1]
    for start in range(rows, height, rows):
        stop = min(start + rows, height)
        canvas[:, start - rows : stop - rows] = canvas[:, start:stop]
    canvas[:, max(0, height - rows) :] = 0


def bands(
    predict: Callable[[Tensor], Tensor], image: Tensor, tile: int, margin: int, batch: int = 16
) -> Iterator[Tensor]:
    """Predict an image of any size, a band of rows at a time.

    Args:
        predict: takes ``[B, 3, tile, tile]`` of the image's type and device, ``B <= batch``; returns ``[B, C, tile,
            tile]``.
        image: ``[3, H, W]``, any type. A side shorter than a tile is mirrored on both ends to the tile's size.
        tile: side of a tile.
        margin: as in :func:`weights`.
        batch: most tiles in a call.

    Yields:
        float32 ``[C, rows, W]`` on the device of the predictions, from top to bottom, ``H`` rows in all.
    """
    height, width = image.shape[1:]
    top, padded = _mirror(image, 1, tile)
    left, padded = _mirror(padded, 2, tile)
    step = stride(tile, margin)
    places = [(y, x) for y in origins(padded.shape[1], tile, step) for x in origins(padded.shape[2], tile, step)]
    cuts = (
        torch.stack([padded[:, y : y + tile, x : x + tile] for y, x in places[start : start + batch]])
        for start in range(0, len(places), batch)
    )
    for band in stitch(map(predict, cuts), padded.shape[1], padded.shape[2], tile, margin):
        # Where the height was mirrored there is one tile row, hence one band.
        yield band[:, top : top + height, left : left + width]


def _mirror(image: Tensor, axis: int, size: int) -> tuple[int, Tensor]:
    """Reflect an axis until it has ``size``; how many pixels came before, the image."""
    if image.shape[axis] >= size:
        return 0, image
    before, places = mirrored(image.shape[axis], size)
    return before, image.index_select(axis, places.to(image.device))


def mirrored(length: int, size: int) -> tuple[int, Tensor]:
    """Where the pixels of a side come from that is reflected about its first and last pixel, on both ends.

    Args:
        length: pixels of the side, at least 1 and less than ``size``.
        size: pixels that it shall have.

    Returns:
        How many pixels come before the first, and int64 ``[size]`` of places in ``0..length - 1``.
    """
    before = (size - length) // 2
    period = max(1, 2 * (length - 1))
    place = (torch.arange(size) - before).remainder(period)
    return before, torch.minimum(place, period - place)


def blend(predict: Callable[[Tensor], Tensor], image: Tensor, tile: int, margin: int, batch: int = 16) -> Tensor:
    """Predict an image of any size, whole: :func:`bands`, one below the other.

    Returns:
        float32 ``[C, H, W]``; for an image of exactly one tile, what ``predict`` returned, bit for bit.
    """
    return torch.cat(list(bands(predict, image, tile, margin, batch)), dim=1)
