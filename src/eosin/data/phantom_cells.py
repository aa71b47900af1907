"""Put cells into a drawn field: nuclei as polygons with chromatin, glands, mitoses, debris, capillaries.

Nuclei are drawn with sub-pixel, anti-aliased fills into one 8-bit layer whose channels are coverage, amount of
haematoxylin and strength of the chromatin texture; the layer is laid over the canvas once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from eosin.data.phantom_look import (
    LYMPHOCYTES,
    NECROSIS,
    STROMA,
    TUMOUR,
    Bytes,
    Canvas,
    Floats,
    Look,
    noise,
)

Numbers = NDArray[np.float64]
FULL = 2.8  # the amount of haematoxylin that 255 in the layer stands for
FINE = 4  # fractional bits of coordinates handed to OpenCV


@dataclass(slots=True)
class Nuclei:
    """Columns, one entry a nucleus, float64 ``[N]``; lengths in pixels.

    Attributes:
        x: centre.
        y: centre.
        long: half of the long axis.
        short: half of the short axis.
        angle: direction of the long axis.
        wobble: relative irregularity of the outline.
        rim: amount of haematoxylin in the membrane.
        inside: amount within.
        texture: relative contrast of the chromatin.
        nucleoli: their number.
    """

    x: Numbers
    y: Numbers
    long: Numbers
    short: Numbers
    angle: Numbers
    wobble: Numbers
    rim: Numbers
    inside: Numbers
    texture: Numbers
    nucleoli: Numbers

    def __len__(self) -> int:
        return len(self.x)

    def only(self, keep: NDArray[np.bool_]) -> Nuclei:
        """The nuclei where ``keep``."""
        return Nuclei(*(getattr(self, f.name)[keep] for f in fields(self)))


def join(groups: list[Nuclei]) -> Nuclei:
    """All groups, one after the other."""
    return Nuclei(*(np.concatenate([getattr(g, f.name) for g in groups]) for f in fields(Nuclei)))


def scatter(rng: np.random.Generator, shape: tuple[int, int], spacing: float) -> tuple[Numbers, Numbers]:
    """Places over the whole field, about ``spacing`` apart: a turned hexagonal grid, jittered."""
    reach = 0.5 * float(np.hypot(*shape)) + spacing
    n = int(reach / spacing) + 1
    j, i = np.meshgrid(np.arange(-n, n + 1), np.arange(-int(n * 1.16), int(n * 1.16) + 1), indexing="ij")
    u = (j + 0.5 * (i % 2)).ravel() * spacing + rng.normal(0, 0.27 * spacing, j.size)
    v = i.ravel() * 0.87 * spacing + rng.normal(0, 0.27 * spacing, j.size)
    turn = rng.uniform(0, np.pi)
    x = shape[1] / 2 + np.cos(turn) * u - np.sin(turn) * v
    y = shape[0] / 2 + np.sin(turn) * u + np.cos(turn) * v
    inside = (x >= 0) & (y >= 0) & (x < shape[1]) & (y < shape[0])
    return x[inside], y[inside]


def at(image: NDArray[np.generic], x: Numbers, y: Numbers) -> Numbers:
    """The image's values at places inside it."""
    return np.asarray(image[y.astype(np.int64), x.astype(np.int64)], np.float64)


def apart(x: Numbers, y: Numbers, reach: Numbers) -> NDArray[np.bool_]:
    """Which places to keep, so that none lies closer to an earlier one than the sum of their reaches."""
    places, keep = np.stack([x, y], 1), np.ones(len(x), bool)
    if len(places) < 2:
        return keep
    pairs = cKDTree(places).query_pairs(2 * float(reach.max()), output_type="ndarray")
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    gap = np.linalg.norm(places[pairs[:, 0]] - places[pairs[:, 1]], axis=1)
    for first, second in pairs[gap < reach[pairs].sum(1)].tolist():
        if keep[first]:
            keep[second] = False
    return keep


def sparse(nuclei: Nuclei, share: float) -> Nuclei:
    """Nuclei that overlap little: at least ``share`` of the sum of their short half axes apart."""
    return nuclei.only(apart(nuclei.x, nuclei.y, share * nuclei.short))


def lymphocytes(rng: np.random.Generator, x: Numbers, y: Numbers) -> Nuclei:
    """Small, round, dark nuclei, 6 to 8 um across."""
    n = len(x)
    radius = rng.uniform(6.0, 7.8, n)
    dark = rng.uniform(1.5, 2.25, n)
    return Nuclei(
        x, y, radius, radius * rng.uniform(0.84, 1, n), rng.uniform(0, np.pi, n), np.full(n, 0.035),
        dark * 1.08, dark, rng.uniform(0.16, 0.3, n), np.zeros(n),
    )  # fmt: skip


def spindles(rng: np.random.Generator, x: Numbers, y: Numbers, canvas: Canvas) -> Nuclei:
    """Fibroblast nuclei: 9 to 18 um long, thin, along the fibres."""
    n = len(x)
    along = np.arctan2(at(canvas.dy, x, y), at(canvas.dx, x, y)) + rng.normal(0, 0.13, n)
    dark = rng.uniform(0.9, 1.75, n)
    return Nuclei(
        x, y, rng.uniform(9, 18, n), rng.uniform(2.0, 3.9, n), along, np.full(n, 0.06),
        dark * 1.1, dark, rng.uniform(0.08, 0.2, n), np.zeros(n),
    )  # fmt: skip


def tumour_nuclei(rng: np.random.Generator, x: Numbers, y: Numbers, look: Look) -> Nuclei:
    """Large nuclei, 10 to 18 um across, vesicular with nucleoli or hyperchromatic; more varied in a higher grade."""
    n = len(x)
    size = np.clip(11.8 * np.exp((0.10 + 0.13 * look.grade) * rng.standard_normal(n)), 9.5, 18.5)
    ratio = np.clip(rng.normal(0.8, 0.08 + 0.05 * look.grade, n), 0.5, 1)
    dark = 1.12 * np.exp((0.12 + 0.12 * look.grade) * rng.standard_normal(n))
    hyper = rng.uniform(size=n) < 0.06 + 0.14 * look.grade
    rim = np.where(hyper, np.clip(dark * 1.5, 0, 2.2), dark * 1.35)
    return Nuclei(
        x, y, size / np.sqrt(ratio), size * np.sqrt(ratio), rng.uniform(0, np.pi, n),
        np.full(n, 0.04 + 0.06 * look.grade), rim, np.where(hyper, rim * 0.95, dark * 0.86), np.where(hyper, 0.22, 0.4),
        np.where(hyper, 0, rng.integers(0, 3, n)),
    )  # fmt: skip


def mitoses(rng: np.random.Generator, x: Numbers, y: Numbers) -> Nuclei:
    """Metaphase plates: dark, ragged bars without a membrane."""
    n = len(x)
    return Nuclei(
        x, y, rng.uniform(8, 11, n), rng.uniform(2.6, 4.0, n), rng.uniform(0, np.pi, n), np.full(n, 0.2),
        np.full(n, 2.5), np.full(n, 2.5), np.full(n, 0.15), np.zeros(n),
    )  # fmt: skip


def ghosts(rng: np.random.Generator, x: Numbers, y: Numbers, look: Look) -> Nuclei:
    """Dead nuclei: pale outlines of what they were, a few shrunken and black."""
    n = len(x)
    size = rng.uniform(7, 12.5, n)
    black = rng.uniform(size=n) < 0.16
    rim = np.where(black, rng.uniform(1.3, 2.2, n), look.dusty * rng.uniform(0.2, 0.5, n))
    size = np.where(black, rng.uniform(2.5, 5, n), size)
    return Nuclei(
        x, y, size, size * rng.uniform(0.65, 1, n), rng.uniform(0, np.pi, n), np.full(n, 0.14),
        rim, np.where(black, rim, rim * rng.uniform(0.45, 0.8, n)), np.full(n, 0.25), np.zeros(n),
    )  # fmt: skip


def outlines(rng: np.random.Generator, nuclei: Nuclei, points: int = 22) -> Numbers:
    """Closed outlines ``[N, points, 2]``: ellipses with a few random harmonics."""
    n = len(nuclei)
    t = np.linspace(0, 2 * np.pi, points, endpoint=False)[None, :]
    radius = np.ones((n, points))
    for k in (2, 3, 4, 5):
        size = nuclei.wobble[:, None] * rng.normal(0, 1.6 / k, (n, 1))
        radius += size * np.cos(k * t + rng.uniform(0, 2 * np.pi, (n, 1)))
    u, v = nuclei.long[:, None] * radius * np.cos(t), nuclei.short[:, None] * radius * np.sin(t)
    cos, sin = np.cos(nuclei.angle)[:, None], np.sin(nuclei.angle)[:, None]
    return np.stack([nuclei.x[:, None] + cos * u - sin * v, nuclei.y[:, None] + sin * u + cos * v], -1)


def fixed(points: Numbers) -> NDArray[np.int32]:
    """Coordinates as OpenCV's fixed-point numbers."""
    return np.asarray(np.round(points * (1 << FINE)), np.int32)


def stamp(rng: np.random.Generator, layer: Bytes, nuclei: Nuclei) -> None:
    """Draw nuclei into the layer: the membrane, what is within, the nucleoli."""
    if not len(nuclei):
        return
    curves = outlines(rng, nuclei)
    centre = np.stack([nuclei.x, nuclei.y], 1)[:, None]
    outer = fixed(curves)
    inner = fixed(centre + (curves - centre) * (1 - 1.3 / nuclei.short)[:, None, None])
    rims, insides = 255 / FULL * nuclei.rim, 255 / FULL * nuclei.inside
    textures = 255 * nuclei.texture
    spot = rng.uniform(-0.45, 0.45, (len(nuclei), 2, 2)) * nuclei.short[:, None, None] + centre
    spots = fixed(spot)
    radii = fixed(rng.uniform(0.11, 0.19, (len(nuclei), 2)) * nuclei.short[:, None])
    rows = zip(rims.tolist(), insides.tolist(), textures.tolist(), nuclei.nucleoli.astype(int).tolist(), strict=True)
    for i, (rim, inside, texture, nucleoli) in enumerate(rows):
        cv2.fillPoly(layer, [outer[i]], (255, rim, texture / 2), cv2.LINE_AA, FINE)
        if inside != rim:
            cv2.fillPoly(layer, [inner[i]], (255, inside, texture), cv2.LINE_AA, FINE)
        for k in range(nucleoli):
            cv2.circle(
                layer, spots[i, k].tolist(), int(radii[i, k]), (255, min(255, 1.5 * rim), 0), -1, cv2.LINE_AA, FINE
            )


def lay(canvas: Canvas, layer: Bytes, chromatin: Floats) -> None:
    """Lay the drawn nuclei over the canvas; they hide two fifths of the eosin under them."""
    part = cv2.GaussianBlur(layer, (0, 0), 0.7).astype(np.float32) / 255
    cover, amount, texture = part[..., 0], part[..., 1] * FULL, part[..., 2]
    canvas.haematoxylin *= 1 - 0.9 * cover
    canvas.haematoxylin += amount * (1 + texture * chromatin)
    canvas.eosin *= 1 - 0.4 * cover


def glands(rng: np.random.Generator, depth: Floats, canvas: Canvas, look: Look) -> tuple[Nuclei, Bytes]:
    """Open lumens where the tumour is roomy and set a palisade of nuclei around each.

    Args:
        rng: the field's generator.
        depth: distance in pixels to the border of the tumour.
        canvas: gets the lumens.
        look: says how many.

    Returns:
        The palisade, and a map ``[H, W]`` that is not 0 where no other nucleus may lie.
    """
    shape = (depth.shape[0], depth.shape[1])
    x, y = scatter(rng, shape, 76)
    room = at(depth, x, y)
    chosen = (room > 31) & (rng.uniform(size=len(x)) < look.glands)
    x, y, room = x[chosen], y[chosen], np.minimum(room[chosen], 52)
    lumen = np.clip(room - 24, 5, None) * rng.uniform(0.6, 1.0, len(x))
    free = apart(x, y, lumen + 18)  # room for two palisades between two lumens
    x, y, lumen = x[free], y[free], lumen[free]
    holes = Nuclei(
        x, y, lumen * rng.uniform(1.0, 1.3, len(x)), lumen * rng.uniform(0.7, 1.0, len(x)),
        rng.uniform(0, np.pi, len(x)), np.full(len(x), 0.08), *(np.zeros(len(x)) for _ in range(4)),
    )  # fmt: skip
    open_ = np.zeros(shape, np.uint8)
    shapes = outlines(rng, holes, 40)
    for points in fixed(shapes):
        cv2.fillPoly(open_, [points], 255, cv2.LINE_AA, FINE)
    void = cv2.GaussianBlur(open_, (0, 0), 1.0).astype(np.float32) / 255
    secretion = np.clip(0.06 + 0.08 * noise(rng, shape, 14), 0, 0.35)
    canvas.eosin += (secretion - canvas.eosin) * void
    canvas.haematoxylin *= 1 - void
    # The free edge of the cells is a thin eosin line.
    canvas.eosin += 0.35 * np.clip(4 * void * (1 - void), 0, 1) ** 2
    groups = []
    for i in range(len(x)):
        ring = shapes[i] - [x[i], y[i]]
        radius = np.linalg.norm(ring, axis=1)
        count = max(6, int(2 * np.pi * (radius.mean() + 15) / 13))
        turn = np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.uniform(0, 1) + rng.normal(0, 0.25 / count, count)
        angle = np.arctan2(ring[:, 1], ring[:, 0]) % (2 * np.pi)
        order = np.argsort(angle)
        out = np.interp(turn % (2 * np.pi), angle[order], radius[order], period=2 * np.pi) + rng.uniform(14, 18, count)
        cell = tumour_nuclei(rng, x[i] + out * np.cos(turn), y[i] + out * np.sin(turn), look)
        cell.angle = turn + rng.normal(0, 0.2, count)
        cell.long, cell.short = rng.uniform(9.5, 13, count), rng.uniform(5.6, 7.6, count)
        groups.append(cell)
    palisade = join(groups) if groups else tumour_nuclei(rng, np.zeros(0), np.zeros(0), look)
    taken = np.zeros(shape, np.uint8)
    for place, radius in zip(fixed(np.stack([x, y], 1)).tolist(), fixed(lumen + 27).tolist(), strict=True):
        cv2.circle(taken, place, radius, 1, -1, cv2.LINE_8, FINE)
    return palisade, taken


def membranes(canvas: Canvas, depth: Floats, nuclei: Nuclei) -> None:
    """Draw the walls between tumour cells, half way between their nuclei."""
    if not len(nuclei):
        return
    seeds = np.ones(depth.shape, np.uint8)
    seeds[nuclei.y.astype(np.int64), nuclei.x.astype(np.int64)] = 0
    far, nearest = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    wall = np.zeros(depth.shape, np.float32)
    wall[:-1, :-1] = (nearest[1:, :-1] != nearest[:-1, :-1]) | (nearest[:-1, 1:] != nearest[:-1, :-1])
    wall *= (depth > 2) & (far < 24)
    canvas.eosin += canvas.eosin * (
        0.75 * cv2.GaussianBlur(wall, (0, 0), 0.9) - 0.5 * cv2.GaussianBlur(wall, (0, 0), 2.6)
    )


def capillaries(rng: np.random.Generator, kind: Bytes, depth: Floats, canvas: Canvas) -> None:
    """Draw a few small vessels with red blood cells into the stroma."""
    shape = (kind.shape[0], kind.shape[1])
    x, y = scatter(rng, shape, 105)
    chosen = (at(depth, x, y) > 13) & (rng.uniform(size=len(x)) < 0.4)
    x, y = x[chosen], y[chosen]
    bore, blood = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for cx, cy in zip(x.tolist(), y.tolist(), strict=True):
        ux, uy = float(canvas.dx[int(cy), int(cx)]), float(canvas.dy[int(cy), int(cx)])
        long, short = rng.uniform(12, 30), rng.uniform(6.5, 9)
        turn = float(np.degrees(np.arctan2(uy, ux)))
        centre, axes = fixed(np.array([cx, cy])).tolist(), fixed(np.array([long, short])).tolist()
        cv2.ellipse(bore, centre, axes, turn, 0, 360, 255, -1, cv2.LINE_AA, FINE)
        for s in np.arange(-long + 7, long - 6, rng.uniform(9, 14)):
            if rng.uniform() < 0.75:
                place = fixed(np.array([cx + s * ux + rng.normal(0, 1), cy + s * uy + rng.normal(0, 1)])).tolist()
                size = fixed(np.array([rng.uniform(5.2, 6.8), rng.uniform(4.0, 6.2)])).tolist()
                cv2.ellipse(blood, place, size, rng.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA, FINE)
    void = cv2.GaussianBlur(bore, (0, 0), 0.9).astype(np.float32) / 255
    canvas.eosin *= 1 - 0.93 * void
    canvas.eosin += 0.3 * np.clip(4 * void * (1 - void), 0, 1) ** 2
    canvas.haematoxylin *= 1 - void
    red = cv2.GaussianBlur(blood, (0, 0), 0.9).astype(np.float32) / 255
    canvas.blood += 1.05 * red * (0.75 + 0.25 * cv2.GaussianBlur(1 - red, (0, 0), 2.0))


def debris(rng: np.random.Generator, kind: Bytes, layer: Bytes, look: Look) -> None:
    """Strew dust of broken nuclei over necrosis, in clusters."""
    shape = (kind.shape[0], kind.shape[1])
    cx, cy = scatter(rng, shape, 26)
    count = rng.poisson(6 * look.dusty, len(cx))
    x = np.repeat(cx, count) + rng.normal(0, 8, count.sum())
    y = np.repeat(cy, count) + rng.normal(0, 8, count.sum())
    inside = (x >= 0) & (y >= 0) & (x < shape[1]) & (y < shape[0])
    x, y = x[inside], y[inside]
    here = at(kind, x, y) == NECROSIS
    x, y = x[here], y[here]
    places = fixed(np.stack([x, y], 1)).tolist()
    radii = fixed(np.clip(rng.gamma(2.2, 0.6, len(x)), 0.5, 3.2)).tolist()
    dark = (255 / FULL * rng.uniform(0.7, 2.2, len(x))).tolist()
    for place, radius, amount in zip(places, radii, dark, strict=True):
        cv2.circle(layer, place, radius, (255, amount, 20), -1, cv2.LINE_AA, FINE)


def populate(rng: np.random.Generator, kind: Bytes, canvas: Canvas, look: Look) -> None:
    """Put all cells of a field on the canvas.

    Args:
        rng: the field's generator.
        kind: class of every pixel, 0..3, ``[H, W]``.
        canvas: what lies between the nuclei; changed in place.
        look: the patient.
    """
    shape = (kind.shape[0], kind.shape[1])
    depth = [cv2.distanceTransform((kind == k).astype(np.uint8), cv2.DIST_L2, 3) for k in range(4)]
    density = noise(rng, shape, 45)
    layer = np.zeros((*shape, 3), np.uint8)
    capillaries(rng, kind, depth[STROMA], canvas)
    palisade, taken = glands(rng, depth[TUMOUR], canvas, look)
    debris(rng, kind, layer, look)

    x, y = scatter(rng, shape, 27)
    dead = (at(depth[NECROSIS], x, y) > 6) & (at(density, x, y) > -0.8)
    stamp(rng, layer, sparse(ghosts(rng, x[dead], y[dead], look), 0.8))

    x, y = scatter(rng, shape, 35 / np.sqrt(look.cellular))
    own = (at(depth[STROMA], x, y) > 3) & (at(density, x, y) > -1.0)
    stamp(rng, layer, sparse(spindles(rng, x[own], y[own], canvas), 1.1))

    x, y = scatter(rng, shape, 23)
    solid = tumour_nuclei(rng, x, y, look)
    solid = solid.only((at(depth[TUMOUR], x, y) > 0.62 * solid.short) & (at(taken, x, y) == 0))
    inside = (palisade.x >= 0) & (palisade.y >= 0) & (palisade.x < shape[1]) & (palisade.y < shape[0])
    palisade = palisade.only(inside)
    palisade = palisade.only(at(depth[TUMOUR], palisade.x, palisade.y) > 5)
    own_nuclei = sparse(join([palisade, solid]), 0.86)
    divide = rng.uniform(size=len(own_nuclei)) < 0.012 + 0.02 * look.grade
    plates = mitoses(rng, own_nuclei.x[divide], own_nuclei.y[divide])
    for place in fixed(np.stack([plates.x, plates.y], 1)).tolist():
        cv2.circle(canvas.haematoxylin, place, 12 << FINE, 0.12, -1, cv2.LINE_8, FINE)
    membranes(canvas, depth[TUMOUR], own_nuclei)
    stamp(rng, layer, join([own_nuclei.only(~divide), plates]))

    x, y = scatter(rng, shape, 14)
    chance = rng.uniform(size=len(x))
    follicle = (at(depth[LYMPHOCYTES], x, y) > 4.5) & (chance < np.clip(0.98 + 0.12 * at(density, x, y), 0.6, 1))
    stray = chance < look.inflamed * (0.03 * (at(kind, x, y) == STROMA) + 0.01 * (at(kind, x, y) != STROMA))
    stamp(rng, layer, sparse(lymphocytes(rng, x[follicle | stray], y[follicle | stray]), 0.84))
    lay(canvas, layer, 0.6 * noise(rng, shape, 3.2) + 0.55 * noise(rng, shape, 1.8))
