"""The rows of a comparison: spreads over runs, paired tests against the baseline, costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosin.core.errors import WrongUse, nearest
from eosin.methods.discover import method
from eosin.metrics.scores import iou, mean_known
from eosin.metrics.statistics import difference_interval, holm, miou_interval, permutation_test, t_test
from eosin.recipe import Claim
from eosin.report.compare.form import Arm, Cost, Interval, Published, Spread, Versus
from eosin.report.compare.published import claimed, published_rows
from eosin.report.compare.read import Run, mean, settings_digest
from eosin.report.reading import mapping

# What scores.json says of an entry, and how: one number, or one by class of which the mean is taken.
_BOUNDARY = ("miou", "hd", "hd95", "hd_um", "hd95_um")
_OBJECTS = ("f1", "dice", "hausdorff", "hausdorff_um")
_CALIBRATION = ("ece", "ece_tempered", "temperature")


@dataclass(frozen=True)
class Group:
    """The runs of one arm, in the order of seeds and folds."""

    name: str
    runs: Sequence[Run]

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds for which every fold was run."""
        return sorted({run.seed for run in self.runs})

    def of(self, seed: int) -> list[Run]:
        """The runs of a seed: one, or one a fold."""
        return [run for run in self.runs if run.seed == seed]

    def counts(self, seeds: Sequence[int]) -> NDArray[Any]:
        """Confusion matrices ``[S, N, K, K]`` of all images, those of all folds behind each other."""
        return np.stack([np.concatenate([run.counts[2] for run in self.of(seed)]) for seed in seeds])

    @cached_property
    def images(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Ids and patients ``[N]``, in the order of ``counts``."""
        runs = self.of(self.seeds[0])
        return np.concatenate([run.counts[0] for run in runs]), np.concatenate([run.counts[1] for run in runs])

    def common(self, other: Group) -> list[int]:
        """Seeds that both arms have."""
        return [seed for seed in self.seeds if seed in other.seeds]


def against(arms: Sequence[Group], classes: int) -> dict[str, Versus]:
    """Hold every arm against the first, on the seeds that both have; p values are corrected over all of them."""
    first, *others = arms
    over = range(classes)
    found = {}
    for arm in others:
        seeds = arm.common(first)
        if not seeds:
            continue
        ours, theirs, clusters = arm.counts(seeds), first.counts(seeds), _clusters(arm)
        test = permutation_test(ours, theirs, clusters, over=over)
        pairs = [(a, b) for seed in seeds for a, b in zip(_values(arm.of(seed)), _values(first.of(seed)), strict=True)]
        printed = t_test(*([value for value in _values(group.runs) if value is not None] for group in (arm, first)))
        found[arm.name] = Versus(
            difference=test.difference,
            ci95=_interval(difference_interval(ours, theirs, clusters, over=over)),
            p=test.p,
            p_holm=math.nan,
            exact=test.exact,
            clusters=test.clusters,
            gained=(sum(a is not None and b is not None and a > b for a, b in pairs), len(pairs)),
            t=printed.t if printed else None,
            t_p=printed.p if printed else None,
            stars=printed.stars if printed else "",
        )
    corrected = holm([versus.p for versus in found.values()])
    return {name: replace(versus, p_holm=p) for (name, versus), p in zip(found.items(), corrected, strict=True)}


def row(group: Group, classes: Sequence[str], over: Mapping[str, Sequence[int]], versus: Versus | None) -> Arm:
    """One arm of the table.

    Args:
        group: its runs.
        classes: names of all classes.
        over: positions of the classes of each named mean.
        versus: how it stands against the baseline.
    """
    runs, first = group.runs, group.runs[0]
    counts = group.counts(group.seeds)
    every = range(len(classes))
    return Arm(
        name=group.name,
        method=str(first.settings["method"]),
        recipe=str(first.provenance.get("recipe") or first.settings["method"]),
        settings=settings_digest(first),
        step=first.step,
        selection=" / ".join(dict.fromkeys(str(run.entry["selection"]) for run in runs)),
        supervision=method(str(first.settings["method"])).supervision,
        runs=tuple(run.folder for run in runs),
        labels=tuple(run.label for run in runs),
        miou=_spread(runs, "miou"),
        pooled=_pooled(counts, every) if first.folds else None,
        pooled_iou={name: _pooled(counts, [k]) for k, name in enumerate(classes)} if first.folds else {},
        ci95=_interval(miou_interval(counts, _clusters(group), over=every)),
        iou={name: _spread(runs, "iou", name) for name in classes},
        dice={name: _spread(runs, "dice", name) for name in classes},
        mdice=_spread(runs, "mdice"),
        accuracy=_spread(runs, "accuracy"),
        fwiou=_spread(runs, "fwiou"),
        groups=_groups(group, over),
        boundary=_said(runs, "boundary", _BOUNDARY),
        objects=_said(runs, "objects", _OBJECTS),
        calibration=_said(runs, "calibration", _CALIBRATION),
        cost=_cost(runs),
        claim=_claim(first),
        versus=versus,
    )


def positions(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Where classes stand.

    Raises:
        WrongUse: for no name, a name that is no class or comes twice.
    """
    if not names or len(set(names)) < len(names):
        raise WrongUse(f"--group {','.join(names)}: name some classes, each once")
    for name in names:
        if name not in classes:
            raise WrongUse(f"--group {','.join(names)}: {name} is no class{nearest(name, list(classes))}")
    return [classes.index(name) for name in names]


def _clusters(group: Group) -> list[str]:
    """Patients, else the images by themselves."""
    ids, patients = group.images
    return [str(patient or f"image {item}") for item, patient in zip(ids, patients, strict=True)]


def _values(runs: Sequence[Run]) -> list[float | None]:
    return [run.entry["miou"] for run in runs]


def _spread(runs: Sequence[Run], *keys: str) -> Spread:
    """A number of every run's entry, by the keys that lead to it; numbers by class become their mean."""
    found: list[Any] = [run.entry for run in runs]
    for key in keys:
        found = [mapping(one).get(key) for one in found]
    return _of([_number(one) for one in found])


def _of(values: Sequence[float | None]) -> Spread:
    known = [v for v in values if v is not None]
    whole = bool(values) and len(known) == len(values)
    return Spread(mean(values), stdev(known) if whole and len(known) > 1 else None, tuple(values))


def _groups(group: Group, over: Mapping[str, Sequence[int]]) -> dict[str, Spread]:
    """Mean IoU over some of the classes; with folds also that of the pooled confusion, which no single run has."""
    runs, found = group.runs, {}
    for name, classes in over.items():
        found[name] = _of([_mean_iou(np.asarray(run.entry["confusion"]), classes) for run in runs])
        if runs[0].folds:
            pooled = _of([_mean_iou(matrix, classes) for matrix in group.counts(group.seeds).sum(1)])
            found[f"{name}, pooled"] = replace(pooled, values=(None,) * len(runs))
    return found


def _said(runs: Sequence[Run], part: str, keys: Sequence[str]) -> dict[str, Spread]:
    """Numbers of a part of the entries; those by class are averaged over the classes that have one."""
    if not any(run.entry.get(part) for run in runs):
        return {}
    spreads = {key: _spread(runs, part, key) for key in keys}
    return {key: spread for key, spread in spreads.items() if any(value is not None for value in spread.values)}


def _number(value: object) -> float | None:
    if isinstance(value, Mapping):
        known = [float(v) for v in value.values() if v is not None]
        return sum(known) / len(known) if known else None
    return float(value) if isinstance(value, int | float) else None


def _pooled(counts: NDArray[Any], classes: Sequence[int]) -> float | None:
    """Mean over the seeds of the score of all folds' images together."""
    return mean([_mean_iou(matrix, classes) for matrix in counts.sum(1)])


def _mean_iou(matrix: NDArray[Any], classes: Sequence[int]) -> float | None:
    return _plain(mean_known(iou(matrix)[list(classes)]))


def _cost(runs: Sequence[Run]) -> Cost:
    return Cost(
        training_s=mean([run.training_s for run in runs]),
        wall_s=mean([run.provenance.get("wall_s") for run in runs]),
        cpu_s=mean([run.provenance.get("cpu_s") for run in runs]),
        memory_mb=mean([run.provenance.get("peak_memory_mb") for run in runs]),
        parameters=mean([run.parameters for run in runs]),
        images_per_s=mean([run.images_per_s for run in runs]),
    )


def _claim(run: Run) -> Published | None:
    """What the recipe's paper printed: the published row where it is known, else as the recipe says."""
    said = run.settings.get("claim")
    if not said:
        return None
    rows, _ = published_rows(str(run.entry["dataset"]))
    return claimed(Claim.model_validate(said), str(run.settings["method"]), rows)


def _interval(ends: tuple[float, float]) -> Interval:
    return (_plain(ends[0]), _plain(ends[1]))


def _plain(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)
