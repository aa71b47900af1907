"""Builds a study of adaptation from finished runs: the statistics are those of ``eosin compare``, twice.

At each stage (a share of the target's items) the methods are held against the first one; and of each method, its stages
against the source's model as it is. Within a direction, each of the two families is corrected as a whole (Holm).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from eosin.core.classes import Colour
from eosin.core.errors import EosinError
from eosin.metrics.statistics import holm
from eosin.report.adapt.form import Adaptation, Direction, Stage
from eosin.report.compare.build import build as compared
from eosin.report.compare.form import Comparison, Versus
from eosin.report.compare.read import Run

UNTOUCHED = Stage(0.0)


@dataclass(frozen=True, slots=True)
class Trials:
    """The finished runs of a direction, by stage; each is scored on the target and named by its method."""

    source: str
    target: str
    runs: Mapping[Stage, Sequence[Run]]


def build(
    trials: Sequence[Trials],
    *,
    methods: Sequence[str],
    colours: Sequence[Colour],
    rate: float,
    command: str,
    failures: Sequence[str] = (),
) -> Adaptation:
    """Hold methods and stages against each other.

    Args:
        trials: one for each direction.
        methods: in the order of the tables; the first is the baseline.
        colours: of the classes.
        rate: learning rates of the second training, as a share of the recipes'.
        command: that makes this study.
        failures: one line per run that could not be made.

    Raises:
        EosinError: if a direction has no run at all.
    """
    directions = tuple(_direction(one, methods, command, failures) for one in trials)
    classes = directions[0].stages[0][1].classes
    return Adaptation(tuple(methods), directions, classes, tuple(colours), rate, command, tuple(failures))


def _direction(trials: Trials, methods: Sequence[str], command: str, failures: Sequence[str]) -> Direction:
    made = {stage: _inorder(runs, methods) for stage, runs in sorted(trials.runs.items()) if runs}
    if not made:
        first = failures[0] if failures else "no run was given"
        raise EosinError(f"no run from {trials.source} to {trials.target} could be made; the first: {first}")
    stages = [_compared(runs, methods[0], command) for runs in made.values()]
    named: dict[str, list[Run]] = {}
    for stage, runs in made.items():
        for run in runs:
            named.setdefault(run.arm, []).append(replace(run, arm=stage.said))
    begun = [name for name in methods if any(run.arm == UNTOUCHED.said for run in named.get(name, ()))]
    gains = [_compared(named[name], UNTOUCHED.said, command) for name in begun]
    return Direction(
        trials.source,
        trials.target,
        tuple(zip(made, _corrected(stages), strict=True)),
        tuple(zip(begun, _corrected(gains), strict=True)),
    )


def _inorder(runs: Sequence[Run], methods: Sequence[str]) -> list[Run]:
    return sorted(runs, key=lambda run: (methods.index(run.arm), run.seed))


def _compared(runs: Sequence[Run], baseline: str, command: str) -> Comparison:
    """The house's comparison; published numbers are of models that were trained on these very data, so none is shown.

    Where the baseline has no run, the others are held against nothing.
    """
    made = replace(compared(runs, command=command, baseline=baseline), published=())
    if made.baseline == baseline:
        return made
    return replace(made, arms=tuple(replace(arm, versus=None) for arm in made.arms))


def _corrected(made: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with p values that are corrected over all their tests."""
    tests = [arm.versus for one in made for arm in one.arms if arm.versus is not None]
    left = iter(holm([test.p for test in tests]))

    def corrected(versus: Versus | None) -> Versus | None:
        return None if versus is None else replace(versus, p_holm=next(left))

    return [replace(one, arms=tuple(replace(arm, versus=corrected(arm.versus)) for arm in one.arms)) for one in made]
