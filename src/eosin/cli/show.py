"""What the command line prints: tables for people, one JSON value for machines."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from eosin import verbs


class State:
    """What the command line was told for all verbs."""

    json = False
    debug = False


def error(line: str) -> None:
    """Say in one line what is wrong."""
    print(f"eosin: {line}", file=sys.stderr)


def print_(value: Any, text: Callable[[], str | Table]) -> None:
    """Print a value as JSON for machines, or its text for people."""
    if State.json:
        print(json.dumps(value, indent=1, ensure_ascii=False))
        return
    shown = text()
    if isinstance(shown, str):
        print(shown)
    else:
        Console(width=None if sys.stdout.isatty() else 200).print(shown)


def table(heads: list[str], rows: list[list[str]]) -> Table:
    """A plain table."""
    plain = Table(*(Column(head, overflow="fold") for head in heads), box=None, pad_edge=False)
    for row in rows:
        plain.add_row(*row)
    return plain


def percent(value: float | None, sign: str = "") -> str:
    """A score in percent, or a dash; ``sign`` is ``+`` for differences."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:{sign}.1f}"


def interval(ends: Sequence[float | None]) -> str:
    """An interval in percent; nothing where there is none."""
    return "" if None in ends else "–".join(map(percent, ends))


def names(text: str | None) -> list[str]:
    """The parts of ``a,b,c``."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def minutes(text: str | None) -> float | None:
    """What ``--budget minutes=N`` says."""
    from eosin.core.errors import WrongUse

    if text is None:
        return None
    unit, _, value = text.partition("=")
    try:
        if unit == "minutes":
            return float(value)
    except ValueError:
        pass
    raise WrongUse(f"--budget {text}: write minutes=N, e.g. minutes=8")


def shares(text: str) -> list[float]:
    """What ``--fractions 0.2,0.1`` says."""
    from eosin.core.errors import WrongUse

    try:
        return [float(share) for share in names(text)]
    except ValueError:
        raise WrongUse(f"--fractions {text}: write shares from 0 to 1, as 0.2,0.1,0.05,0.01") from None


def adaptation_table(adaptation: Any) -> Table:
    """One line a direction, stage and method; scores in percent."""
    rows = []
    for direction in adaptation.directions:
        for stage, comparison in direction.stages:
            for arm in comparison.arms:
                score = percent(arm.miou.mean) + (f" ± {percent(arm.miou.sd)}" if arm.miou.sd is not None else "")
                tested = _tested(arm, adaptation.methods[0])
                rows.append(
                    [direction.name, stage.said, arm.name, str(len(arm.runs)), score, interval(arm.ci95), *tested]
                )
    whole = table(["", "trained on", "method", "runs", "mIoU %", "95 %", "difference", "p (Holm)"], rows)
    if adaptation.any.uses_truth:
        whole.caption = f"protocol {adaptation.any.protocol} uses truth at test time; not comparable with strict scores"
    return whole


def comparison_table(comparison: Any) -> Table:
    """One line an arm; scores in percent."""
    rows = []
    for arm in comparison.arms:
        score = percent(arm.miou.mean) + (f" ± {percent(arm.miou.sd)}" if arm.miou.sd is not None else "")
        pooled = [percent(arm.pooled)] if comparison.folds else []
        means = [score, *pooled, interval(arm.ci95), *(percent(spread.mean) for spread in arm.groups.values())]
        by_class = arm.pooled_iou or {name: spread.mean for name, spread in arm.iou.items()}
        each = [percent(by_class[name]) for name in comparison.classes]
        rows.append([arm.name, str(len(arm.runs)), *means, *each, *_tested(arm, comparison.baseline)])
    pooled = ["pooled %"] if comparison.folds else []
    heads = ["method", "runs", "mIoU %", *pooled, "95 %", *comparison.arms[0].groups, *comparison.classes]
    whole = table([*heads, "difference", "p (Holm)"], rows)
    if comparison.uses_truth:
        whole.caption = f"protocol {comparison.protocol} uses truth at test time; not comparable with strict scores"
    return whole


def _tested(arm: Any, baseline: str) -> list[str]:
    """The difference to the baseline and its p value."""
    if arm.versus is None:
        return ["baseline" if arm.name == baseline else "not tested", ""]
    p = arm.versus.p_holm
    return [percent(arm.versus.difference, "+"), "–" if math.isnan(p) else f"{p:.3g}"]


def score_table(entries: list[dict[str, Any]]) -> Table:
    """One line an entry; scores in percent."""
    names = entries[0]["classes"] if entries else []
    rows = []
    for e in entries:
        if "confusion" in e:
            means = [percent(e["miou"]), interval(e["ci95"]["miou"])]
            each = [percent(e["iou"][n]) for n in names]
        else:
            means = [percent(e["tags"]["map"]), ""]
            each = [percent(e["tags"]["average_precision"][n]) for n in names]
        protocol = e["protocol"] + (" (uses truth)" if e["uses_truth"] else "")
        rows.append([e["step"], e["split"], protocol, e["selection"], str(e["n_images"]), *means, *each])
    return table(["step", "split", "protocol", "selected by", "images", "mIoU/mAP %", "95 %", *names], rows)


def details(entry: dict[str, Any]) -> str:
    """What was scored beside the matrix, in lines: outlines, objects, confidence, patches."""
    outline, sure = entry["boundary"], entry["calibration"]
    lines = [f"boundary IoU {percent(outline['miou'])} % within {outline['width_px']} px"]
    for name, n in outline["images"].items():
        distances = f"HD {_px(outline['hd'][name])}, HD95 {_px(outline['hd95'][name])}"
        lines.append(f"{name}: {distances}, {n} images, {outline['empty'][name]} of them without a predicted pixel")
    lines.append(f"ECE {percent(sure['ece'])} %, with the card's temperature {percent(sure['ece_tempered'])} %")
    if (objects := entry.get("objects")) is not None:
        scores = f"F1 {percent(objects['f1'])} %, Dice {percent(objects['dice'])} %"
        lines.append(f"objects: {scores}, Hausdorff {_px(objects['hausdorff'])}")
    for kind, said in entry.get("mil_patch", {}).items():
        lines.append(f"mil-patch, {kind}: " + ", ".join(f"{key} {_short(value)}" for key, value in said.items()))
    return "\n".join(lines)


def _px(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} px"


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def print_run(folder: Path) -> None:
    """Print the scores of a run."""
    entries = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    print_({"run": str(folder), "scores": entries}, lambda: score_table(entries))
    if not State.json:
        print(f"report: {folder / 'report.html'}   (for research use only)")


def print_summary(folder: Path) -> None:
    """Print what a data set holds."""
    facts = verbs.describe_data(folder)
    rows = [
        [
            split,
            str(n["images"]),
            str(n["masks"]),
            str(n["patients"] or "–"),
            *(str(t["present"]) for t in n["tags"].values()),
        ]
        for split, n in facts["splits"].items()
    ]
    heads = ["split", "images", "masks", "patients", *(f"with {name}" for name in facts["classes"])]
    print_(facts, lambda: table(heads, rows))
    if not State.json:
        print(f"{facts['name']}: {facts['mpp'] or 'unknown'} um/px; licence: {facts['licence']}")
