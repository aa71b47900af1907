"""Labelling streams: ten times the items take hardly more memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.toys import SIDE, write_toys

TESTS = Path(__file__).resolve().parents[1]
CODE = """
import resource, sys, torch
from functools import partial
from pathlib import Path
from engine.toys import Toy, recipe
from eosin.core.progress import Silent
from eosin.data.dataset import Dataset
from eosin.engine.lab import EngineLab
from eosin.engine.workplace import Workplace
from eosin.parts.cams import Averaged
from eosin.parts.pseudo import TagGatedArgmax

data, run = map(Path, sys.argv[1:])
lab = EngineLab(Workplace(run, Dataset.open(data), recipe(), "tags", Silent()))
masks = lab.label("drawn", lab.keep("a", partial(Toy)), partial(TagGatedArgmax, maker=partial(Averaged), merge=True))
print(len(list(masks.folder.iterdir())), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.parametrize("merged", [False, True])
def test_labelling_twenty_thousand_items_takes_no_more_memory_than_two_thousand(tmp_path: Path, merged: bool) -> None:
    peaks = {}
    for count in (2_000, 20_000):
        data = write_toys(tmp_path / f"data-{count}", train=1)
        head, first, *others = (data / "items.csv").read_text().splitlines()
        columns = head.split(",")
        row = dict(zip(columns, first.split(","), strict=True))
        lines = [head]
        for i in range(count):
            of = {"parent": f"image_{i // 20}", "x": str(SIDE * (i % 20)), "y": "0"} if merged else {}
            lines.append(",".join({**row, "id": f"train_{i}", **of}[c] for c in columns))
        (data / "items.csv").write_text("\n".join([*lines, *others]) + "\n")
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)}
        words = [sys.executable, "-c", CODE, str(data), str(tmp_path / f"run-{count}")]
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        drawn, peaks[count] = json.loads("[" + done.stdout.replace(" ", ",") + "]")
        assert drawn == count
    scale = 1024 if sys.platform != "darwin" else 1024**2
    assert (peaks[20_000] - peaks[2_000]) / scale < 100, f"MB more: {peaks}"
