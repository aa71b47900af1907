"""Making and looking at data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eosin.core.progress import SILENT, Progress, counter

if TYPE_CHECKING:
    from eosin.data.dataset import Dataset


def import_data(
    form: str,
    source: Path | Sequence[Path],
    dest: Path,
    options: Sequence[str] = (),
    progress: Progress = SILENT,
) -> Path:
    """Turn data of a known format into a data set folder.

    Args:
        form: name of the format (``eosin list formats``).
        source: where the data lies; for ``qupath`` the slides, then the annotations.
        dest: the folder to write; must not exist.
        options: ``key=value`` of the format.
        progress: is told what happens.
    """
    from eosin.data.formats import import_dataset
    from eosin.slides.maps import SlideMap
    from eosin.slides.open import open_slide

    pairs = dict(option.partition("=")[::2] for option in options)
    settings = {key.replace("-", "_"): value for key, value in pairs.items()}
    handed = {"open_slide": open_slide, "open_map": SlideMap}
    import_dataset(form, source, dest, settings, counter(progress, f"import {form}"), handed)
    return dest


def split_data(
    source: Path,
    out: Path | None = None,
    *,
    by: Literal["patient", "slide", "image"] = "patient",
    folds: int = 0,
    val: float = 0.2,
    test: float = 0.2,
    stratify: bool = False,
    seed: int = 0,
) -> list[Path]:
    """Split a data set anew, or make folds of it; see ``eosin.data.split``.

    Returns:
        The data sets that were written: ``out``, or ``out/fold-1`` and so on. By default ``out`` is beside ``source``.
    """
    from eosin.data.split import split_dataset

    out = out or source.with_name(source.resolve().name + ("-folds" if folds else "-split"))
    return split_dataset(source, out, by=by, folds=folds, val=val, test=test, stratify=stratify, seed=seed)


def check_data(folder: Path, progress: Progress = SILENT) -> list[Any]:
    """All findings about a data set; see ``eosin.data.check``."""
    from eosin.data.check import check

    return list(check(folder, counter(progress, "check")))


def describe_data(folder: Path) -> dict[str, Any]:
    """Images, tags, patients and co-occurrence of a data set, ready for JSON."""
    from eosin.data.check import summary
    from eosin.data.dataset import Dataset

    return summary(Dataset.open(folder))


def say_known(dataset: Dataset, progress: Progress) -> None:
    """Say which defects of a data set are known and accepted."""
    for finding, reason in dataset.known.items():
        progress.say(f"{dataset.name} has a known defect, {finding.replace('_', ' ')}: {reason}")
