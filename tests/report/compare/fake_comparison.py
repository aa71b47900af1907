"""Comparisons built by hand: seeds over run folders that exist, folds, values that are missing, truth at test time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

from eosin.report.compare.form import Arm, Comparison, Cost, Published, Spread, Versus
from report.fake_run import CLASSES, make_run

NOWHERE = Path("gone")
CLAIM = Published(
    method="CAM & friends",
    source="Nobody et al. 2024, Table 2 (https://example.org/a_b?x=1)",
    protocol="tissue-drop",
    uses_truth=True,
    miou=61.5,
    dice=72.25,
    accuracy=None,
    iou={"tumour": 63.0, "stroma": 60.0, "necrosis": 12.5},
    notes=(1, 2),
)
COST = Cost(93.5, 660.0, 1150.0, 812.4, 11_177_538.0, 201.5)


def spread(*values: float | None) -> Spread:
    known = [v for v in values if v is not None]
    whole = len(known) == len(values) and known
    return Spread(fmean(known) if whole else None, stdev(known) if whole and len(known) > 1 else None, values)


def arm(name: str, mious: Sequence[float | None], runs: Sequence[Path] = (), **changes: object) -> Arm:
    """An arm whose class scores follow from its mean IoU."""

    def shifted(by: float) -> Spread:
        return spread(*(None if v is None else v + by for v in mious))

    def three(by: float) -> Mapping[str, Spread]:
        return {name: shifted(by + 0.05 * k) for k, name in enumerate(CLASSES.names)}

    mean = spread(*mious).mean
    made = Arm(
        name=name,
        method=name.partition(" ")[0],
        recipe=f"{name.partition(' ')[0]}-fake_tissue",
        settings="0123456789abcdef",
        step="segmenter",
        selection="masks",
        supervision="tags",
        runs=tuple(runs) or tuple(NOWHERE / f"{name}-{i}" for i in range(len(mious))),
        labels=tuple(f"seed {i}" for i in range(len(mious))),
        miou=spread(*mious),
        pooled=None,
        pooled_iou={},
        ci95=(None, None) if mean is None else (mean - 0.03, mean + 0.03),
        iou=three(-0.05),
        dice=three(0.05),
        mdice=shifted(0.1),
        accuracy=shifted(0.2),
        fwiou=shifted(0.15),
        groups={"tumour + stroma": shifted(0.025)},
        boundary={"miou": shifted(-0.2), "hd95": spread(*(31.25 + i for i in range(len(mious))))},
        objects={},
        calibration={"ece": shifted(-0.4), "ece_tempered": shifted(-0.45)},
        cost=COST,
        claim=None,
        versus=None,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def versus(difference: float, gained: tuple[int, int], **changes: object) -> Versus:
    made = Versus(
        difference=difference,
        ci95=(difference - 0.015, difference + 0.015),
        p=0.0156,
        p_holm=0.0312,
        exact=True,
        clusters=4,
        gained=gained,
        t=3.456,
        t_p=0.0258,
        stars="*",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def comparison(arms: Sequence[Arm], **changes: object) -> Comparison:
    made = Comparison(
        dataset="fake_tissue & more",
        digest="0123456789abcdef" * 4,
        licence="CC0 & free <for all>",
        split="test",
        protocol="strict",
        uses_truth=False,
        classes=CLASSES.names,
        colours=CLASSES.colours,
        mpp=0.5,
        folds=0,
        images=15,
        clustered_by="patient",
        baseline=arms[0].name,
        arms=tuple(arms),
        published=(),
        footnotes=(),
        command="eosin compare --methods cam,supervised --data fake_tissue --seeds 3 --out runs/compare",
        device="cpu (2 threads)",
        commits=("0123456789abcdef0123456789abcdef01234567",),
        budget=None,
        failures=(),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def by_seeds(root: Path | None = None) -> Comparison:
    """Three arms of three seeds: a baseline, one that beats it, one that does not, and an upper bound.

    Args:
        root: an empty folder for run folders; without it the runs are gone.
    """
    runs = (
        [[make_run(root, seed=10 * k + s, skill=0.7 + 0.1 * k).run for s in range(3)] for k in range(4)] if root else []
    )
    runs = runs or [[], [], [], []]
    arms = [
        arm("cam", (0.51, 0.53, 0.52), runs[0], claim=CLAIM),
        arm(
            "mlps_x (a 50% change)",
            (0.56, 0.57, 0.555),
            runs[1],
            versus=versus(0.0417, (3, 3), p=0.0002, p_holm=0.0004),
        ),
        arm("supervised", (0.7, 0.71, 0.72), runs[2], versus=versus(0.19, (3, 3)), supervision="truth"),
        arm("wide", (0.525, 0.53, 0.515), runs[3], versus=versus(0.0033, (1, 3), stars="", exact=False, clusters=145)),
    ]
    rows = (
        CLAIM,
        replace(CLAIM, method="Others", uses_truth=False, protocol="strict", notes=(), miou=55.0, dice=None, iou={}),
    )
    notes = ("The class IoUs printed average to 45.17, not to 61.5.", "8 of 9 test patients are in training | too.")
    return comparison(arms, published=rows, footnotes=notes)


def by_folds(root: Path | None = None) -> Comparison:
    """Two arms of three folds; the second lacks one."""
    runs: list[list[Path]] = [[], []]
    if root:
        for fold in (1, 2, 3):
            for k in (0, 1):
                runs[k].append(make_run(root / f"fold-{fold}", seed=k, skill=0.6 + 0.1 * fold).run)
    labels = ("seed 0, fold 1", "seed 0, fold 2", "seed 0, fold 3")
    first = arm("cam", (0.5, 0.6, 0.7), runs[0], labels=labels, pooled=0.612, ci95=(0.55, 0.66))
    second = arm(
        "supervised",
        (0.55, 0.66),
        runs[1][:2],
        labels=labels[:2],
        pooled=0.655,
        ci95=(0.6, 0.7),
        versus=versus(0.043, (2, 2)),
    )
    failures = ("supervised, fold 3: steps/segmenter: out of memory; lower fit.batch <8>",)
    return comparison([first, second], folds=3, images=45, clustered_by="image", failures=failures)


def with_gaps() -> Comparison:
    """One run each, scores that are missing or not finite, and a protocol that uses truth at test time."""
    bare = Cost(None, None, None, None, None, None)
    none = versus(-0.03, (0, 1), ci95=(None, None), p=float("nan"), p_holm=1.0, t=None, t_p=None, stars="")
    arms = [
        arm("cam", (0.5,), boundary={}, calibration={}, groups={}),
        arm("tpro", (None,), boundary={}, calibration={}, groups={}, cost=bare, versus=none, selection="last"),
    ]
    return comparison(
        arms,
        protocol="tissue-drop",
        uses_truth=True,
        mpp=None,
        licence="",
        commits=(),
        budget=10.0,
        failures=("tpro, seed 1: no space left on the disk", "tpro, seed 2: no space left on the disk"),
    )
