"""How a comparison's values are said: one wording for every writer."""

from __future__ import annotations

import math
import re

from eosin.report.compare.form import Arm, Comparison, Interval, Spread, Versus
from eosin.report.markup import number

DASH, MINUS, PLUS_MINUS, DAGGER = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{PLUS-MINUS SIGN}", "\N{DAGGER}"
_P_SHOWN, _CLEAR = 0.001, 0.01
_CHOSEN = {"masks": "validation masks", "tags": "validation tags", "last": "none, last epoch"}


def headline(comparison: Comparison, arm: Arm) -> float | None:
    """The mean IoU an arm is judged by: of the pooled confusion with folds, else the mean over seeds."""
    return arm.pooled if comparison.folds else arm.miou.mean


def spread(value: Spread, digits: int = 3) -> str:
    """Mean and sample standard deviation; a dash where a run has no such score."""
    mean = number(value.mean, digits)
    return mean if value.sd is None or mean == DASH else f"{mean} {PLUS_MINUS} {number(value.sd, digits)}"


def signed(value: float | None, digits: int = 3) -> str:
    """A difference with its sign; what rounds to zero has none."""
    said = number(value, digits)
    if said == DASH or float(said) == 0:
        return said.lstrip("-")
    return said.replace("-", MINUS) if said.startswith("-") else f"+{said}"


def interval(ends: Interval, *, sign: bool = False) -> str:
    """A 95 % interval; a dash where it could not be computed."""
    low, high = (signed(end) if sign else number(end) for end in ends)
    return DASH if DASH in (low, high) else f"{low} to {high}"


def p_value(p: float | None) -> str:
    """A p-value for a column headed p: ``.031``, or ``< .001``."""
    if p is None or not math.isfinite(p):
        return DASH
    return "< .001" if p < _P_SHOWN else f"{p:.3f}".removeprefix("0")


def p_said(p: float | None) -> str:
    """A p-value in a sentence: ``p = .031``, or ``p < .001``."""
    shown = p_value(p)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def t_test(versus: Versus) -> str:
    """Student's t over the runs with the stars that papers print."""
    if versus.t is None or versus.t_p is None:
        return DASH
    shown = number(versus.t, 2).replace("-", MINUS)
    return f"t = {shown}, {p_said(versus.t_p)} {versus.stars}".rstrip()


def clusters(comparison: Comparison, versus: Versus) -> str:
    """What was permuted, and whether every permutation was counted."""
    how = "all permutations counted" if versus.exact else "permutations drawn at random"
    return f"{plural(versus.clusters, comparison.clustered_by)}, {how}"


def gained(comparison: Comparison, versus: Versus) -> str:
    """In how many paired runs the arm scored more than the baseline."""
    some, of = versus.gained
    return f"{some} of {plural(of, run_word(comparison))}"


def verdict(comparison: Comparison, versus: Versus) -> str:
    """What the house rule allows to say: "beats" is :attr:`Versus.beats` alone; lower is its mirror image."""
    if versus.gained[1] == 1:
        return f"one {run_word(comparison)}, no verdict"
    if versus.beats:
        return f"beats {comparison.baseline}"
    if versus.difference <= -_CLEAR and versus.gained[0] == 0:
        return f"lower than {comparison.baseline}"
    return f"no clear difference to {comparison.baseline}"


def sentence(comparison: Comparison, arm: Arm) -> str:
    """An arm's result in one sentence."""
    score = number(headline(comparison, arm))
    between = interval(arm.ci95)
    what = "pooled mIoU" if comparison.folds else "mIoU"
    found = f"{arm.name}: {score} {what}" + ("" if between == DASH else f" (95 % interval {between})")
    bound = ", an upper bound trained on truth" if arm.supervision == "truth" else ""
    if arm.versus is None:
        said = "the baseline" if arm.name == comparison.baseline else f"not tested against {comparison.baseline}"
        return f"{found}{bound}; {said}."
    versus = arm.versus
    change = signed(versus.difference)
    if (ends := interval(versus.ci95, sign=True)) != DASH:
        change += f" (95 % interval {ends})"
    test = f"Holm {p_said(versus.p_holm)}; {clusters(comparison, versus)}"
    runs = f"gains in {gained(comparison, versus)}"
    return f"{found}{bound}; {verdict(comparison, versus)}: {change}, {runs}, {test}."


def ordered(comparison: Comparison) -> list[Arm]:
    """The arms as given, upper bounds last."""
    return sorted(comparison.arms, key=lambda arm: arm.supervision == "truth")


def arm_named(comparison: Comparison, name: str) -> Arm:
    """The arm of that name."""
    return next(arm for arm in comparison.arms if arm.name == name)


def title(comparison: Comparison) -> str:
    """What is compared on what."""
    names = [arm.name for arm in ordered(comparison)]
    who = " and ".join(names) if len(names) <= 3 else f"{len(names)} arms"
    return f"{who} on {comparison.dataset}"


def facts(comparison: Comparison) -> list[tuple[str, str]]:
    """Where the numbers come from, as names and values."""
    c = comparison
    mark = f" {DAGGER}" if c.uses_truth else ""
    runs = f"{c.folds} folds; scores from the pooled confusion of all folds" if c.folds else "one per seed"
    found = [
        ("Data", f"{c.dataset}, digest {c.digest[:12] or DASH}"),
        ("Licence", c.licence or "not written down"),
        ("Pixel size", "not known" if c.mpp is None else f"{c.mpp:g} µm"),
        ("Scored", f"{plural(c.images, 'image')} of {c.split}, protocol {c.protocol}{mark}"),
        ("Runs", runs),
        ("Intervals and tests", f"by {c.clustered_by}"),
        ("Baseline", c.baseline),
        ("Device", c.device),
        ("Source", ", ".join(commit[:10] for commit in c.commits) or "commit not known"),
    ]
    if c.budget is not None:
        found.append(("Budget", f"{c.budget:g} minutes for each method"))
    return [*found, ("Command", c.command)]


def truth_note(comparison: Comparison) -> str:
    """A warning where the protocol uses truth at test time, else empty."""
    if not comparison.uses_truth:
        return ""
    return f"{DAGGER} The protocol {comparison.protocol} uses truth at test time; not comparable with strict scores."


def chosen(selection: str) -> str:
    """What chose the epoch that was kept."""
    return _CHOSEN.get(selection, selection)


def run_word(comparison: Comparison) -> str:
    """What runs of an arm differ in: seed, fold, or (as a run) both."""
    if not comparison.folds:
        return "seed"
    labels = arm_named(comparison, comparison.baseline).labels
    return "fold" if len({number_of("seed", label) for label in labels}) < 2 else "run"


def plural(count: int, word: str) -> str:
    """A count and its noun."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def number_of(word: str, label: str) -> int:
    """The number after a word in a run's label (``seed 0``, ``seed 0, fold 1``); 0 where there is none."""
    found = re.search(rf"\b{word} (\d+)", label)
    return int(found.group(1)) if found else 0


def runs(arm: Arm) -> str:
    """``seed 0, 1, 2``: the runs without saying their word again."""
    parts, product = [], 1
    for word in ("seed", "fold"):
        if found := sorted({number_of(word, label) for label in arm.labels if word in label}):
            parts.append(f"{word} {', '.join(map(str, found))}")
            product *= len(found)
    return "; ".join(parts if parts and product == len(arm.labels) else arm.labels) or DASH
