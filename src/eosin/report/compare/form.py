"""What a comparison is: plain values that every writer (csv, json, md, LaTeX, html) reads and none computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

Interval = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Spread:
    """A score over runs of one arm: seeds, or folds.

    Attributes:
        mean: over the runs; None where a run has no such score.
        sd: sample standard deviation, None with fewer than two runs.
        values: one per run, in the order of ``Arm.runs``.
    """

    mean: float | None
    sd: float | None
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Versus:
    """An arm against the baseline.

    Attributes:
        difference: of the mean IoU, in 0..1.
        ci95: paired cluster bootstrap interval of the difference.
        p: two-sided paired permutation test that swaps whole clusters.
        p_holm: the same after Holm's correction over all arms of the table.
        exact: whether all permutations were counted.
        clusters: how many clusters (patients, else images) were swapped.
        gained: how many paired runs (seeds, or folds) gained, and of how many.
        t: Student's t over the runs, two-tailed, as papers print it; None with fewer than two runs.
        t_p: its p.
        stars: ``*`` p < .05, ``**`` p < .01, ``***`` p < .001, else empty.
    """

    difference: float
    ci95: Interval
    p: float
    p_holm: float
    exact: bool
    clusters: int
    gained: tuple[int, int]
    t: float | None
    t_p: float | None
    stars: str

    @property
    def beats(self) -> bool:
        """The house rule for "beats": a mean gain of 1.0 point or more, and every one of several paired runs gains."""
        return self.difference >= 0.01 and self.gained[0] == self.gained[1] > 1


@dataclass(frozen=True, slots=True)
class Cost:
    """What an arm cost, means over its runs; None where a run did not note it.

    Attributes:
        training_s: seconds inside the fits.
        wall_s: seconds of all steps.
        cpu_s: processor seconds of all steps.
        memory_mb: peak resident memory of the training process.
        parameters: trained in the deployed step, with networks that only help in training.
        images_per_s: training rate of the deployed step.
    """

    training_s: float | None
    wall_s: float | None
    cpu_s: float | None
    memory_mb: float | None
    parameters: float | None
    images_per_s: float | None


@dataclass(frozen=True, slots=True)
class Published:
    """A published row: scores in percent, as printed.

    Attributes:
        method: as the paper names it.
        source: the paper or page that prints it.
        protocol: how it was scored, by our protocols' names where one fits.
        uses_truth: whether truth (image labels, as a rule) was used at test time.
        miou: mean IoU.
        dice: mean Dice or F1.
        accuracy: pixel accuracy.
        iou: by class.
        fwiou: IoU weighted by each class's share of the pixels.
        hausdorff: what the table calls a Hausdorff distance, in pixels.
        notes: numbers of the footnotes that concern it, from 1.
    """

    method: str
    source: str
    protocol: str
    uses_truth: bool
    miou: float | None
    dice: float | None
    accuracy: float | None
    iou: Mapping[str, float]
    fwiou: float | None = None
    hausdorff: float | None = None
    notes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Arm:
    """One row: runs that differ in seed or fold alone.

    Attributes:
        name: unique in the table.
        method: the method's name.
        recipe: the recipe's name.
        settings: digest of the settings without seed and claim.
        step: the deployed step, whose scores these are.
        selection: how its epoch was chosen: ``masks``, ``tags``, ``last``.
        supervision: ``tags`` or ``truth``.
        runs: run folders.
        labels: one per run, ``seed 0`` or ``fold 1``.
        miou: over the runs.
        pooled: mean IoU of the pooled confusion of all folds; None without folds.
        pooled_iou: the same by class; empty without folds.
        ci95: cluster bootstrap interval of the mean over seeds, or of the pooled score with folds.
        iou, dice: by class, over the runs.
        mdice, accuracy, fwiou: over the runs.
        groups: mean IoU over some of the classes, by a name such as ``tumor + stroma``.
        boundary: ``miou``, ``hd95`` and such by name, over the runs; empty where not scored.
        objects: ``f1``, ``dice``, ``hausdorff`` over the runs; empty where the data number no objects.
        calibration: ``ece``, ``ece_tempered``.
        cost: of the runs.
        claim: what the recipe's paper printed, or None.
        versus: against the baseline; None for the baseline.
    """

    name: str
    method: str
    recipe: str
    settings: str
    step: str
    selection: str
    supervision: str
    runs: tuple[Path, ...]
    labels: tuple[str, ...]
    miou: Spread
    pooled: float | None
    pooled_iou: Mapping[str, float | None]
    ci95: Interval
    iou: Mapping[str, Spread]
    dice: Mapping[str, Spread]
    mdice: Spread
    accuracy: Spread
    fwiou: Spread
    groups: Mapping[str, Spread]
    boundary: Mapping[str, Spread]
    objects: Mapping[str, Spread]
    calibration: Mapping[str, Spread]
    cost: Cost
    claim: Published | None
    versus: Versus | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A whole comparison; all our scores in 0..1, published ones in percent.

    Attributes:
        dataset: name of the data.
        digest: of the data set, or of the one its folds were made of.
        licence: terms of the data.
        split: which was scored.
        protocol: how.
        uses_truth: whether that protocol uses truth at test time.
        classes: names in order.
        colours: RGB of each class.
        mpp: micrometres per pixel, or None.
        folds: how many; 0 where runs are seeds.
        images: how many were scored.
        clustered_by: ``patient`` or ``image``.
        baseline: name of the arm that the others are held against: the first.
        arms: the rows.
        published: rows of papers on these data.
        footnotes: known inconsistencies of published numbers, numbered from 1, and properties of the data.
        command: that makes this comparison.
        device: where the runs ran.
        commits: of the source the runs were made by.
        budget: minutes each method was given, or None.
        failures: one line per run that could not be made.
    """

    dataset: str
    digest: str
    licence: str
    split: str
    protocol: str
    uses_truth: bool
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    mpp: float | None
    folds: int
    images: int
    clustered_by: str
    baseline: str
    arms: tuple[Arm, ...]
    published: tuple[Published, ...]
    footnotes: tuple[str, ...]
    command: str
    device: str
    commits: tuple[str, ...]
    budget: float | None
    failures: tuple[str, ...]
