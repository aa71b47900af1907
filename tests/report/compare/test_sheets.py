"""CSV and JSON: every number whole, nothing that is not JSON."""

from __future__ import annotations

import csv
import io
import json

from eosin.report.compare.sheets import arms_csv, as_json, runs_csv
from report.compare.fake_comparison import by_folds, by_seeds, with_gaps


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), strict=True))


def test_one_row_an_arm_unrounded() -> None:
    made = by_seeds()
    found = rows(arms_csv(made))
    assert [row["arm"] for row in found] == [arm.name for arm in made.arms]
    for row, arm in zip(found, made.arms, strict=True):
        assert float(row["miou"]) == arm.miou.mean and float(row["miou:sd"]) == arm.miou.sd
        assert float(row["iou:stroma"]) == arm.iou["stroma"].mean
        assert float(row["groups:tumour + stroma"]) == arm.groups["tumour + stroma"].mean
        assert (float(row["ci95_low"]), float(row["ci95_high"])) == arm.ci95
        assert float(row["memory_mb"]) == arm.cost.memory_mb
        if arm.versus is None:
            assert row["versus:p"] == row["baseline"] == ""
        else:
            assert float(row["versus:difference"]) == arm.versus.difference and row["baseline"] == "cam"
            assert row["versus:beats"] == str(arm.versus.beats)
    assert found[0]["claim:miou_percent"] == "61.5" and found[0]["claim:uses_truth"] == "True"


def test_folds_lead_with_the_pooled_score() -> None:
    found = rows(arms_csv(by_folds()))
    assert [row["headline"] for row in found] == ["0.612", "0.655"] and found[0]["miou"] != found[0]["pooled"]


def test_long_form_holds_every_value_of_every_run() -> None:
    made = by_folds()
    found = rows(runs_csv(made))
    told = {(row["arm"], row["run"], row["measure"], row["name"]): row["value"] for row in found}
    assert len(told) == len(found)
    for arm in made.arms:
        for i, label in enumerate(arm.labels):
            assert float(told[arm.name, label, "miou", ""]) == arm.miou.values[i]
            assert float(told[arm.name, label, "dice", "tumour"]) == arm.dice["tumour"].values[i]
            assert float(told[arm.name, label, "boundary", "hd95"]) == arm.boundary["hd95"].values[i]
    assert {row["folder"] for row in found} == {str(run) for arm in made.arms for run in arm.runs}


def test_what_is_missing_is_empty() -> None:
    text = arms_csv(with_gaps()) + runs_csv(with_gaps())
    assert "nan" not in text.lower() and "None" not in text
    assert rows(arms_csv(with_gaps()))[1]["miou"] == rows(arms_csv(with_gaps()))[1]["versus:p"] == ""


def test_json_is_plain_and_says_all() -> None:
    for made in (by_seeds(), by_folds(), with_gaps()):
        text = json.dumps(as_json(made), allow_nan=False)
        found = json.loads(text)
        assert found["schema"] == 1 and found["failures"] == list(made.failures)
        assert [arm["miou"]["values"] for arm in found["arms"]] == [list(arm.miou.values) for arm in made.arms]
        assert [arm["runs"] for arm in found["arms"]] == [[str(run) for run in arm.runs] for arm in made.arms]
    gaps = as_json(with_gaps())["arms"][1]["versus"]
    assert gaps["p"] is None and gaps["beats"] is False and gaps["gained"] == [0, 1]
