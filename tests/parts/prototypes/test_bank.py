"""Clusters of vectors become prototypes: which images count, what a centre is, and who is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from eosin.core.artifact import Vectors
from eosin.core.errors import EosinError
from eosin.parts.prototypes.bank import Described, Pooled, centres_of, cluster, drawn, k_means
from oracles import prototypes as slow

NAN = float("nan")


def planted(seed: int, groups: int = 3, each: int = 20, width: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Vectors about random directions, of random lengths, and the group of each."""
    chance = np.random.default_rng(seed)
    directions = np.linalg.qr(chance.normal(size=(width, width)))[0][:groups]
    of = chance.permutation(np.repeat(np.arange(groups), each))
    vectors = directions[of] + 0.05 * chance.normal(size=(len(of), width))
    return (vectors * chance.uniform(0.5, 5, (len(of), 1))).astype(np.float32), of


class TestKMeans:
    @pytest.mark.parametrize("seed", range(5))
    def test_planted_groups_are_found_whatever_the_lengths(self, seed: int) -> None:
        vectors, of = planted(seed)
        nearest = (vectors @ k_means(vectors, 3).T).argmax(1)
        assert len({*zip(of.tolist(), nearest.tolist(), strict=True)}) == 3

    def test_each_centre_is_the_mean_of_the_directions_that_are_nearest_to_it(self) -> None:
        vectors = np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32)
        centres = k_means(vectors, 5)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        nearest = (unit @ centres.T).argmax(1)
        means = np.stack([unit[nearest == i].sum(0) for i in range(5)])
        np.testing.assert_allclose(centres, means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-6)
        chance = np.random.default_rng(1)
        others = [unit[chance.choice(80, 5, replace=False)] for _ in range(20)]
        assert slow.likeness(unit, centres) > max(slow.likeness(unit, other) for other in others)

    def test_it_comes_to_the_same_each_time(self) -> None:
        vectors, _ = planted(0)
        assert np.array_equal(k_means(vectors, 4), k_means(vectors, 4))

    def test_as_many_centres_as_vectors_are_these(self) -> None:
        found = k_means(2 * np.eye(3, dtype=np.float32), 3)
        assert sorted(found.tolist()) == sorted(np.eye(3).tolist())

    def test_of_equal_vectors_there_are_as_many_centres_as_asked_for(self) -> None:
        found = k_means(np.ones((4, 2), np.float32), 3)
        assert found == pytest.approx(np.full((3, 2), 0.5**0.5))


def described(folder: Path, vectors: np.ndarray, tags: list[list[float]]) -> Vectors:
    stored = {"vectors": torch.from_numpy(vectors), "tags": torch.tensor(tags)}
    save_file(stored, folder / Vectors.FILE)
    return Vectors("vectors", folder, "0")


class TestCluster:
    VECTORS = np.array([[2, 0], [0, 3], [1, 1], [-1, 0], [0, -5], [7, -7]], np.float32)
    TAGS: ClassVar[list[list[float]]] = [[1.0, 0], [1, 0], [1, 1], [0, 1], [0, 1], [1, NAN]]

    def made(self, tmp_path: Path, count: int) -> tuple[torch.Tensor, dict]:
        out = tmp_path / "out"
        out.mkdir()
        cluster(out, described(tmp_path, self.VECTORS, self.TAGS), ("a", "b"), count)
        made = centres_of(Vectors("prototypes", out, "1"))
        return made, json.loads((out / "prototypes.json").read_text())

    def test_images_of_one_tag_alone_count(self, tmp_path: Path) -> None:
        made, told = self.made(tmp_path, 2)
        assert made.shape == (2, 2, 2) and not isinstance(made, nn.Parameter)
        assert {*map(tuple, (made[0] / 2**0.5).round().int().tolist())} == {(0, 1), (1, 0)}
        assert {*map(tuple, (made[1] / 2**0.5).round().int().tolist())} == {(-1, 0), (0, -1)}
        torch.testing.assert_close(made.norm(dim=2), torch.full((2, 2), 2**0.5))
        assert told == {"a": {"items": 2, "most tags": 1}, "b": {"items": 2, "most tags": 1}}

    def test_where_they_are_too_few_those_of_two_tags_count_too_and_unknown_ones_never(self, tmp_path: Path) -> None:
        made, told = self.made(tmp_path, 3)
        assert told == {"a": {"items": 3, "most tags": 2}, "b": {"items": 3, "most tags": 2}}
        assert all((one - 1).abs().sum(1).min() < 1e-6 for one in made), "the image of both is a centre of both"

    def test_more_prototypes_than_images_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(EosinError, match=r"class 'a': 3 different training items are known to hold it, and 4"):
            self.made(tmp_path, 4)

    def test_images_that_look_the_same_are_one(self, tmp_path: Path) -> None:
        tags = [[1.0, 0]] * 4 + [[0.0, 1]] * 2
        same = described(tmp_path, np.array([[2, 0], [2, 0], [4, 0], [0, 1], [1, 1], [1, 2]], np.float32), tags)
        with pytest.raises(EosinError, match=r"class 'a': 2 different training items are known to hold it, and 3"):
            cluster(tmp_path, same, ("a", "b"), 3)


def test_drawn_prototypes_learn() -> None:
    torch.manual_seed(0)
    made = drawn(4, 10, 512)
    assert isinstance(made, nn.Parameter) and made.shape == (4, 10, 512)
    assert made.std().item() == pytest.approx(1, abs=0.02)


class Tapped(nn.Module):
    def taps(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [image, 2 * image]


def test_images_are_described_by_last_features_or_by_a_guide_that_sees_all() -> None:
    image = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Pooled(Tapped())(image), 2 * image.mean((2, 3)))  # type: ignore[arg-type]

    class Guide(nn.Module):
        def forward(self, image: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            return (image * weights).mean((2, 3))

    torch.testing.assert_close(Described(Guide)(image), image.mean((2, 3)))
