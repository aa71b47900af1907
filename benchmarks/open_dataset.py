"""How fast a data set of many items opens, and what it costs to send one split to a worker.

The rival, measured in the same run, is the obvious reader: ``csv.DictReader`` and one object per item.
"""

from __future__ import annotations

import argparse
import csv
import gc
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from eosin.core.classes import Classes, Tissue
from eosin.data.dataset import Dataset, Row, write_dataset

NAMES = ("tumour", "stroma", "lymphocytes", "necrosis")


@dataclass
class Item:
    """One item as an object."""

    id: str
    image: str
    patient: str
    tags: list[float]


def objects(folder: Path) -> list[Item]:
    with (folder / "items.csv").open(newline="") as file:
        return [
            Item(row["id"], row["image"], row["patient"], [float(row[name] or "nan") for name in NAMES])
            for row in csv.DictReader(file)
        ]


def median(work: Callable[[], object], times: int) -> float:
    seconds = []
    for _ in range(times):
        gc.collect()
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def made_by(load: Callable[[], object]) -> int:
    """Python objects that the garbage collector must visit more after loading."""
    gc.collect()
    before = len(gc.get_objects())
    kept = load()
    after = len(gc.get_objects())
    del kept
    return after - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    tissues = tuple(Tissue(name=name, colour=(60 * k, 0, 0)) for k, name in enumerate(NAMES))
    rows = (
        Row(
            id=f"patient-{k % 151}_{k:06d}",
            split="train" if k % 5 else "val",
            image=f"train/images/patient-{k % 151}_{k:06d}.png",
            patient=f"patient-{k % 151}",
            tags=(k % 2, 1, None, 0),
        )
        for k in range(options.items)
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "many"
        write_dataset(
            folder, name="many", classes=Classes(tissues=tissues), rows=rows, mpp=0.5, licence="none", citation=""
        )
        items, rival = Dataset.open(folder).items("train"), objects(folder)
        packed, packed_rival = pickle.dumps(items), pickle.dumps(rival)
        print(f"{options.items:,} items, {len(NAMES)} classes; median of {options.times}\n")
        print(f"{'':28}{'eosin':>12}{'objects':>12}")
        opened = [median(lambda: Dataset.open(folder), options.times), median(lambda: objects(folder), options.times)]
        print(f"{'open and check, s':28}{opened[0]:12.2f}{opened[1]:12.2f}")
        received = [median(partial(pickle.loads, p), options.times) * 1e3 for p in (packed, packed_rival)]
        print(f"{'receive in a worker, ms':28}{received[0]:12.1f}{received[1]:12.1f}")
        print(f"{'sent to a worker, MB':28}{len(packed) / 1e6:12.1f}{len(packed_rival) / 1e6:12.1f}")
        counts = [made_by(partial(pickle.loads, p)) for p in (packed, packed_rival)]
        print(f"{'Python objects per worker':28}{counts[0]:12,}{counts[1]:12,}")


if __name__ == "__main__":
    main()
