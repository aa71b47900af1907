"""Steps between class maps and the choice of a class: maps of what is no tissue, subtraction, a dense CRF.

Each step takes maps ``[B, C, H, W]`` of at least 0, where the K classes may be (bool that broadcasts to ``[B, K, H,
W]``) and images ``[B, 3, H, W]`` in 0..1. It gives maps of the same size, some steps with one more behind them: that of
what is none of the tissues, which no tag gates. A class counts as 0 where it may not be.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)  # shares of red, green and blue in a grey value
LEAST = 1e-5  # no class that may be there is taken for less probable
REACH = 5.0  # standard deviations; a Gaussian is below 4e-6 beyond
LOWEST = -30.0  # exponents are not taken to be lower: 1e-13 is nothing, and numbers too small for a CPU slow it down
TILE = 8  # px, side of the squares that are filtered at a time
KEPT = 2**26  # pairs of pixels whose weights are kept (256 MiB) instead of being computed in each iteration


def everywhere(allowed: Tensor, channels: int) -> Tensor:
    """Where each of ``channels`` maps may be: those behind the K classes of ``allowed`` anywhere."""
    free = torch.ones_like(allowed[:, :1]).expand(-1, channels - allowed.shape[1], -1, -1)
    return torch.cat([allowed, free], 1)


def gated(maps: Tensor, allowed: Tensor) -> Tensor:
    """The maps with 0 where a class may not be."""
    return torch.where(everywhere(allowed, maps.shape[1]), maps, 0.0)


class Constant:
    """Adds a map that is the same everywhere, so that lower ones do not win.

    Args:
        value: of that map.
    """

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, maps: Tensor, allowed: Tensor, image: Tensor) -> Tensor:
        """Maps ``[B, C + 1, H, W]``."""
        return torch.cat([maps, torch.full_like(maps[:, :1], self.value)], 1)


class Remainder:
    """Adds what the highest map leaves: ``factor * (1 - max_c M_c) ** power``.

    Args:
        power: 1 or more; SEAM takes 4 to 24, TPRO 10.
        factor: 0.05 for HistoSegNet's "other".
    """

    def __init__(self, power: float = 1.0, factor: float = 1.0) -> None:
        self.power = power
        self.factor = factor

    def __call__(self, maps: Tensor, allowed: Tensor, image: Tensor) -> Tensor:
        """Maps ``[B, C + 1, H, W]`` of maps in 0..1."""
        left = (1 - gated(maps, allowed).amax(1, keepdim=True)).clamp(min=0)
        return torch.cat([maps, self.factor * left.pow(self.power)], 1)


class EmptyGlass:
    """Adds HistoSegNet's map of background.

    It is ``peak * sigmoid(4 (m - 240))`` of the mean ``m`` of red, green and blue in 0..255, blurred by a Gaussian of
    2 px that is cut at 8 px and mirrors the border.

    Args:
        peak: of that map, 0.75 there.
    """

    def __init__(self, peak: float) -> None:
        self.peak = peak

    def __call__(self, maps: Tensor, allowed: Tensor, image: Tensor) -> Tensor:
        """Maps ``[B, C + 1, H, W]``."""
        white = self.peak * torch.sigmoid(4 * (255 * image.mean(1, keepdim=True) - 240))
        down, across = (blurring(side, 2.0, 8).to(white) for side in white.shape[2:])
        return torch.cat([maps, down @ white @ across.T], 1)


def blurring(length: int, sigma: float, radius: int) -> Tensor:
    """The matrix ``[length, length]`` that blurs an axis by a Gaussian, which is cut at ``radius`` and adds up to 1.

    What lies outside is mirrored, the outermost pixel being repeated.
    """
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offsets / sigma).square())
    at = torch.arange(length)[:, None]
    place = (at + offsets).remainder(2 * length)
    place = torch.minimum(place, 2 * length - 1 - place)
    return torch.zeros(length, length).index_put(
        (at.expand_as(place), place), (weights / weights.sum()).expand(place.shape), accumulate=True
    )


class WhitePixels:
    """Adds a map that wins wherever the image is white, over any other map. It must be the last step.

    A pixel is white whose grey value is above ``above``; groups of fewer than ``size`` white pixels, neighbours being
    those left, right, above and below, are no glass but pale tissue.

    Args:
        above: grey value in 0..255; 200 in MLPS and ARML, on LUAD-HistoSeg alone.
        size: px, 50 in MLPS and ARML, 80 in TPRO.
    """

    def __init__(self, above: float, size: int) -> None:
        self.above = above
        self.size = size

    def __call__(self, maps: Tensor, allowed: Tensor, image: Tensor) -> Tensor:
        """Maps ``[B, C + 1, H, W]``, the last one infinite or negative infinite."""
        grey = 255 * torch.einsum("bchw,c->bhw", image, image.new_tensor(LUMA))
        white = torch.stack([self._large(mask) for mask in (grey > self.above).cpu()]).to(maps.device)
        infinite = maps.new_tensor(torch.inf)
        return torch.cat([maps, torch.where(white, infinite, -infinite)[:, None]], 1)

    def _large(self, mask: Tensor) -> Tensor:
        """The groups of a bool ``[H, W]`` that are large enough."""
        _, groups, stats, _ = cv2.connectedComponentsWithStats(mask.numpy().astype(np.uint8), connectivity=4)
        large = stats[:, cv2.CC_STAT_AREA] >= self.size
        large[0] = False  # what is not white
        return torch.from_numpy(large[groups])


class Subtracted:
    """Inter-class subtraction: each map minus the highest of all others, ``max(0, M_c - max_{b != c} M_b)``.

    At each pixel one map at most stays above 0, by as much as it led.

    Args:
        spare_last: leave the last map as it is, though others lose by it: HistoSegNet's "other".
    """

    def __init__(self, spare_last: bool = False) -> None:
        self.spare_last = spare_last

    def __call__(self, maps: Tensor, allowed: Tensor, image: Tensor) -> Tensor:
        """Maps ``[B, C, H, W]``, at least two."""
        maps = gated(maps, allowed)
        highest, at = maps.topk(2, dim=1)
        leads = torch.zeros_like(maps, dtype=torch.bool).scatter(1, at[:, :1], True)
        left = (maps - torch.where(leads, highest[:, 1:], highest[:, :1])).clamp(min=0)
        return torch.cat([left[:, :-1], maps[:, -1:]], 1) if self.spare_last else left


class DenseCrf:
    """A fully connected CRF by mean field (Kraehenbuehl and Koltun 2011), with exact kernels.

    ``Q = softmax(-U)`` with ``U = -log M``, then in each iteration ``Q = softmax(-U + sum_k w_k S_k Q)``: neighbours of
    a pixel vote for what they are. ``S = D^-1/2 K D^-1/2`` with ``D = K 1`` and, for all pairs of pixels, a pixel and
    itself included, as the released code of that paper has it,

    - smoothness: ``K_ij = exp(-|p_i - p_j|^2 / 2 sxy^2)`` of positions ``p`` in pixels;
    - edges: ``K_ij = exp(-|p_i - p_j|^2 / 2 sxy^2 - |I_i - I_j|^2 / 2 srgb^2)`` with colours ``I`` in 0..255.

    That code filters approximately, on a permutohedral lattice. Here smoothness is exact, and of the edge kernel only
    what lies more than 5 ``sxy`` away, in rows or columns, is left out: weights below 4e-6, which moved no probability
    by more than 1e-4 where it was measured. A pixel costs as many operations as there are pixels within, ``(10 sxy +
    8)^2`` at most: 224 px take some seconds on a core, half of that side a few tenths.

    Args:
        smooth: ``sxy`` in px and weight ``w`` of the smoothness kernel.
        edges: ``sxy`` in px, ``srgb`` and weight ``w`` of the edge kernel.
        steps: iterations.
        scale: images and maps are resized by this factor first, and the result back; ``sxy`` is in px of the resized
            image.
    """

    def __init__(
        self,
        smooth: tuple[float, float] = (3.0, 30.0),
        edges: tuple[float, float, float] = (10.0, 20.0, 50.0),
        steps: int = 5,
        scale: float = 1.0,
    ) -> None:
        self.smooth = smooth
        self.edges = edges
        self.steps = steps
        self.scale = scale

    def __call__(self, maps: Tensor, allowed: Tensor, image: Tensor) -> Tensor:
        """Probabilities ``[B, C, H, W]`` of maps in 0..1; 0 for all classes where none may be."""
        size = maps.shape[2:]
        allowed = everywhere(allowed, maps.shape[1]).expand_as(maps)
        if self.scale != 1.0:
            small = [max(1, round(side * self.scale)) for side in size]
            maps, image = (_resized(pixels, small) for pixels in (maps, image))
            allowed = F.interpolate(allowed.to(maps.dtype), size=small, mode="nearest-exact") > 0.5
        found = torch.stack([self._infer(*one) for one in zip(maps, allowed, image, strict=True)])
        return found if self.scale == 1.0 else _resized(found, list(size))

    def _infer(self, maps: Tensor, allowed: Tensor, image: Tensor) -> Tensor:
        """Probabilities ``[C, H, W]`` of one image."""
        unary = maps.clamp(LEAST, 1.0).log().masked_fill(~allowed, -torch.inf)
        kernels = [
            (self.smooth[1], _Normalised(_Smoothness(image, self.smooth[0]), image)),
            (self.edges[2], _Normalised(_Edges(image, self.edges[0], self.edges[1]), image)),
        ]
        found = _softmax(unary)
        for _ in range(self.steps):
            found = _softmax(unary + sum(weight * kernel(found) for weight, kernel in kernels))
        return found


class _Smoothness:
    """The kernel of positions alone, as a product of rows and columns."""

    def __init__(self, image: Tensor, sxy: float) -> None:
        self.down, self.across = (_gaussian(side, sxy, image) for side in image.shape[1:])

    def __call__(self, values: Tensor) -> Tensor:
        """Sums ``[C, H, W]`` of values ``[C, H, W]``, by the kernel."""
        return self.down @ values @ self.across


def _gaussian(length: int, sigma: float, like: Tensor) -> Tensor:
    at = torch.arange(length, device=like.device, dtype=like.dtype) / sigma
    return torch.exp(-0.5 * (at[:, None] - at).square())


Place = tuple[tuple[slice, slice], tuple[slice, slice]]  # rows and columns of a square, and of what is around it


class _Edges:
    """The kernel of positions and colours: each square of pixels with all pixels that are within its reach."""

    def __init__(self, image: Tensor, sxy: float, srgb: float) -> None:
        height, width = image.shape[1:]
        at = [torch.arange(side, device=image.device, dtype=image.dtype) / sxy for side in (height, width)]
        self.features = torch.cat([torch.stack(torch.meshgrid(*at, indexing="ij")), image * (255 / srgb)])
        reach = int(REACH * sxy)
        self.places: list[Place] = [
            (
                (slice(y, y + TILE), slice(x, x + TILE)),
                (slice(max(0, y - reach), y + TILE + reach), slice(max(0, x - reach), x + TILE + reach)),
            )
            for y in range(0, height, TILE)
            for x in range(0, width, TILE)
        ]
        side = TILE + 2 * reach
        few = height * width * min(height, side) * min(width, side) <= KEPT
        self.kept = [self._weights(place) for place in self.places] if few else None

    def __call__(self, values: Tensor) -> Tensor:
        """Sums ``[C, H, W]`` of values ``[C, H, W]``, by the kernel."""
        sums = torch.empty_like(values)
        for place, weights in zip(self.places, self.kept or map(self._weights, self.places), strict=True):
            (rows, columns), around = place
            square = sums[:, rows, columns]
            square.copy_((values[:, *around].flatten(1) @ weights).view_as(square))
        return sums

    def _weights(self, place: Place) -> Tensor:
        """Weights ``[pixels around, pixels of the square]``."""
        mine, others = (self.features[:, *pixels].flatten(1) for pixels in place)
        centre = mine.mean(1, keepdim=True)  # products of small numbers lose fewer digits
        mine, others = mine - centre, others - centre
        # x y - x^2 / 2 - y^2 / 2 as one product
        left = torch.cat([others, -0.5 * others.square().sum(0, keepdim=True), torch.ones_like(others[:1])])
        right = torch.cat([mine, torch.ones_like(mine[:1]), -0.5 * mine.square().sum(0, keepdim=True)])
        return (left.T @ right).clamp_(min=LOWEST).exp_()


class _Normalised:
    """A kernel between the square roots of its sums: ``D^-1/2 K D^-1/2`` with ``D = K 1``."""

    def __init__(self, kernel: _Smoothness | _Edges, image: Tensor) -> None:
        self.kernel = kernel
        self.root = kernel(torch.ones_like(image[:1])).rsqrt()

    def __call__(self, values: Tensor) -> Tensor:
        """Weighted means, nearly: ``[C, H, W]`` of values ``[C, H, W]``."""
        return self.root * self.kernel(self.root * values)


def _softmax(scores: Tensor) -> Tensor:
    """Over classes; 0 where a class is improbable beyond counting, and for all of them where none may be."""
    return F.threshold(scores.softmax(0).nan_to_num(0.0), 1e-20, 0.0)


def _resized(pixels: Tensor, size: list[int]) -> Tensor:
    return F.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=True)
