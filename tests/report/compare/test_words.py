"""How values are said: p-values, differences, verdicts and the names of runs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from eosin.report.compare import words
from eosin.report.compare.form import Spread
from report.compare.fake_comparison import arm, by_folds, by_seeds, comparison, versus, with_gaps


@pytest.mark.parametrize(
    ("p", "column", "said"),
    [
        (0.0312, ".031", "p = .031"),
        (0.001, ".001", "p = .001"),
        (0.00099, "< .001", "p < .001"),
        (0.9999, "1.000", "p = 1.000"),
        (1.0, "1.000", "p = 1.000"),
        (0.0, "< .001", "p < .001"),
        (math.nan, "–", "p = –"),
    ],
)
def test_p_values(p: float, column: str, said: str) -> None:
    assert words.p_value(p) == column and words.p_said(p) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0417, "+0.042"), (-0.0417, "−0.042"), (0.0001, "0.000"), (-0.0001, "0.000"), (math.nan, "–"), (None, "–")],
)
def test_differences_have_a_sign_unless_they_round_to_nothing(value: float | None, said: str) -> None:
    assert words.signed(value) == said


def test_spreads_and_intervals() -> None:
    assert words.spread(Spread(0.51234, 0.0126, (0.5, 0.52))) == "0.512 ± 0.013"
    assert words.spread(Spread(0.51234, None, (0.51234,))) == "0.512"
    assert words.spread(Spread(None, None, (0.5, None))) == "–"
    assert words.interval((0.1, 0.2)) == "0.100 to 0.200" and words.interval((None, 0.2)) == "–"
    assert words.interval((-0.0123, 0.2), sign=True) == "−0.012 to +0.200"


@pytest.mark.parametrize(
    ("difference", "gained", "said"),
    [
        (0.01, (3, 3), "beats cam"),
        (0.0099, (3, 3), "no clear difference to cam"),
        (0.2, (2, 3), "no clear difference to cam"),
        (0.0, (0, 3), "no clear difference to cam"),
        (-0.2, (1, 3), "no clear difference to cam"),
        (-0.01, (0, 3), "lower than cam"),
        (math.nan, (0, 3), "no clear difference to cam"),
        (0.2, (1, 1), "one seed, no verdict"),
        (-0.2, (0, 1), "one seed, no verdict"),
    ],
)
def test_only_the_house_rule_says_beats(difference: float, gained: tuple[int, int], said: str) -> None:
    assert words.verdict(by_seeds(), versus(difference, gained)) == said


def test_one_sentence_an_arm() -> None:
    made = by_seeds()
    said = [words.sentence(made, one) for one in words.ordered(made)]
    assert said[0] == "cam: 0.520 mIoU (95 % interval 0.490 to 0.550); the baseline."
    assert said[1].startswith("mlps_x (a 50% change): 0.562 mIoU")
    assert "; beats cam: +0.042 (95 % interval +0.027 to +0.057), gains in 3 of 3 seeds, Holm p < .001; " in said[1]
    assert "no clear difference to cam" in said[2] and said[2].endswith("145 patients, permutations drawn at random.")
    assert "an upper bound trained on truth; beats cam" in said[3]
    folds = by_folds()
    assert words.sentence(folds, folds.arms[1]).startswith("supervised: 0.655 pooled mIoU")
    assert "gains in 2 of 2 folds" in words.sentence(folds, folds.arms[1])
    gaps = with_gaps()
    assert "None" not in words.sentence(gaps, gaps.arms[1]) and "nan" not in words.sentence(gaps, gaps.arms[1])


def test_an_arm_without_a_test_is_no_baseline() -> None:
    made = comparison([arm("cam", (0.5,)), arm("other", (0.6,))])
    assert words.sentence(made, made.arms[1]).endswith("not tested against cam.")


def test_runs_are_named_once() -> None:
    made = arm("cam", (0.5, 0.5, 0.5, 0.5))
    assert words.runs(made) == "seed 0, 1, 2, 3"
    both = tuple(f"seed {s}, fold {f}" for s in (0, 1) for f in (1, 2))
    assert words.runs(replace(made, labels=both)) == "seed 0, 1; fold 1, 2"
    ragged = replace(made, labels=both[:3], runs=made.runs[:3])
    assert words.runs(ragged) == "seed 0, fold 1; seed 0, fold 2; seed 1, fold 1"
    assert words.run_word(by_seeds()) == "seed" and words.run_word(by_folds()) == "fold"
    assert words.run_word(comparison([replace(made, labels=both)], folds=2)) == "run"


def test_the_t_test_shows_its_stars() -> None:
    assert words.t_test(versus(0.1, (3, 3))) == "t = 3.46, p = .026 *"
    assert words.t_test(versus(0.1, (3, 3), t=-1.0, t_p=0.4, stars="")) == "t = −1.00, p = .400"
    assert words.t_test(versus(0.1, (1, 1), t=None, t_p=None, stars="")) == "–"
