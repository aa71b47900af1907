"""Draw the README's picture from a finished phantom run: image, truth and prediction of the large images.

python docs/picture.py runs/demo docs/pictures/phantom.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from eosin.core.artifact import read_json
from eosin.data.dataset import Dataset
from eosin.slides.draw import legend, overlay
from eosin.slides.image import read_mask, read_rgb

SIDE, GAP, ROWS = 300, 8, 2


def draw(run: Path, target: Path) -> None:
    """Put ``ROWS`` large images below each other, with a legend."""
    dataset = Dataset.open(read_json(run / "provenance.json")["dataset"]["folder"])
    if dataset.name != "phantom":
        sys.exit(f"{run}: a run on {dataset.name}; only pictures of drawn tissue belong into the repository")
    items, truth = dataset.items("large"), dataset.truth("large")
    assert truth is not None
    rows = []
    for i in range(ROWS):
        image, true = read_rgb(items.path(i)), read_mask(truth.path(i))
        found = read_mask(run / "predictions" / "segmenter" / "large" / f"{items.ids[i]}.png")
        seen = [image, overlay(image, true, dataset.classes), overlay(image, found, dataset.classes)]
        rows.append(_join([cv2.resize(p, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for p in seen], axis=1))
    picture = _join(rows, axis=0)
    note = "Drawn tissue: image, truth, prediction. For research use only."
    picture = np.vstack([picture, legend(dataset.classes, picture.shape[1], note=note)])
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(target, optimize=True)


def _join(parts: list[np.ndarray], axis: int) -> np.ndarray:
    shape = list(parts[0].shape)
    shape[axis] = GAP
    white = np.full(shape, 255, np.uint8)
    return np.concatenate([p for part in parts for p in (part, white)][:-1], axis=axis)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python docs/picture.py RUN PICTURE")
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
