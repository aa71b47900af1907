"""Builds a comparison from finished runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosin.core.artifact import read_json
from eosin.core.classes import Classes
from eosin.core.errors import EosinError, WrongUse
from eosin.report.compare.arms import Group, against, positions, row
from eosin.report.compare.form import Comparison
from eosin.report.compare.published import published_rows
from eosin.report.compare.read import Run, settings_digest
from eosin.report.reading import COLOURS, mapping


def build(
    runs: Sequence[Run],
    *,
    command: str,
    groups: Sequence[Sequence[str]] = (),
    budget: float | None = None,
    failures: Sequence[str] = (),
    baseline: str = "",
) -> Comparison:
    """Compare runs; the arm of the first one is the baseline.

    Args:
        runs: all runs, each with the name of its arm.
        command: that makes this comparison.
        groups: names of classes whose mean IoU is shown beside that of all.
        budget: minutes of training that each method was given.
        failures: one line per run that could not be made; an arm that lacks folds is then left out.
        baseline: the arm that was to be the baseline; what became of it is said if it is not.

    Raises:
        WrongUse: if runs cannot be compared: other data, images, classes or protocols, or a seed or fold twice.
        EosinError: if no arm is left.
    """
    _comparable(runs)
    found = {name: _ordered(name, runs) for name in dict.fromkeys(run.arm for run in runs)}
    whole = {name: [run for run in mine if _is_whole(run, mine)] for name, mine in found.items()}
    for name, mine in found.items():
        if not whole[name] and not failures:
            raise WrongUse(f"{name}: {_short(mine)}; run the others")
    arms = [Group(name, mine) for name, mine in whole.items() if mine]
    if not arms:
        raise EosinError(f"no method has all its folds; the first failure: {failures[0]}")
    _same_images(arms)
    first = arms[0].runs[0]
    classes = tuple(map(str, first.entry["classes"]))
    over = {" + ".join(names): positions(names, classes) for names in groups}
    versus = against(arms, len(classes))
    published, footnotes = published_rows(str(first.entry["dataset"]))
    images, patients = arms[0].images
    return Comparison(
        dataset=str(first.entry["dataset"]),
        digest=first.source,
        licence=str(first.data.get("licence") or "not written down"),
        split=str(first.entry["split"]),
        protocol=str(first.entry["protocol"]),
        uses_truth=bool(first.entry.get("uses_truth")),
        classes=classes,
        colours=_colours(first, classes),
        mpp=_mpp(first),
        folds=first.folds,
        images=len(images),
        clustered_by="patient" if (patients != "").any() else "image",
        baseline=arms[0].name,
        arms=tuple(row(group, classes, over, versus.get(group.name)) for group in arms),
        published=published,
        footnotes=(*footnotes, *_left_out(found, whole), *_remarks(arms, baseline)),
        command=command,
        device=", ".join(_distinct(run.provenance.get("device") for run in runs)),
        commits=tuple(_distinct(str(run.provenance.get("commit") or "unknown")[:10] for run in runs)),
        budget=budget,
        failures=tuple(failures),
    )


def _comparable(runs: Sequence[Run]) -> None:
    """See that all runs were scored alike on the same data."""
    first = runs[0]
    for run in runs[1:]:
        for what, mine, others in (
            ("data", f"{run.data.get('name')} {run.source[:12]}", f"{first.data.get('name')} {first.source[:12]}"),
            ("number of folds", run.folds, first.folds),
            ("protocol", run.entry["protocol"], first.entry["protocol"]),
            ("classes", list(run.entry["classes"]), list(first.entry["classes"])),
        ):
            if mine != others:
                raise WrongUse(
                    f"{run.folder}: other {what} than {first.folder} ({mine} and {others}); compare like with like"
                )


def _ordered(name: str, runs: Sequence[Run]) -> list[Run]:
    """The runs of an arm, by seed and fold.

    Raises:
        WrongUse: if one comes twice or its settings differ.
    """
    mine = sorted((run for run in runs if run.arm == name), key=lambda run: (run.seed, run.fold))
    for before, run in pairwise(mine):
        if (before.seed, before.fold) == (run.seed, run.fold):
            raise WrongUse(f"{run.folder}: {name} has {run.label} twice (also {before.folder}); give each run once")
        if settings_digest(before) != settings_digest(run):
            raise WrongUse(f"{run.folder}: other settings than {before.folder}, which has the same name {name!r}")
    return mine


def _is_whole(run: Run, mine: Sequence[Run]) -> bool:
    """Whether an arm has every fold of a run's seed."""
    return sum(run.seed == other.seed for other in mine) == max(run.folds, 1)


def _short(runs: Sequence[Run]) -> str:
    have = ", ".join(run.label for run in runs)
    return f"{runs[0].folds} folds are needed for a pooled score, there {'is' if len(runs) == 1 else 'are'} {have}"


def _same_images(arms: Sequence[Group]) -> None:
    """See that all arms and seeds were scored on the same images, each once, against the same truth."""
    first = arms[0].of(arms[0].seeds[0])
    ids, truth = _scored(first)
    names, times = np.unique(ids, return_counts=True)
    if (times > 1).any():
        twice = names[times > 1][0]
        raise WrongUse(f"{first[0].folder}: image {twice} was tested in two folds; give the folds of one split")
    for arm in arms:
        for seed in arm.seeds:
            runs = arm.of(seed)
            mine, drawn = _scored(runs)
            if not np.array_equal(mine, ids):
                raise WrongUse(
                    f"{runs[0].folder}: scored on other images than {first[0].folder}; run one of them again"
                )
            if not np.array_equal(drawn, truth):
                raise WrongUse(
                    f"{runs[0].folder}: scored against other masks than {first[0].folder}; run the older one again"
                )


def _scored(runs: Sequence[Run]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Item ids ``[N]`` and pixels of each true class ``[N, K]`` of all folds of a seed."""
    ids, counts = ([run.counts[at] for run in runs] for at in (0, 2))
    return np.concatenate(ids), np.concatenate(counts).sum(-1)


def _left_out(found: Mapping[str, Sequence[Run]], whole: Mapping[str, Sequence[Run]]) -> list[str]:
    """Runs that are not compared, since a pooled score needs every fold of their seed."""
    said = []
    for name, mine in found.items():
        lost = [run for run in mine if run not in whole[name]]
        if lost:
            said.append(f"{name}: {', '.join(run.label for run in lost)} left out, since other folds are missing.")
    return said


def _remarks(arms: Sequence[Group], baseline: str) -> list[str]:
    """What a reader must know about these runs."""
    first, *others = arms
    said = []
    if baseline not in ("", first.name):
        said.append(f"{baseline}, which was to be the baseline, could not be made; the baseline is {first.name}.")
    for arm in others:
        seeds = arm.common(first)
        if not seeds:
            said.append(
                f"{arm.name} has no seed in common with {first.name}, so the two were not tested against each other."
            )
        elif len(seeds) < max(len(arm.seeds), len(first.seeds)):
            common = ", ".join(map(str, seeds))
            said.append(f"{arm.name} was held against {first.name} on their common seeds only: {common}.")
    for finding, reason in mapping(first.runs[0].data.get("known")).items():
        said.append(f"Known of these data: {finding.replace('_', ' ')} ({reason}).")
    return said


def _colours(run: Run, names: Sequence[str]) -> tuple[tuple[int, int, int], ...]:
    """The classes' colours, as the model's card says."""
    card = run.folder / "model" / "card.json"
    known = Classes.model_validate(read_json(card)["classes"]) if card.is_file() else None
    colours = dict(zip(known.names, known.colours, strict=True)) if known else {}
    return tuple(colours.get(name, COLOURS[k % len(COLOURS)]) for k, name in enumerate(names))


def _mpp(run: Run) -> float | None:
    card = run.folder / "model" / "card.json"
    return read_json(card)["mpp"] if card.is_file() else None


def _distinct(values: Iterable[object]) -> list[str]:
    return list(dict.fromkeys("unknown" if value is None else str(value) for value in values))
