"""A small data set and a finished run over it, written by hand in the formats that the engine writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eosin.core.artifact import write_json
from eosin.core.classes import Classes, Tissue
from eosin.data.contract import Objects
from eosin.data.dataset import Dataset, Row, write_dataset
from eosin.metrics.confusion import count_pixels
from eosin.metrics.protocols import Strict, Subject, tags_entry
from eosin.slides.image import png_bytes

CLASSES = Classes(
    tissues=(
        Tissue(name="background", colour=(235, 235, 240)),
        Tissue(name="tumour", colour=(200, 40, 70)),
        Tissue(name="stroma", colour=(60, 140, 90)),
    )
)
STEPS = (
    ("zoning", "fit", [], 31.5),
    ("pseudo", "label", ["zoning"], 4.25),
    ("segmenter", "fit", ["pseudo"], 61.0),
)
RECIPE = "method: cam\noptions:\n  encoder: resnet18\nfit:\n  epochs: 4\nprotocol: strict\nseed: {seed}\n"


@dataclass(frozen=True)
class FakeRun:
    """Where the run and its data set lie."""

    run: Path
    data: Path

    def scores(self) -> list[dict[str, Any]]:
        """The content of scores.json."""
        return json.loads((self.run / "scores.json").read_text())  # type: ignore[no-any-return]


def make_data(folder: Path, *, truth: bool, side: int = 24, items: int = 15, name: str = "fake tissue") -> None:
    """Discs of tumour and stroma on background; one item in five has an unknown tag."""
    draw = np.random.default_rng(0)
    rows = []
    for split in ("train", "val", "test"):
        for i in range(items):
            item = f"{split}-{i:03d}"
            mask = discs(draw, side)
            rgb = np.asarray([(244, 242, 246), (170, 90, 150), (226, 150, 190)], np.uint8)[mask]
            rgb = np.clip(rgb + draw.normal(0, 9, rgb.shape), 0, 255).astype(np.uint8)
            (folder / "images").mkdir(parents=True, exist_ok=True)
            Image.fromarray(rgb).save(folder / "images" / f"{item}.png")
            drawn = f"masks/{item}.png" if truth and split != "train" else ""
            if drawn:
                _save(folder / drawn, mask)
            tags = [float((mask == k).mean() > 0.02) for k in range(3)]
            told = [None if i % 5 == 0 and k == 2 else tag for k, tag in enumerate(tags)]
            rows.append(Row(item, split, f"images/{item}.png", drawn, f"P{i % 4}", told))
    write_dataset(
        folder,
        name=name,
        classes=CLASSES,
        rows=rows,
        mpp=0.5,
        licence="CC0 & free <for all>",
        citation="Nobody et al. 2024, https://example.org/paper",
        tag_rule=0.02,
        known={"patient_overlap": "official split"},
        objects=Objects(tissue="tumour", folder="objects"),
    )


def make_run(
    root: Path, *, truth: bool = True, seed: int = 0, side: int = 24, skill: float = 0.9, labels: bool = False
) -> FakeRun:
    """A finished run: zoning (a classifier), pseudo masks, segmenter; the two scored on val and test.

    Args:
        root: an empty folder.
        truth: whether val and test have masks.
        seed: of the run; changes the predictions.
        side: of the items in pixels.
        skill: the share of blocks that are predicted rightly, for the best item.
        labels: whether the pseudo masks of val and test, drawn by the items' tags, were scored, too.
    """
    data, run = root / "data", root / f"run-{seed}"
    if not data.exists():
        make_data(data, truth=truth, side=side)
    dataset = Dataset.open(data)
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(RECIPE.format(seed=seed))
    (run / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in _journal(truth)))
    for step, kind, inputs, wall in STEPS:
        record = {"schema": 1, "name": step, "digest": step, "inputs": inputs, "form": {"kind": kind, "name": step}}
        write_json(run / "steps" / step / "step.json", {**record, "notes": {"wall_s": wall, "cpu_s": 1.8 * wall}})
    train = dataset.items("train")
    for i, item in enumerate(train.ids):
        _save(run / "steps" / "pseudo" / "masks" / f"{item}.png", np.full((side, side), 255 if i % 4 else 1, np.uint8))
    scored = ("zoning", "pseudo", "segmenter") if labels else ("zoning", "segmenter")
    scores = [_score(dataset, run, step, split, seed, skill) for step in scored for split in ("val", "test")]
    write_json(run / "scores.json", scores)
    write_json(run / "provenance.json", _provenance(dataset, seed))
    return FakeRun(run, data)


def _save(path: Path, mask: np.ndarray) -> None:
    """As write_mask does, without waiting for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png_bytes(mask, CLASSES))


def discs(draw: np.random.Generator, side: int) -> np.ndarray:
    """A mask: up to one disc of tumour over one of stroma, on background."""
    y, x = np.mgrid[:side, :side] / side
    mask = np.zeros((side, side), np.uint8)
    for k in (2, 1):
        if draw.random() < 0.2:
            continue
        cx, cy, r = draw.uniform(0.2, 0.8), draw.uniform(0.2, 0.8), draw.uniform(0.12, 0.35)
        mask[(x - cx) ** 2 + (y - cy) ** 2 < r**2] = k
    return mask


def _score(dataset: Dataset, run: Path, step: str, split: str, seed: int, skill: float) -> Any:
    draw = np.random.default_rng((seed, len(step), len(split)))
    items, truth = dataset.items(split), dataset.truth(split)
    subject = Subject(dataset.name, split, step, "masks" if truth else "tags")
    protocol, counts = Strict(CLASSES), []
    for i, item in enumerate(items.ids):
        side = Image.open(items.path(i)).height
        predicted = discs(draw, side)
        if truth is not None:
            true = np.asarray(Image.open(truth.path(i)))
            right = draw.random((side, side)) < skill * (i + 1) / len(items)
            predicted = np.where(right, true, predicted).astype(np.uint8)
            counts.append(count_pixels(predicted, true, len(CLASSES)))
        _save(run / "predictions" / step / split / f"{item}.png", predicted)
    if truth is not None:
        entry = protocol.score_entry(subject, np.stack(counts), items.patients)
        return {**entry, "uses_truth": step == "pseudo", **_more(entry, split)}
    return tags_entry(subject, CLASSES, draw.random(items.tags.shape), items.tags)


def _more(entry: Any, split: str) -> dict[str, Any]:
    """What is scored beside the confusion matrix; round numbers that are told apart when they are read again."""
    iou = entry["iou"]
    distance = {name: 40 * (1 - value) for name, value in iou.items()}
    counted = {name: 15 - k for k, name in enumerate(iou)}
    bins = [{"from": k / 15, "to": (k + 1) / 15, "confidence": None, "accuracy": None, "pixels": 0} for k in range(15)]
    for k in range(5, 15):
        bins[k] |= {"confidence": (k + 0.6) / 15, "accuracy": 0.11 + (k + 0.6) / 19, "pixels": 3**k}
    fitted = split == "val"
    return {
        "ci95": {**entry["ci95"], "iou": {name: [0.9 * value, 0.5 + 0.5 * value] for name, value in iou.items()}},
        "boundary": {
            "width_px": 2,
            "iou": {name: 0.7 * value for name, value in iou.items()},
            "miou": 0.7 * entry["miou"],
            "hd": {name: 2 * value for name, value in distance.items()},
            "hd95": distance,
            "hd_um": {name: value for name, value in distance.items()},
            "hd95_um": {name: value / 2 for name, value in distance.items()},
            "images": counted,
            "empty": {name: k for k, name in enumerate(iou)},
        },
        "objects": {
            "f1": 0.8125,
            "dice": 0.7725,
            "hausdorff": 31.25,
            "hausdorff_um": 15.625,
            "truth": 1234,
            "predicted": 1301,
            "images": 15,
        },
        "calibration": {
            "temperature": 1.375,
            "ece": 0.0825,
            "ece_tempered": None if fitted else 0.0215,
            "bins": bins,
        },
    }


def add_suspects(made: FakeRun) -> None:
    """What ``eosin report RUN --masks`` writes: the tags of the training images, the most doubtful first."""
    ids = Dataset.open(made.data).items("train").ids
    items = [
        {"id": str(name), "class": "stroma", "tag": k % 2, "score": 0.95 - k / 20 if k % 2 == 0 else k / 40}
        for k, name in enumerate(ids)
    ]
    for item in items:
        item["doubt"] = abs(item["score"] - item["tag"])
    items.sort(key=lambda item: -item["doubt"])
    write_json(made.run / "suspects" / "suspects.json", {"schema": 1, "step": "zoning", "folds": 5, "items": items})


def _journal(truth: bool) -> list[dict[str, Any]]:
    lines = []
    for step in ("zoning", "segmenter"):
        for epoch in range(4):
            val = {"tag_map": 0.6 + 0.05 * epoch, "miou": 0.4 + 0.1 * epoch if truth else None}
            terms = {"tags": 0.7 / (epoch + 1)} if step == "zoning" else {"ce": 1.1 / (epoch + 1), "dice": 0.01}
            lines.append(
                {
                    "step": step,
                    "epoch": epoch,
                    "epochs": 4,
                    "losses": terms,
                    "lr": 1e-3,
                    "seconds": 7.5,
                    "images_per_s": 200.0 + epoch,
                    "selection": "masks" if truth else "tags",
                    "val": val if epoch else None,
                    "kept": epoch == 2,
                }
            )
    return lines


def _provenance(dataset: Dataset, seed: int) -> dict[str, Any]:
    return {
        "eosin": "0.1.0",
        "python": "3.11.9",
        "torch": "2.13.0+cpu",
        "platform": "Linux x86_64",
        "device": "cpu",
        "threads": 2,
        "precision": "bf16",
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "seed": seed,
        "dataset": {
            "name": dataset.name,
            "digest": dataset.digest,
            "folder": str(dataset.folder),
            "licence": dataset.licence,
            "citation": dataset.citation,
            "fold": {"number": 2, "of": 5, "source": "ab" * 32},
        },
        "recipe_digest": f"{seed}" * 64,
        "method": "cam",
        "final": "segmenter",
        "peak_memory_mb": 1834.5,
        "started": "2024-05-01T10:00:00+00:00",
        "wall_s": 600.0 + 60 * seed,
        "cpu_s": 1150.0,
    }
