"""Two processes that train together compute what one would, share what is judged, and only the first one writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.toys import write_toys
from eosin.core.fingerprint import file_digest

TESTS = Path(__file__).resolve().parents[1]


def launch(where: Path, run: str, processes: int, *more: object) -> subprocess.CompletedProcess[str]:
    """The script of ``ddp.py`` in so many processes."""
    (where / f"{run}-notes").mkdir(exist_ok=True)
    words = [str(TESTS / "engine" / "ddp.py"), *map(str, (where / "data", where / run, where / f"{run}-notes", *more))]
    if processes > 1:
        words = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--standalone", *words]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)}
    return subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and a run by one and a run by two processes."""
    where = tmp_path_factory.mktemp("together")
    write_toys(where / "data")
    for run, processes in (("one", 1), ("two", 2)):
        done = launch(where, run, processes)
        assert done.returncode == 0, done.stderr
    return where


def notes(where: Path, run: str, rank: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((where / f"{run}-notes" / f"{rank}.json").read_text())
    return found


def gradients(where: Path, run: str, rank: int) -> list[dict[str, torch.Tensor]]:
    found: list[dict[str, torch.Tensor]] = torch.load(where / f"{run}-notes" / f"{rank}.pt")
    return found


def test_averaged_gradients_are_those_of_one_process(where: Path) -> None:
    one = gradients(where, "one", 0)
    assert len(one) == 6 and notes(where, "one", 0)["world"] == 1
    for rank in (0, 1):
        two = gradients(where, "two", rank)
        assert notes(where, "two", rank)["world"] == 2
        for step, (expected, found) in enumerate(zip(one, two, strict=True)):
            assert found.keys() == expected.keys()
            assert any("late" in name for name in found) == (step >= 3), "a warm-up leaves parameters unused"
            for name in expected:
                torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-6)


def test_no_item_is_judged_twice(where: Path) -> None:
    one, first, second = notes(where, "one", 0), notes(where, "two", 0), notes(where, "two", 1)
    assert one["judged"] == sorted([*range(6)] * 3), "six items in each of three epochs"
    assert sorted(first["judged"] + second["judged"]) == one["judged"]
    assert not set(first["judged"]) & set(second["judged"])
    lines = [
        [json.loads(t) for t in (where / run / "journal.jsonl").read_text().splitlines()] for run in ("one", "two")
    ]
    for a, b in zip(*lines, strict=True):
        assert (a["step"], a["epoch"], a["val"], a["kept"]) == (b["step"], b["epoch"], b["val"], b["kept"])
        assert a["losses"] == pytest.approx(b["losses"], abs=1e-6)


def test_only_the_first_writes(where: Path) -> None:
    assert notes(where, "two", 0)["written"]
    assert notes(where, "two", 1)["written"] == []
    files = [sorted(str(p.relative_to(where / run)) for p in (where / run).rglob("*")) for run in ("one", "two")]
    assert files[0] == files[1]


def test_all_stop_where_one_is_asked_to_and_go_on_to_the_same_weights(where: Path) -> None:
    stopped = launch(where, "stopped", 2, 3)
    assert stopped.returncode != 0
    saved = sorted((where / "stopped" / "steps" / ".a.making" / ".checkpoints").iterdir())
    assert saved[-1].name in ("000000004.ckpt", "000000005.ckpt"), "the step that was on, or the one after it"
    again = launch(where, "stopped", 2)
    assert again.returncode == 0, again.stderr
    for step in ("a", "b"):
        weights = [file_digest(where / run / "steps" / step / "weights.safetensors") for run in ("two", "stopped")]
        assert weights[0] == weights[1]


def test_another_number_of_processes_is_refused(where: Path) -> None:
    launch(where, "fewer", 2, 3)
    refused = launch(where, "fewer", 1)
    assert refused.returncode != 0
    assert "this fit was begun by 2 processes, not 1" in refused.stderr.splitlines()[-1]
