"""What the command line prints of scores: truth that was used is said in every table."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from eosin.cli.show import comparison_table, details, score_table
from eosin.core.classes import Classes, Tissue
from eosin.metrics.protocols import PROTOCOLS, Subject
from report.compare.fake_comparison import by_seeds

CLASSES = Classes(tissues=(Tissue(name="a", colour=(0, 0, 0)), Tissue(name="b", colour=(9, 9, 9))), ignore=2)


def printed(table: Table) -> str:
    console = Console(width=250, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def entry(protocol: str) -> dict[str, Any]:
    subject = Subject(dataset="drawn", split="test", step="segmenter", selection="tags")
    return dict(PROTOCOLS[protocol](CLASSES).score_entry(subject, np.ones((3, 3, 3), int), ["p", "q", "r"]))


def test_scores_for_which_truth_was_used_are_marked() -> None:
    for protocol in ("tissue-fp", "tissue-fp-tags"):
        assert ("uses truth" in printed(score_table([entry(protocol)]))) == PROTOCOLS[protocol].uses_truth


def test_comparisons_for_which_truth_was_used_are_marked() -> None:
    for used in (False, True):
        comparison = replace(by_seeds(), protocol="tissue-fp-tags", uses_truth=used)
        assert ("tissue-fp-tags uses truth at test time" in printed(comparison_table(comparison))) == used


def test_a_score_is_told_with_outlines_confidence_and_patches() -> None:
    outline = {"miou": 0.5, "width_px": 2, "hd": {"a": 12.34, "b": None}, "hd95": {"a": 5.0, "b": None}}
    scored: dict[str, Any] = {
        "boundary": {**outline, "images": {"a": 3, "b": 0}, "empty": {"a": 1, "b": 0}},
        "calibration": {"ece": 0.125, "ece_tempered": None},
    }
    plain = details(scored)
    assert "a: HD 12.3 px, HD95 5.0 px, 3 images, 1 of them without a predicted pixel" in plain
    assert "ECE 12.5 %, with the card's temperature – %" in plain and "objects" not in plain
    patches = {"released": {"f1": 0.75, "hd": None}, "honest": {"f1": 0.5}}
    told = details({**scored, "objects": {"f1": 0.5, "dice": 0.25, "hausdorff": 9.0}, "mil_patch": patches})
    assert "objects: F1 50.0 %, Dice 25.0 %, Hausdorff 9.0 px" in told
    assert "mil-patch, released: f1 0.75, hd –" in told and "mil-patch, honest: f1 0.5" in told
