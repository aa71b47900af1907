"""Comparisons of hand-made runs: every number against plain arithmetic or a slow oracle, every misuse refused."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest

from eosin.core.errors import EosinError, WrongUse
from eosin.report.compare.build import build
from eosin.report.compare.form import Arm, Comparison
from eosin.report.compare.read import read_run, settings_digest
from oracles.permutation import data_set_score, enumerated, holm
from report.compare.hand_made import IDS, PATIENTS, drawn, read, write_run

RIGHT, HALF = [[10, 0], [0, 10]], [[5, 5], [5, 5]]


def compared(*folders: Path, **options: Any) -> Comparison:
    return build(read(*folders), command="eosin compare", **options)


def arm(comparison: Comparison, name: str) -> Arm:
    return next(one for one in comparison.arms if one.name == name)


def test_scores_of_seeds_are_those_counted_by_hand(tmp_path: Path) -> None:
    first = write_run(tmp_path / "0", [RIGHT, HALF, RIGHT, HALF, RIGHT, HALF])
    second = write_run(tmp_path / "1", [RIGHT, RIGHT, RIGHT, RIGHT, RIGHT, HALF], seed=1)
    made = compared(first, second).arms[0]
    low, high = 45 / 75, 55 / 65  # a class has 60 true and 60 predicted pixels, of which 45 and 55 are right
    assert made.miou.values == pytest.approx((low, high))
    assert made.miou.mean == pytest.approx((low + high) / 2)
    assert made.miou.sd == pytest.approx(stdev([low, high]))
    assert made.iou["tumour"].values == pytest.approx((low, high))
    assert made.mdice.values == pytest.approx((45 / 60, 55 / 60))
    assert made.accuracy.mean == pytest.approx(50 / 60)
    assert made.labels == ("seed 0", "seed 1")
    assert made.pooled is None and made.pooled_iou == {}
    assert made.versus is None
    between = made.ci95
    assert between[0] is not None and between[1] is not None and between[0] < (low + high) / 2 < between[1]


def test_costs_are_means_of_what_the_runs_noted(tmp_path: Path) -> None:
    made = compared(*(write_run(tmp_path / str(k), drawn(k), seed=k) for k in range(2)))
    cost = made.arms[0].cost
    assert cost.training_s == 10 + 11 + 10 + 11
    assert (cost.wall_s, cost.cpu_s, cost.memory_mb, cost.parameters) == (60, 90, 100.5, 50)
    assert cost.images_per_s == 41  # the upper median of the deployed step's 40 and 41
    assert made.device == "cpu"
    assert made.commits == ("0123456789",)
    (tmp_path / "0" / "journal.jsonl").unlink()
    gone = compared(tmp_path / "0", tmp_path / "1").arms[0].cost
    assert gone.training_s is None and gone.images_per_s is None


@pytest.mark.parametrize("classes", [2, 3])
def test_difference_gains_and_p_agree_with_the_oracle(tmp_path: Path, classes: int) -> None:
    names = ("tumour", "stroma", "necrosis")[:classes]
    counts = {
        name: [drawn(10 * k + seed, classes=classes, skill=skill) for seed in range(2)]
        for k, (name, skill) in enumerate((("base", 4), ("other", 9), ("third", 7)))
    }
    folders = [
        write_run(tmp_path / f"{name}-{seed}", own, seed=seed, recipe=name, names=names)
        for name, seeds in counts.items()
        for seed, own in enumerate(seeds)
    ]
    made = compared(*folders)
    assert [one.name for one in made.arms] == ["base", "other", "third"]
    assert made.baseline == "base"
    assert made.clustered_by == "patient"
    raw = []
    for name in ("other", "third"):
        versus = arm(made, name).versus
        assert versus is not None
        seen, p = enumerated(counts[name], counts["base"], PATIENTS, range(classes))
        assert versus.difference == pytest.approx(seen, abs=1e-12)
        assert versus.p == pytest.approx(p)
        assert (versus.exact, versus.clusters) == (True, 3)
        ours, theirs = ([data_set_score(own, range(classes)) for own in counts[arm]] for arm in (name, "base"))
        assert versus.gained == (sum(a > b for a, b in zip(ours, theirs, strict=True)), 2)
        assert versus.difference == pytest.approx(fmean(ours) - fmean(theirs))
        assert versus.t is not None
        raw.append(p)
    assert [arm(made, name).versus.p_holm for name in ("other", "third")] == pytest.approx(holm(raw))  # type: ignore[union-attr]


def folds(root: Path, name: str, counts: Any, *, seed: int = 0, of: int = 3) -> list[Path]:
    """A run for each fold of two images, one patient each."""
    return [
        write_run(
            root / f"{name}-{seed}-{k}",
            counts[2 * k : 2 * k + 2],
            ids=IDS[2 * k : 2 * k + 2],
            patients=PATIENTS[2 * k : 2 * k + 2],
            seed=seed,
            recipe=name,
            fold=(k + 1, of),
        )
        for k in range(of)
    ]


def test_folds_are_pooled_and_tested_by_all_their_images(tmp_path: Path) -> None:
    counts = {"base": drawn(1), "other": drawn(2, skill=15)}
    runs = [path for name, own in counts.items() for path in folds(tmp_path, name, own)]
    made = compared(*reversed(runs), groups=[["stroma"]])  # in any order
    assert (made.folds, made.images, made.digest) == (3, 6, "d" * 64)
    assert made.baseline == "other"
    for name, own in counts.items():
        one = arm(made, name)
        assert one.pooled == pytest.approx(data_set_score(own, range(2)))
        assert list(one.pooled_iou.values()) == pytest.approx([data_set_score(own, [k]) for k in range(2)])
        assert one.miou.values == pytest.approx([data_set_score(own[2 * k : 2 * k + 2], range(2)) for k in range(3)])
        assert one.labels == ("seed 0, fold 1", "seed 0, fold 2", "seed 0, fold 3")
        assert one.groups["stroma"].mean == pytest.approx(
            fmean(data_set_score(own[2 * k : 2 * k + 2], [1]) for k in range(3))
        )
        assert one.groups["stroma, pooled"].mean == pytest.approx(data_set_score(own, [1]))
        assert one.groups["stroma, pooled"].values == (None, None, None)
    versus = arm(made, "base").versus
    assert versus is not None
    seen, p = enumerated([counts["base"]], [counts["other"]], PATIENTS, range(2))
    assert versus.difference == pytest.approx(seen)
    assert versus.p == pytest.approx(p)
    assert versus.gained[1] == 3


def test_folds_of_two_seeds_are_pooled_seed_by_seed(tmp_path: Path) -> None:
    counts = [drawn(1), drawn(2)]
    runs = [path for seed, own in enumerate(counts) for path in folds(tmp_path, "base", own, seed=seed)]
    one = compared(*runs, groups=[["tumour"]]).arms[0]
    each = [data_set_score(own, range(2)) for own in counts]
    assert one.pooled == pytest.approx(fmean(each))
    tumour = [data_set_score(own, [0]) for own in counts]
    assert one.groups["tumour, pooled"].sd == pytest.approx(stdev(tumour))
    assert len(one.miou.values) == 6


def test_a_seed_without_all_its_folds_is_left_out_and_told(tmp_path: Path) -> None:
    runs = [*folds(tmp_path, "base", drawn(1)), *folds(tmp_path, "base", drawn(2), seed=1)[:2]]
    made = compared(*runs)
    assert made.arms[0].pooled == pytest.approx(data_set_score(drawn(1), range(2)))
    assert "base: seed 1, fold 1, seed 1, fold 2 left out, since other folds are missing." in made.footnotes


def test_a_missing_fold_is_refused_unless_it_failed(tmp_path: Path) -> None:
    runs = [*folds(tmp_path, "base", drawn(1))[:2], *folds(tmp_path, "other", drawn(2))]
    with pytest.raises(WrongUse, match="base: 3 folds are needed for a pooled score, there are seed 0, fold 1, seed 0"):
        compared(*runs)
    made = compared(*runs, failures=["base-fold3: loss is nan"], baseline="base")
    assert [one.name for one in made.arms] == ["other"]
    assert "base, which was to be the baseline, could not be made; the baseline is other." in made.footnotes
    with pytest.raises(EosinError, match="no method has all its folds; the first failure: base-fold3"):
        compared(*runs[:2], failures=["base-fold3: loss is nan"])


def test_arms_are_held_against_each_other_on_common_seeds_only(tmp_path: Path) -> None:
    base = [write_run(tmp_path / f"b{k}", drawn(k), seed=k, recipe="base") for k in range(3)]
    other = write_run(tmp_path / "o", drawn(7), seed=1, recipe="other")
    stranger = write_run(tmp_path / "s", drawn(8), seed=5, recipe="stranger")
    made = compared(*base, other, stranger)
    versus = arm(made, "other").versus
    assert versus is not None
    assert versus.difference == pytest.approx(enumerated([drawn(7)], [drawn(1)], PATIENTS, range(2))[0])
    assert versus.gained[1] == 1
    assert versus.t is None  # one value is no sample
    assert versus.p_holm == versus.p  # the stranger was not tested, so there was one test
    assert arm(made, "stranger").versus is None
    assert any("other was held against base on their common seeds only: 1." in said for said in made.footnotes)
    assert any("stranger has no seed in common with base" in said for said in made.footnotes)


def test_one_seed_has_no_standard_deviation_and_no_t_test(tmp_path: Path) -> None:
    made = compared(
        write_run(tmp_path / "a", drawn(1), recipe="a"), write_run(tmp_path / "b", drawn(2, skill=15), recipe="b")
    )
    versus = made.arms[1].versus
    assert versus is not None
    assert made.arms[0].miou.sd is None
    assert (versus.t, versus.t_p, versus.stars) == (None, None, "")
    assert 0 < versus.p <= 1


def test_images_without_patients_are_clusters_of_their_own(tmp_path: Path) -> None:
    nobody = [""] * 6
    made = compared(
        write_run(tmp_path / "a", drawn(1), recipe="a", patients=nobody),
        write_run(tmp_path / "b", drawn(2), recipe="b", patients=nobody),
    )
    versus = made.arms[1].versus
    assert versus is not None
    assert made.clustered_by == "image"
    assert versus.clusters == 6
    assert versus.p == pytest.approx(enumerated([drawn(2)], [drawn(1)], IDS, range(2))[1])


def test_a_class_that_never_occurs_has_no_score_and_is_left_out_of_means(tmp_path: Path) -> None:
    absent = [[[5, 5, 0], [2, 8, 0], [0, 0, 0]]] * 6
    other = [[[6, 4, 0], [1, 9, 0], [0, 0, 0]]] * 6
    names = ("tumour", "stroma", "necrosis")
    made = compared(
        write_run(tmp_path / "a", absent, recipe="a", names=names),
        write_run(tmp_path / "b", other, recipe="b", names=names),
        groups=[["necrosis"], ["tumour", "necrosis"]],
    )
    first = made.arms[0]
    assert first.iou["necrosis"].mean is None
    assert first.miou.mean == pytest.approx((5 / 12 + 8 / 15) / 2)
    assert first.groups["necrosis"].mean is None
    assert first.groups["tumour + necrosis"].mean == pytest.approx(5 / 12)
    versus = made.arms[1].versus
    assert versus is not None
    assert versus.difference == pytest.approx((6 / 11 + 9 / 14) / 2 - (5 / 12 + 8 / 15) / 2)


def test_the_background_of_a_protocol_is_counted_but_is_no_class(tmp_path: Path) -> None:
    counts = np.asarray([[[8, 1, 1], [2, 7, 1], [3, 0, 7]]] * 6)
    run = write_run(tmp_path / "a", counts[:, :2, :2])
    place = run / "predictions" / "segmenter" / "test" / "counts.npz"
    np.savez_compressed(place, ids=np.array(IDS), patients=np.array(PATIENTS), counts=counts)
    entry = json.loads((run / "scores.json").read_text())[0]
    entry |= {"confusion": counts.sum(0).tolist(), "protocol": "tissue-fp", "background": True}
    (run / "scores.json").write_text(json.dumps([entry]))
    made = compared(run, groups=[["tumour", "stroma"]])
    assert made.protocol == "tissue-fp"
    assert made.arms[0].groups["tumour + stroma"].mean == pytest.approx((8 / 15 + 7 / 11) / 2)
    assert made.arms[0].ci95 == pytest.approx(((8 / 15 + 7 / 11) / 2,) * 2)  # all patients are alike


def test_what_was_scored_beside_counts_is_averaged_over_classes_then_runs(tmp_path: Path) -> None:
    def more(x: float) -> dict[str, Any]:
        return {
            "boundary": {"miou": x, "hd": {"tumour": 2 * x, "stroma": None}, "hd_um": None, "hd95": {"tumour": None}},
            "objects": {"f1": x, "dice": None, "hausdorff": 3.0, "hausdorff_um": None, "truth": 4},
            "calibration": {"ece": x / 2, "ece_tempered": None, "temperature": 1.5, "bins": []},
        }

    new = [write_run(tmp_path / str(k), drawn(k), seed=k, more=more(0.5 + k / 4)) for k in range(2)]
    one = compared(*new).arms[0]
    assert {name: spread.mean for name, spread in one.boundary.items()} == {"miou": 0.625, "hd": 1.25}
    assert {name: spread.mean for name, spread in one.objects.items()} == {"f1": 0.625, "hausdorff": 3.0}
    assert {name: spread.mean for name, spread in one.calibration.items()} == {"ece": 0.3125, "temperature": 1.5}
    old = write_run(tmp_path / "old", drawn(5), seed=5)
    assert compared(*new, old).arms[0].boundary["miou"].mean is None  # not the mean of some of them
    assert compared(old).arms[0].boundary == {}


def test_a_run_from_before_the_final_step_was_named_is_read(tmp_path: Path) -> None:
    run = write_run(tmp_path / "old", drawn(1))
    said = json.loads((run / "provenance.json").read_text())
    for key in ("final", "peak_memory_mb"):
        del said[key]
    del said["dataset"]["fold"]
    (run / "provenance.json").write_text(json.dumps(said))
    entry = json.loads((run / "scores.json").read_text())[0]
    (run / "scores.json").write_text(json.dumps([{**entry, "step": "classifier", "miou": 0.1}, entry]))
    one = compared(run).arms[0]
    assert one.step == "segmenter"
    assert one.miou.mean == pytest.approx(entry["miou"])
    assert one.cost.memory_mb is None


def test_a_claim_of_the_recipe_is_shown(tmp_path: Path) -> None:
    claim = {"source": "Nobody 2024, Table 2", "protocol": "strict", "miou": 61.5, "iou": {"tumour": 60.0}}
    one = compared(write_run(tmp_path / "a", drawn(1), settings={"claim": claim})).arms[0]
    assert one.claim is not None
    assert (one.claim.source, one.claim.miou, one.claim.iou) == ("Nobody 2024, Table 2", 61.5, {"tumour": 60.0})
    assert compared(write_run(tmp_path / "b", drawn(1))).arms[0].claim is None


def other(root: Path, **changes: Any) -> Path:
    return write_run(root / "second", drawn(2), **{"seed": 1, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": "e" * 64}, "second: other data than .*first"),
        ({"protocol": "binary"}, "second: other protocol than .*first.*binary and strict"),
        ({"names": ("stroma", "tumour")}, "second: other classes than .*first"),
        ({"fold": (1, 5)}, "second: other number of folds than .*first"),
        ({"ids": ("i1", "i2", "i3", "i4", "i5", "x")}, "second: scored on other images than .*first"),
        ({"seed": 0}, "(first|second): cam-hand has seed 0 twice"),
        (
            {"settings": {"fit": {"lr": 0.5}}},
            "(first|second): other settings than .*which has the same name 'cam-hand'",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    first = write_run(tmp_path / "first", drawn(1))
    with pytest.raises(WrongUse, match=words):
        compared(first, other(tmp_path, **changes))


def test_other_truth_is_refused_by_name(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", drawn(1), recipe="a")
    changed = drawn(2)
    changed[3][0][0] += 1
    second = write_run(tmp_path / "second", changed, recipe="b")
    with pytest.raises(WrongUse, match=r"second: scored against other masks than .*first"):
        compared(first, second)


def test_folds_of_two_different_splits_are_refused(tmp_path: Path) -> None:
    runs = folds(tmp_path, "base", drawn(1))[:2]
    runs.append(
        write_run(tmp_path / "x", drawn(1)[:2], ids=IDS[1:3], patients=["P1", "P2"], recipe="base", fold=(3, 3))
    )
    with pytest.raises(WrongUse, match="image i2 was tested in two folds"):
        compared(*runs)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([["tumor"]], "did you mean 'tumour'"),
        ([["tumour", "tumour"]], "each once"),
        ([[]], "name some classes"),
    ],
)
def test_a_group_of_no_classes_is_refused(tmp_path: Path, groups: list[list[str]], words: str) -> None:
    with pytest.raises(WrongUse, match=words):
        compared(write_run(tmp_path / "a", drawn(1)), groups=groups)


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (lambda run: (run / "recipe.yaml").unlink(), WrongUse, "not a run"),
        (lambda run: (run / "provenance.json").unlink(), EosinError, r"not finished \(no provenance.json\)"),
        (lambda run: (run / "scores.json").unlink(), EosinError, r"not finished \(no scores.json\)"),
        (lambda run: (run / "scores.json").write_text("[]"), WrongUse, r"'test' was not scored.*\(.*: none\)"),
        (lambda run: (run / "scores.json").write_text("{"), EosinError, "not valid JSON"),
        (
            lambda run: (run / "predictions" / "segmenter" / "test" / "counts.npz").unlink(),
            EosinError,
            "counts.npz: no such file; run it again with --redo score-segmenter-test",
        ),
    ],
    ids=["recipe", "provenance", "scores", "empty", "broken", "counts"],
)
def test_a_run_that_is_not_whole_is_named(tmp_path: Path, spoil: Any, kind: type[Exception], words: str) -> None:
    run = write_run(tmp_path / "run", drawn(1))
    spoil(run)
    with pytest.raises(kind, match=words):
        compared(run)


def test_a_split_that_was_not_scored_names_those_that_were(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"split 'val' was not scored with masks \(splits that were: test\)"):
        read_run(write_run(tmp_path / "run", drawn(1)), "val")


def test_settings_are_alike_without_seed_and_claim(tmp_path: Path) -> None:
    digests = [
        settings_digest(read_run(write_run(tmp_path / str(k), drawn(k), seed=k, settings=own), "test"))
        for k, own in enumerate(({}, {"claim": {"source": "x", "protocol": "strict"}}, {"fit": {"lr": 0.5}}))
    ]
    assert digests[0] == digests[1] != digests[2]
