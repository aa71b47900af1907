"""Doubt in tags against plain loops and scikit-learn's logistic regression."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from eosin.core.errors import EosinError
from eosin.metrics.doubt import doubts, of_others, presence

N, K, E = 120, 3, 4


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def drawn(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Evidence that leans to the tags, tags of which some are unknown, folds, and groups inside of folds."""
    groups = rng.integers(0, 20, N)
    tags = (rng.random((N, K)) < 0.4).astype(np.float32)
    evidence = np.clip(0.5 * tags[:, :, None] + 0.5 * rng.random((N, K, E)), 0, 1)
    tags[rng.random((N, K)) < 0.1] = np.nan
    return evidence, tags, groups % 5, groups


def mean_of_others(values: np.ndarray, groups: np.ndarray, item: int) -> float:
    others = [v for j, v in enumerate(values) if j != item and groups[j] == groups[item] and not np.isnan(v)]
    return float(np.mean(others)) if others else float(np.nanmean(values))


def test_presence_is_a_logistic_regression_that_the_other_folds_taught(drawn: tuple[np.ndarray, ...]) -> None:
    evidence, tags, folds, groups = drawn
    found = presence(evidence, tags, folds, groups)
    for k in range(K):
        odds = logit(np.clip(evidence[:, k], 1e-4, 1 - 1e-4))
        rows = [
            [
                *odds[i],
                *(mean_of_others(odds[:, e], groups, i) for e in range(E)),
                mean_of_others(tags[:, k], groups, i),
            ]
            for i in range(N)
        ]
        columns = np.array(rows)
        for fold in range(5):
            taught = (folds != fold) & ~np.isnan(tags[:, k])
            mean, spread = columns[taught].mean(0), columns[taught].std(0)
            oracle = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000)
            oracle.fit((columns[taught] - mean) / spread, tags[taught, k])
            expected = oracle.predict_proba((columns[folds == fold] - mean) / spread)[:, 1]
            assert found[folds == fold, k] == pytest.approx(expected, abs=2e-3)


def test_an_item_is_judged_without_its_own_tag(drawn: tuple[np.ndarray, ...]) -> None:
    evidence, tags, folds, _ = drawn
    alone = np.arange(N)
    other = tags.copy()
    other[0] = 1 - np.nan_to_num(other[0])
    before, after = (presence(evidence, t, folds, alone)[folds == folds[0]] for t in (tags, other))
    # alone in its group, an item stands for nobody else in its fold; what it has of the others is their overall mean
    assert np.abs(before - after).max() < 0.02
    grouped = np.zeros(N, np.int64)
    assert np.isfinite(presence(evidence, tags, folds, grouped)).all()


def test_doubt_is_the_probability_of_the_other_tag_and_unknown_tags_have_none() -> None:
    found = doubts(np.array([[0.9, 0.9, 0.3], [0.2, 0.5, 1.0]]), np.array([[1, 0, np.nan], [1, 0, 0]]))
    assert found == pytest.approx(np.array([[0.1, 0.9, np.nan], [0.8, 0.5, 1.0]]), nan_ok=True)


def test_flipped_tags_have_the_highest_doubt(rng: np.random.Generator) -> None:
    true = (rng.random((N, K)) < 0.5).astype(np.float32)
    evidence = np.clip(0.7 * true[:, :, None] + 0.3 * rng.random((N, K, E)), 0, 1) * [[[0.2], [1.0], [0.6]]]  # scales
    tags = true.copy()
    flipped = {(3, 0), (40, 1), (77, 2), (101, 0)}
    for i, k in flipped:
        tags[i, k] = 1 - tags[i, k]
    doubt = doubts(presence(evidence, tags, np.arange(N) % 5, np.arange(N)), tags)
    highest = np.argsort(-doubt.ravel())[: len(flipped)]
    assert {divmod(int(at), K) for at in highest} == flipped


def test_means_of_others_are_those_of_a_loop(rng: np.random.Generator) -> None:
    values = rng.random((30, 2))
    values[rng.random((30, 2)) < 0.3] = np.nan
    groups = rng.integers(0, 12, 30)
    found = of_others(values, groups)
    for i in range(30):
        for e in range(2):
            assert found[i, e] == pytest.approx(mean_of_others(values[:, e], groups, i))
    assert (of_others(np.full((4, 1), np.nan), np.zeros(4, np.int64)) == 0).all()


def test_a_class_that_is_always_there_or_never_known_is_no_trouble(drawn: tuple[np.ndarray, ...]) -> None:
    evidence, tags, folds, groups = drawn
    tags[:, 0], tags[:, 1] = 1, np.nan
    found = presence(evidence, tags, folds, groups)
    assert found[folds == 0, 0] == pytest.approx((sum(folds != 0) + 1) / (sum(folds != 0) + 2))
    assert np.isnan(found[:, 1]).all()
    assert np.isfinite(found[:, 2]).all()


def test_evidence_of_a_diverged_training_is_refused(drawn: tuple[np.ndarray, ...]) -> None:
    evidence, tags, folds, groups = drawn
    evidence[5, 1, 2] = np.nan
    with pytest.raises(EosinError, match="diverged"):
        presence(evidence, tags, folds, groups)
