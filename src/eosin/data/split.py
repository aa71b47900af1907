"""Splitting a data set anew: by patient, slide or image, once or into folds; files stay where they are.

Groups (all items of one patient, slide or image) are dealt to splits whole. Without ``stratify`` they come in a seeded
random order, each to the split that lacks most items: unless groups are so few that each split just gets one, no split
is off its share by more than the largest group. With it, the groups that hold most of something (of a rare class, or of
all items) come first, each to the split where it lessens the squared deviations from the wanted shares most, those of
the items and of each class's positive tags alike. Sechidis, Tsoumakas and Vlahavas ("On the stratification of
multi-label data", ECML PKDD 2011) deal single items in that spirit; here whole groups are dealt, and all classes are
weighed at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from eosin.core.artifact import atomic_folder
from eosin.core.errors import EosinError, WrongUse
from eosin.data.check import table_findings
from eosin.data.contract import HEAD, ITEMS, WHOLE, Contract, Finding, Fold, Head, Table, read_contract
from eosin.data.dataset import Row, write_dataset

By = Literal["patient", "slide", "image"]

_COLUMNS = {"patient": "patient", "slide": "slide", "image": "parent"}  # from coarse to fine
_IN_PIXELS = ("duplicate_image", "tags_contradict")  # known findings that only decoding can find again


def split_dataset(
    source: Path,
    dest: Path,
    *,
    by: By,
    folds: int = 0,
    val: float = 0.2,
    test: float = 0.2,
    stratify: bool = False,
    seed: int = 0,
) -> list[Path]:
    """Split all items of a data set anew, whatever their split was; whole groups, by seed, in any order of lines.

    What is written names the files of ``source`` by absolute paths and carries on its ``dataset.yaml``. Where
    ``source`` has a split ``whole``, val and test are made of its items and train of the others (patches of the same
    images): shares are then of whole images, and a patch is trained on only if its group is in train.

    Args:
        source: the data set.
        dest: the folder to write: a data set, or with ``folds`` one in each of ``fold-1``, ``fold-2``, ...
        by: what may not be in two splits. The image of an item is its ``parent`` where it has one, else itself.
        folds: how many, each group being in the test split of one; 0 writes one data set.
        val: share of the items for validation, in 0..1; with ``folds``, of those that are not tested.
        test: share of the items for testing, in 0..1; not used with ``folds``.
        stratify: even out the classes too, not only the number of items.
        seed: of the random order.

    Returns:
        The folders of the data sets.

    Raises:
        WrongUse: for shares or folds that cannot be, or more of them than there are groups.
        EosinError: if ``dest`` exists, ``source`` is no sound table, an item has no patient (or slide), patches stand
            beside whole images outside a split ``whole``, or a split would have an error that ``source`` has not, as a
            class without training items.
    """
    _refuse(folds, val, test)
    contract = read_contract(source.resolve())
    head, table = contract.head, contract.table
    if contract.findings or head is None or table is None:
        raise EosinError(f"{contract.findings[0]} (the whole list: eosin data check {source})")
    if dest.exists():
        raise EosinError(f"{dest}: exists already; choose another folder or remove it")
    pool = _pool(contract.folder / ITEMS, head, table, by)
    written = []
    with atomic_folder(dest) as made:
        for number, roles in enumerate(_dealt(pool, source, folds, val, test, stratify, seed), start=1):
            inner = f"fold-{number}" if folds else ""
            where = f"fold {number} of {folds} by {by}" if folds else f"split by {by}"
            splits = pool.splits(roles)
            if not (splits == "train").any():
                raise WrongUse(f"{source}: {where}: no patch is left for train; use fewer folds or smaller shares")
            fold = Fold(number=number, of=folds, source=contract.digest) if folds else None
            _write(made / inner, contract, _taken(table, splits), by, fold, f"{source}: {where}")
            written.append(dest / inner)
    return written


def _refuse(folds: int, val: float, test: float) -> None:
    if folds < 0 or folds == 1:
        raise WrongUse(f"folds: {folds} cannot be; use 2 or more, or 0 for a single split")
    if not (0 <= val < 1 and 0 <= test < 1):
        raise WrongUse(f"val, test: {val:g} and {test:g} must be shares from 0 to below 1")
    if not folds and val + test >= 1:
        raise WrongUse(f"val, test: {val:g} and {test:g} leave nothing for train; use smaller shares")
    if not folds and val + test == 0:
        raise WrongUse("val, test: both are 0, so that nothing is split; give one a share, or use folds")


@dataclass(frozen=True, slots=True, eq=False)
class _Pool:
    """All items by group.

    Attributes:
        by: what a group is.
        of: int64 ``[N]``, the group of each item.
        judged: bool ``[N]``, items for val and test.
        taught: bool ``[N]``, items for train.
        counts: int64 ``[G, D]``, per group the judged items, then those with each class, then the same of the others.
    """

    by: By
    of: NDArray[np.int64]
    judged: NDArray[np.bool_]
    taught: NDArray[np.bool_]
    counts: NDArray[np.int64]

    def splits(self, roles: NDArray[np.str_]) -> NDArray[np.str_]:
        """The split of each item from that of its group, empty where the item has no place in it."""
        mine = roles[self.of]
        return np.where(np.where(mine == "train", self.taught, self.judged), mine, "")


def _pool(file: Path, head: Head, table: Table, by: By) -> _Pool:
    names = _roots(table) if by == "image" else table.patient if by == "patient" else table.slide
    lacking = np.flatnonzero(names == "")
    if len(lacking):
        row, more = lacking[0], f" (nor have {len(lacking) - 1} more)" if len(lacking) > 1 else ""
        mend = f"fill the column, or split by {'slide or image' if by == 'patient' else 'patient or image'}"
        raise EosinError(f"{file}: line {table.line[row]}: item {str(table.ids[row])!r} has no {by}{more}; {mend}")
    groups, of = np.unique(names, return_inverse=True)
    _refuse_torn(file, head, table, by, names)
    whole = table.split == WHOLE
    if not whole.any():
        _refuse_mixture(file, table)
    judged, taught = (whole, ~whole) if whole.any() else (np.ones_like(whole), np.ones_like(whole))
    kinds = (judged, taught) if whole.any() else (judged,)
    present = np.concatenate([np.ones((len(table), 1), np.int64), table.tags == 1], axis=1)
    counts = np.zeros((len(groups), len(kinds) * present.shape[1]), np.int64)
    np.add.at(counts, of, np.concatenate([present * kind[:, None] for kind in kinds], axis=1))
    return _Pool(by, of, judged, taught, counts)


def _refuse_mixture(file: Path, table: Table) -> None:
    """Patches to train on beside whole images to judge by, as importers give them by default, are not of one kind."""
    cut = {str(split): table.parent[table.split == split] != "" for split in np.unique(table.split)}
    patches = [split for split, named in cut.items() if named.all()]
    others = [split for split, named in cut.items() if not named.any()]
    if patches and others:
        message = f"the items of {patches[0]!r} are patches of a parent and those of {others[0]!r} are not"
        mend = f"import with cut=all, which keeps each image in a split {WHOLE!r} beside its patches, or fill 'parent'"
        raise EosinError(f"{file}: {message}, so that they cannot be pooled; {mend}")


def _roots(table: Table) -> NDArray[np.str_]:
    """The image of each item: its parent, or that one's parent where the parent is an item too; else the item."""
    parents = {
        str(name): str(parent) for name, parent in zip(table.ids, table.parent, strict=True) if parent not in ("", name)
    }

    def root(name: str) -> str:
        seen: list[str] = []
        while name in parents and name not in seen:
            seen.append(name)
            name = parents[name]
        return min(seen[seen.index(name) :]) if name in seen else name  # of a circle the first by name, from all of it

    return np.array([root(str(name)) for name in table.ids])


def _refuse_torn(file: Path, head: Head, table: Table, by: By, groups: NDArray[np.str_]) -> None:
    """Slides of two patients, or images of two slides, would be in two splits however groups are dealt."""
    units, whole = list(_COLUMNS), (table.split == WHOLE).any()
    for unit in units[units.index(by) + 1 :]:
        column = _COLUMNS[unit]
        # An image is torn too where it is an item itself, beside its patches
        cells = _roots(table) if unit == "image" else getattr(table, column)
        # What is declared was accepted; but not whole images beside patches, which says nothing of patients and slides
        declared = f"{column}_overlap" in head.known and not (unit == "image" and whole)
        first: dict[str, int] = {}
        for row in np.flatnonzero(cells != "") if not declared else ():
            other = first.setdefault(str(cells[row]), int(row))
            if groups[other] != groups[row]:
                lines = f"{str(groups[other])!r} (line {table.line[other]}) and {str(groups[row])!r}"
                message = f"line {table.line[row]}: {column} {str(cells[row])!r} is of two {by}s, {lines}"
                raise EosinError(f"{file}: {message}; give each {column} a name of its own, or split by {unit}")


def _dealt(
    pool: _Pool, source: Path, folds: int, val: float, test: float, stratify: bool, seed: int
) -> Iterator[NDArray[np.str_]]:
    """The split of each group, str ``[G]``, for each data set; a group without a judged item is always in train."""
    some = np.flatnonzero(pool.counts[:, 0])
    counts, unit = pool.counts[some], f"{pool.by}{'' if len(some) == 1 else 's'}"
    roles = np.full(len(pool.counts), "train")
    if not folds:
        shares = {name: x for name, x in (("train", 1 - val - test), ("val", val), ("test", test)) if x}
        if len(some) < len(shares):
            raise WrongUse(f"{source}: {len(some)} {unit} for {len(shares)} splits ({', '.join(shares)}); {_FEW}")
        roles[some] = np.array(list(shares))[deal(counts, list(shares.values()), stratify, seed, 0)]
        yield roles
        return
    if len(some) < folds:
        raise WrongUse(f"{source}: {len(some)} {unit} for {folds} folds; use fewer folds, or {_FEW}")
    tested = deal(counts, [1 / folds] * folds, stratify, seed, 0)
    names, targets = (["train", "val"], [1 - val, val]) if val else (["train"], [1.0])
    for number in range(1, folds + 1):
        rest = tested != number - 1
        if rest.sum() < len(names):
            left = f"fold {number} of {folds} leaves {rest.sum()} of {len(some)} {unit} for {' and '.join(names)}"
            raise WrongUse(f"{source}: {left}; use val 0, or {_FEW}")
        roles[some] = "test"
        roles[some[rest]] = np.array(names)[deal(counts[rest], targets, stratify, seed, number)]
        yield roles.copy()


_FEW = "split by a smaller unit"


def deal(
    counts: NDArray[np.int64], targets: Sequence[float], stratify: bool, seed: int, stream: int
) -> NDArray[np.int64]:
    """Deal groups to bins; every bin gets one at least.

    Adding a group of shares ``f`` to a bin that lacks ``l`` of its target changes the sum of squared deviations by
    ``|f|^2 - 2 f.l``: the best bin has the largest ``f.l``. With items alone that is the bin that lacks most of them.

    Args:
        counts: ``[G, D]``, the items of each group and, to stratify, those with each class; ``G >= B``.
        targets: ``[B]``, the wanted shares, summing to 1.
        stratify: whether columns beyond the first count.
        seed: of the random order, with ``stream``.
        stream: tells apart what is drawn by one seed.

    Returns:
        The bin of each group, int64 ``[G]``.
    """
    order = np.random.default_rng([seed, stream]).permutation(len(counts))
    totals = counts.sum(axis=0)
    shares = (counts[:, totals > 0] / totals[totals > 0])[:, : None if stratify else 1]
    if stratify:  # large pieces first: small ones can still even out what they leave
        order = order[np.argsort(-shares[order].max(axis=1), kind="stable")]
    lack = np.repeat(np.array(targets)[:, None], shares.shape[1], axis=1)
    bins = np.full(len(counts), -1)
    empty = np.ones(len(targets), bool)
    for left, group in zip(range(len(order), 0, -1), order, strict=True):
        gain = lack @ shares[group]
        if left <= empty.sum():  # one for each bin that has none yet
            gain[~empty] = -np.inf
        bins[group] = best = int(gain.argmax())
        lack[best] -= shares[group]
        empty[best] = False
    return bins


def _taken(table: Table, splits: NDArray[np.str_]) -> Table:
    """The rows that have a split, with it."""
    rows = np.flatnonzero(splits != "")
    columns = {field.name: getattr(table, field.name)[rows] for field in fields(Table) if field.name != "lacking"}
    return Table(**{**columns, "split": splits[rows]}, lacking=table.lacking)


def _write(folder: Path, contract: Contract, table: Table, by: By, fold: Fold | None, where: str) -> None:
    head, old = contract.head, contract.table
    assert head is not None and old is not None
    before = {finding.message for finding in table_findings(contract.folder, head, old)}
    # the declared splits are those of the source
    found = list(table_findings(contract.folder, head.model_copy(update={"splits": None}), table))
    known = _known(head, found, by)
    for finding in found:
        if finding.level == "error" and finding.kind not in known and finding.message not in before:
            mend = f"or split with stratify, other shares or another seed, or declare known.{finding.kind} in {HEAD}"
            raise EosinError(f"{where}: {finding.message}; {mend}")
    objects = head.objects
    write_dataset(
        folder,
        name=head.name,
        classes=head.tissues(),
        rows=_rows(table, contract.folder),
        mpp=head.mpp,
        licence=head.licence,
        citation=head.citation,
        tag_rule=head.tag_rule.min_fraction if head.tag_rule else None,
        known=known,
        objects=objects and objects.model_copy(update={"folder": str(contract.folder / objects.folder)}),
        fold=fold,
    )


def _known(head: Head, found: Sequence[Finding], by: By) -> dict[str, str]:
    """What was declared and is still so; and units coarser than the chosen one in two splits, which is as chosen."""
    kinds = {finding.kind for finding in found}
    known = {kind: reason for kind, reason in head.known.items() if kind in kinds or kind in _IN_PIXELS}
    units = list(_COLUMNS)
    coarser = [f"{_COLUMNS[unit]}_overlap" for unit in units[: units.index(by)]]
    return known | {kind: f"split by {by}" for kind in coarser if kind in kinds}


def _rows(table: Table, folder: Path) -> Iterator[Row]:
    for i in range(len(table)):
        image, mask = (str(column[i], "utf-8") for column in (table.image, table.mask))
        x, y = (int(at) if at >= 0 else None for at in table.xy[i])
        yield Row(
            id=str(table.ids[i]),
            split=str(table.split[i]),
            image=str(folder / image),
            mask=mask and str(folder / mask),
            patient=str(table.patient[i]),
            tags=table.tags[i].tolist(),
            slide=str(table.slide[i]),
            parent=str(table.parent[i]),
            x=x,
            y=y,
            origin=str(table.origin[i]),
        )
