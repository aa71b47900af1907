"""Prototypes: random ones to be learnt, and the centres of clusters of what an encoder says of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from eosin.core.artifact import Artifact, Vectors, write_json
from eosin.core.errors import EosinError
from eosin.core.learner import Learner

FILE, TOLD = "prototypes.safetensors", "prototypes.json"
Array = NDArray[np.float32]


def drawn(classes: int, count: int, width: int) -> nn.Parameter:
    """Standard normal prototypes that learn, ``[classes, count, width]``."""
    return nn.Parameter(torch.randn(classes, count, width))


def centres_of(artifact: Artifact) -> Tensor:
    """The prototypes ``[K, k, width]`` that :func:`cluster` wrote; they do not learn."""
    return load_file(artifact.folder / FILE)["prototypes"]


def cluster(folder: Path, vectors: Vectors, names: tuple[str, ...], count: int) -> None:
    """Write ``count`` prototypes a class: centres, by cosine, of the vectors of images that hold it.

    Images of one tag alone count. Where a class has fewer than ``count`` of them, those with two tags count, too, and
    so on; how many there were is written beside the prototypes. Each has the length ``sqrt(width)``, so that its
    numbers are about 1. An image with an unknown tag says nothing certain of what else it holds and does not count.

    Images whose vectors have one direction are one image here.

    Args:
        folder: is filled.
        vectors: of the training items, and their tags.
        names: of the classes.
        count: k.

    Raises:
        EosinError: if a class has fewer images than prototypes.
    """
    stored = load_file(vectors.folder / vectors.FILE)
    found, tags = stored["vectors"].numpy(), stored["tags"].numpy()
    known, held = ~np.isnan(tags).any(1), (tags == 1).sum(1)
    centres, told = [], {}
    for number, name in enumerate(names):
        holds = known & (tags[:, number] == 1)
        most = next((m for m in range(1, len(names) + 1) if _different(found[holds & (held <= m)]) >= count), None)
        if most is None:
            raise EosinError(
                f"class {name!r}: {_different(found[holds])} different training items are known to hold it, and "
                f"{count} prototypes are asked of them; lower per_class, or tag more"
            )
        of = found[holds & (held <= most)]
        centres.append(k_means(of, count))
        told[name] = {"items": len(of), "most tags": most}
    made = torch.from_numpy(np.stack(centres)) * found.shape[1] ** 0.5
    save_file({"prototypes": made}, folder / FILE)
    write_json(folder / TOLD, told)


def _different(vectors: Array) -> int:
    """How many directions vectors have."""
    return len(np.unique(_unit(vectors.astype(np.float64)).round(6), axis=0))


def k_means(vectors: Array, count: int, rounds: int = 100) -> Array:
    """Spherical k-means: ``count`` unit vectors that are near, by cosine, to the given ones.

    It begins at vectors that are drawn far from each other (k-means++, always by the same random numbers) and ends when
    no vector changes its centre. A centre that nobody is nearest to takes the vector that is worst off.

    Args:
        vectors: ``[N, D]``, of at least ``count`` directions.
        count: k.
        rounds: most rounds.

    Returns:
        ``[count, D]``.
    """
    unit = _unit(vectors.astype(np.float64))
    centres = _far_apart(unit, count)
    nearest = np.full(len(unit), -1)
    for _ in range(rounds):
        alike = unit @ centres.T
        before, nearest = nearest, alike.argmax(1)
        best = alike.max(1)
        for empty in np.setdiff1d(np.arange(count), nearest):
            worst = int(best.argmin())
            nearest[worst], best[worst] = empty, np.inf
        if (nearest == before).all():
            break
        centres = _unit(np.stack([unit[nearest == i].sum(0) for i in range(count)]))
    return centres.astype(np.float32)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)


def _far_apart(unit: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    chance = np.random.default_rng(0)
    chosen = [int(chance.integers(len(unit)))]
    while len(chosen) < count:
        apart = np.maximum(0.0, 1 - (unit @ unit[chosen].T).max(1))
        apart[chosen] = 0
        total = apart.sum()
        left = np.setdiff1d(np.arange(len(unit)), chosen)
        chosen.append(int(chance.choice(len(unit), p=apart / total) if total else left[0]))
    return unit[chosen]


class Pooled(nn.Module):
    """Images as a trained classifier sees them: the mean of its last features.

    Args:
        learner: with ``taps(image)``, feature maps ``[B, D, h, w]`` of which the last are taken.
    """

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, image: Tensor) -> Tensor:
        """Vectors float32 ``[B, D]`` of images ``[B, 3, H, W]`` in 0..1."""
        last: Tensor = self.learner.taps(image)[-1]  # type: ignore[operator]
        return last.float().mean((2, 3))


class Described(nn.Module):
    """Images as a guide sees them whole.

    Args:
        guide: makes it, ``(image [N, 3, H, W], weights [N, 1, H, W])`` to ``[N, width]``.
    """

    def __init__(self, guide: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.guide = guide()

    def forward(self, image: Tensor) -> Tensor:
        """Vectors float32 ``[B, width]`` of images ``[B, 3, H, W]`` in 0..1."""
        vectors: Tensor = self.guide(image, torch.ones_like(image[:, :1]))
        return vectors
