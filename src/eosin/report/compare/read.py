"""Reads finished runs for a comparison: what was scored, how, on which images, at what cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from eosin.core.artifact import read_json
from eosin.core.errors import EosinError, WrongUse
from eosin.core.fingerprint import digest
from eosin.report.reading import Entry, is_segmentation, mapping, read_journal


@dataclass(frozen=True)
class Run:
    """A finished run, scored on the split that is compared.

    Attributes:
        folder: of the run.
        arm: the row it belongs to.
        entry: of ``scores.json``, of the deployed step and the split.
        provenance: of ``provenance.json``.
        settings: the resolved recipe.
    """

    folder: Path
    arm: str
    entry: Entry
    provenance: Entry
    settings: Entry

    @property
    def data(self) -> Entry:
        """What provenance says of the data."""
        return mapping(self.provenance.get("dataset"))

    @property
    def fold(self) -> int:
        """Number of the fold, 0 where there are none."""
        return int(mapping(self.data.get("fold")).get("number", 0))

    @property
    def folds(self) -> int:
        """How many folds there are, 0 where there are none."""
        return int(mapping(self.data.get("fold")).get("of", 0))

    @property
    def source(self) -> str:
        """Digest of the data, or of what its folds were made of."""
        return str(mapping(self.data.get("fold")).get("source") or self.data.get("digest"))

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.provenance["seed"])

    @property
    def label(self) -> str:
        """How the run is called within its arm."""
        return f"seed {self.seed}" + (f", fold {self.fold}" if self.folds else "")

    @property
    def step(self) -> str:
        """The deployed step."""
        return str(self.entry["step"])

    @cached_property
    def counts(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Item ids ``[N]``, sorted, their patients ``[N]`` and confusion matrices ``[N, K, K]``."""
        path = self.folder / "predictions" / self.step / str(self.entry["split"]) / "counts.npz"
        if not path.is_file():
            redo = f"score-{self.step}-{self.entry['split']}"
            raise EosinError(f"{path}: no such file; run it again with --redo {redo}")
        with np.load(path) as kept:
            order = np.argsort(kept["ids"])
            return kept["ids"][order], kept["patients"][order], kept["counts"][order]

    @cached_property
    def epochs(self) -> Mapping[str, Sequence[Entry]]:
        """Lines of the journal, by step."""
        return read_journal(self.folder / "journal.jsonl")

    @property
    def training_s(self) -> float | None:
        """Seconds inside the fits; None where the journal is gone."""
        seconds = [float(epoch["seconds"]) for lines in self.epochs.values() for epoch in lines]
        return sum(seconds) if seconds else None

    @property
    def images_per_s(self) -> float | None:
        """Training rate of the deployed step, the median over its epochs."""
        rates = sorted(float(epoch["images_per_s"]) for epoch in self.epochs.get(self.step, ()))
        return rates[len(rates) // 2] if rates else None

    @property
    def parameters(self) -> float | None:
        """Trained parameters of the deployed step."""
        return mapping(mapping(self.provenance.get("steps")).get(self.step)).get("parameters")


def read_run(folder: Path, split: str, arm: str | None = None) -> Run:
    """Read one run.

    Args:
        folder: what ``eosin run`` made.
        split: which split is compared.
        arm: name of its row; None takes the name of its recipe.

    Raises:
        WrongUse: if the run has no masks to compare on that split, naming the splits it has.
        EosinError: if it is not finished.
    """
    if not (folder / "recipe.yaml").is_file():
        raise WrongUse(f"{folder}: not a run (no recipe.yaml); give folders that 'eosin run' made")
    for name in ("provenance.json", "scores.json"):
        if not (folder / name).is_file():
            raise EosinError(f"{folder}: not finished (no {name}); give the same 'eosin run' again, which goes on")
    provenance = mapping(read_json(folder / "provenance.json"))
    entries = [entry for entry in read_json(folder / "scores.json") if is_segmentation(entry)]
    final = provenance.get("final") or _last(entries)
    entry = next((e for e in entries if e["split"] == split and e["step"] == final), None)
    if entry is None:
        known = ", ".join(sorted({e["split"] for e in entries if e["step"] == final})) or "none"
        raise WrongUse(f"{folder}: split {split!r} was not scored with masks (splits that were: {known})")
    settings = dict(mapping(yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))))
    if (fraction := mapping(provenance.get("dataset")).get("fraction", 1)) != 1:
        settings["fraction"] = fraction
    if provenance.get("start"):
        settings["start"] = provenance["start"]
    return Run(folder, arm or str(provenance.get("recipe") or settings["method"]), entry, provenance, settings)


def _last(entries: Sequence[Entry]) -> str | None:
    """The deployed step of a run from before provenance named it: plans score their final step last."""
    return str(entries[-1]["step"]) if entries else None


def settings_digest(run: Run) -> str:
    """Digest of what makes runs of one arm alike: the recipe without seed and claim."""
    return digest({key: value for key, value in run.settings.items() if key not in ("seed", "claim")})


def mean(values: Sequence[float | None]) -> float | None:
    """The mean, or None where a value is unknown."""
    known = [float(v) for v in values if v is not None]
    return fmean(known) if known and len(known) == len(values) else None
