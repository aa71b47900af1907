"""Run folders written by hand around given counts, with nothing in them but what a comparison reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from eosin.core.artifact import write_json
from eosin.core.classes import Classes, Tissue
from eosin.metrics.protocols import Strict, Subject
from eosin.report.compare.read import Run, read_run

IDS = ("i1", "i2", "i3", "i4", "i5", "i6")
PATIENTS = ("P1", "P1", "P2", "P2", "P3", "P3")
COLOURS = ((200, 40, 70), (60, 140, 90), (20, 20, 90))


def write_run(
    folder: Path,
    counts: Any,
    *,
    seed: int = 0,
    recipe: str = "cam-hand",
    ids: Sequence[str] = IDS,
    patients: Sequence[str] | None = None,
    names: Sequence[str] = ("tumour", "stroma"),
    data: str = "d" * 64,
    fold: tuple[int, int] | None = None,
    protocol: str = "strict",
    settings: dict[str, Any] | None = None,
    more: dict[str, Any] | None = None,
) -> Path:
    """A finished run: its counts ``[N, K, K]``, and the files that say what it was."""
    counts = np.asarray(counts, np.int64)
    patients = PATIENTS[: len(ids)] if patients is None else patients
    classes = Classes(tissues=tuple(Tissue(name=n, colour=c) for n, c in zip(names, COLOURS, strict=False)))
    entry = Strict(classes).score_entry(Subject("hand", "test", "segmenter", "masks"), counts, list(patients))
    place = folder / "predictions" / "segmenter" / "test"
    place.mkdir(parents=True)
    np.savez_compressed(place / "counts.npz", ids=np.array(ids), patients=np.array(patients), counts=counts)
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"method": "cam", "seed": seed, **(settings or {})}))
    write_json(folder / "scores.json", [{**entry, "protocol": protocol, **(more or {})}])
    said = None if fold is None else {"number": fold[0], "of": fold[1], "source": data}
    dataset = {"name": "hand", "digest": data if fold is None else f"{fold[0]}" * 64, "licence": "CC0", "fold": said}
    write_json(
        folder / "provenance.json",
        {
            "seed": seed,
            "recipe": recipe,
            "method": "cam",
            "final": "segmenter",
            "device": "cpu",
            "commit": "0123456789abcdef",
            "dataset": dataset,
            "wall_s": 60.0,
            "cpu_s": 90.0,
            "peak_memory_mb": 100.0 + seed,
            "steps": {"classifier": {"parameters": 7}, "segmenter": {"parameters": 50}},
        },
    )
    lines = [
        {"step": step, "epoch": e, "epochs": 2, "seconds": 10.0 + e, "images_per_s": rate + e}
        for step, rate in (("classifier", 30.0), ("segmenter", 40.0))
        for e in range(2)
    ]
    (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def drawn(seed: int, images: int = 6, classes: int = 2, skill: int = 6) -> list[list[list[int]]]:
    """Counts ``[N][K][K]`` of images with the same truth for every seed: each row of an image has its own sum."""
    rng, counts = np.random.default_rng(seed), []
    for image in range(images):
        rows = []
        for k in range(classes):
            true = 20 + 7 * image + 3 * k
            right = int(rng.integers(skill, true))
            wrong = rng.multinomial(true - right, [1 / (classes - 1)] * (classes - 1)).tolist()
            rows.append([*wrong[:k], right, *wrong[k:]])
        counts.append(rows)
    return counts


def read(*folders: Path) -> list[Run]:
    return [read_run(folder, "test") for folder in folders]
