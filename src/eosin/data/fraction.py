"""A seeded, patient-wise share of a training split: what a method does with less.

The training items are put into one order that the seed alone decides: patients in random order, the slides of a patient
in random order, then the parent images of a slide, then the items of an image. A fraction is the first part of that
order. So a smaller fraction lies inside a larger one of the same seed, at most one patient is cut in two, and the order
of lines in ``items.csv`` decides nothing.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from eosin.core.errors import WrongUse
from eosin.data.contract import ITEMS, Table
from eosin.data.dataset import Dataset, Items

_TRAIN = "train"


def fraction_of(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """The same data set with a share of its training items; the other splits are whole.

    Args:
        dataset: the data set.
        fraction: share of the training items, above 0 and at most 1; ``ceil(fraction * N)`` of ``N`` are taken.
        seed: of the random order.

    Returns:
        The data set itself for a fraction of 1. Else one with the taken items in the order of the file, and a digest of
        its own, so that every step made from it is another step. An item whose patient is not known stands for its
        slide, else for its parent image, else for itself.

    Raises:
        WrongUse: if the fraction is not above 0 and at most 1, or there is no split ``train``.
    """
    if not 0 < fraction <= 1:
        raise WrongUse(f"fraction {fraction} must be above 0 and at most 1; 0.05 takes a twentieth")
    if fraction == 1:
        return dataset
    items, table = dataset.items(_TRAIN), dataset._table
    rows = np.flatnonzero(table.split == _TRAIN)
    left = rows[_order(items, seed)[_count(fraction, len(items)) :]]
    kept = np.delete(np.arange(len(table)), left)
    columns = {field.name: getattr(table, field.name)[kept] for field in fields(Table) if field.name != "lacking"}
    own = f"{fraction} by seed {seed} of {dataset.digest}"  # what a stale step says
    return replace(dataset, digest=own, _table=replace(table, **columns))


def count_units(items: Items) -> int:
    """How many patients the items are of, where one that is not known is as many as its slides, images or items."""
    return len(np.unique(_units(items)[-1]))


def missing_classes(whole: Dataset, part: Dataset) -> str | None:
    """One line on the classes that some training item of ``whole`` is tagged with and none of ``part``, or None."""
    there, left = ((data.items(_TRAIN).tags == 1).sum(0) for data in (whole, part))
    gone = [
        f"{name!r} (on {there[k]:,} of all)" for k, name in enumerate(whole.classes.names) if there[k] and not left[k]
    ]
    if not gone:
        return None
    taken = f"{len(part.items(_TRAIN)):,} of {len(whole.items(_TRAIN)):,} training items are taken"
    mend = "take a larger fraction or another seed"
    return f"{whole.folder / ITEMS}: {taken}, none of them tagged {' or '.join(gone)}; {mend}"


def _count(fraction: float, count: int) -> int:
    """``ceil(fraction * count)``, of the decimal that was written: 0.07 of 100 is 7, though in binary it is more."""
    return math.ceil(Fraction(str(fraction)) * count)


def _order(items: Items, seed: int) -> NDArray[np.int64]:
    """All items, int64 ``[N]``, each unit together and in seeded order among its like, from patients down to items."""
    ranks = []
    for stream, names in enumerate(_units(items)):
        found, place = np.unique(names, return_inverse=True)  # sorted, so that the order of lines is forgotten
        ranks.append(np.random.default_rng([seed, stream]).permutation(len(found))[place])
    return np.lexsort(ranks)  # the last key, that of patients, counts first


def _units(items: Items) -> list[NDArray[np.str_]]:
    """What each item is a part of, from fine to coarse: itself, its parent image, slide, patient, str ``[N]`` each.

    A unit that is not known is the next finer one. A whole image beside patches of it is of that image too.
    """
    alone = (items.parents == "") & np.isin(items.ids, items.parents)
    parents = np.where(alone, items.ids, items.parents)
    units = [np.char.add("item ", items.ids)]
    for kind, names in (("parent", parents), ("slide", items.slides), ("patient", items.patients)):
        units.append(np.where(names == "", units[-1], np.char.add(f"{kind} ", names)))
    return units
