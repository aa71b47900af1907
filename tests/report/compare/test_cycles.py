"""The curves of methods that are trained in rounds: what their points are, and that the picture holds them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eosin.report.compare.cycles import Curve, curves, cycles, draw_cycles
from eosin.report.compare.write import write_comparison
from report.compare.fake_comparison import arm, comparison


def lines(step: str, scores: list[float | None]) -> list[dict[str, Any]]:
    return [
        {"step": step, "epoch": epoch, "val": None if score is None else {"miou": score, "other": 9.0}}
        for epoch, score in enumerate(scores)
    ]


def journal(**steps: list[float | None]) -> dict[str, list[dict[str, Any]]]:
    return {step.replace("_", "-"): lines(step.replace("_", "-"), scores) for step, scores in steps.items()}


def run_of(folder: Path, **steps: list[float | None]) -> Path:
    folder.mkdir(parents=True)
    told = [line for step in journal(**steps).values() for line in step]
    (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in told))
    return folder


def test_a_point_is_the_best_of_its_cycle_alone() -> None:
    told = journal(teacher=[0.3, 0.5], student=[0.7, 0.6], student_2=[0.4, 0.55, None])
    assert cycles(told) == [(2, 0.5), (4, 0.7), (7, 0.55)]


def test_steps_between_teacher_and_rounds_are_no_cycles() -> None:
    told = journal(teacher=[0.5], fusion=[0.9, 0.9], student=[0.6], student_2=[0.7])
    assert cycles(told) == [(1, 0.5), (2, 0.6), (3, 0.7)]


@pytest.mark.parametrize(
    "told",
    [
        journal(classifier=[0.5], segmenter=[0.6]),
        journal(teacher=[0.5], student=[0.6]),
        journal(teacher=[None], student=[0.6], student_2=[0.7]),
        {},
    ],
)
def test_without_rounds_or_scores_there_are_none(told: dict[str, Any]) -> None:
    assert cycles(told) == []


def test_an_arm_has_the_scores_of_all_its_runs(tmp_path: Path) -> None:
    rounds = [run_of(tmp_path / f"r{i}", teacher=[0.5 + i / 10], student=[0.6], student_2=[0.7]) for i in range(2)]
    uneven = [run_of(tmp_path / "u0", teacher=[0.5], student=[0.6], student_2=[0.7]), tmp_path / "gone"]
    plain = [run_of(tmp_path / "p0", network=[0.5, 0.6])]
    made = comparison(
        [arm("plain", [0.5], plain), arm("rounds", [0.5, 0.6], rounds), arm("uneven", [0.5, 0.6], uneven)]
    )
    assert curves(made) == [Curve("rounds", (1, 2, 3), ((0.5, 0.6), (0.6, 0.6), (0.7, 0.7)))]


def test_the_picture_is_the_same_each_time_and_shows_each_arm() -> None:
    found = [Curve("a", (4, 8, 12), ((0.5, 0.55), (0.6, 0.62), (0.7, 0.68))), Curve("b", (4, 8), ((0.5,), (0.4,)))]
    drawn = draw_cycles(found)
    assert drawn == draw_cycles(found)
    pixels = np.asarray(Image.open(io.BytesIO(drawn)).convert("RGB")).reshape(-1, 3)
    for colour in ((0x1F, 0x6F, 0xB2), (0xC8, 0x47, 0x2E)):
        assert (pixels == colour).all(1).sum() > 200
    alone = np.asarray(Image.open(io.BytesIO(draw_cycles(found[:1]))).convert("RGB")).reshape(-1, 3)
    assert not (alone == (0xC8, 0x47, 0x2E)).all(1).any()


def test_a_comparison_has_the_picture_where_there_are_rounds_and_loses_an_old_one(tmp_path: Path) -> None:
    rounds = run_of(tmp_path / "r", teacher=[0.5], student=[0.6], student_2=[0.7])
    with_rounds = comparison([arm("rounds", [0.5], [rounds])])
    without = comparison([arm("plain", [0.5])])
    picture = tmp_path / "out" / "ikd-curves.png"
    assert picture in write_comparison(with_rounds, tmp_path / "out") and picture.is_file()
    assert picture not in write_comparison(without, tmp_path / "out") and not picture.exists()
