"""One living process holds a slide; a dead one's lease goes at once on its machine and after a while elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eosin.wsi.lease import Lease, Lost, owner

HOLD = """
import sys, time, pathlib
from eosin.wsi.lease import Lease
lease = Lease.acquire(pathlib.Path(sys.argv[1]), "s", expires=float(sys.argv[2]))
print("held" if lease else "refused", flush=True)
time.sleep(60)
"""


def holder(folder: Path, expires: float = 60) -> subprocess.Popen[str]:
    work = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), str(expires)], stdout=subprocess.PIPE, text=True)
    assert work.stdout is not None and work.stdout.readline() == "held\n"
    return work


def killed(work: subprocess.Popen[str]) -> None:
    os.kill(work.pid, signal.SIGKILL)
    work.wait()
    assert work.stdout is not None
    work.stdout.close()


def test_of_two_processes_one_holds_a_slide_and_a_killed_one_holds_it_no_more(tmp_path: Path) -> None:
    work = holder(tmp_path)
    assert Lease.acquire(tmp_path, "s") is None
    assert f"process {work.pid} on" in str(owner(tmp_path, "s"))
    other = Lease.acquire(tmp_path, "t")
    assert other is not None
    other.release()
    killed(work)
    assert owner(tmp_path, "s") is None
    lease = Lease.acquire(tmp_path, "s")
    assert lease is not None
    with lease:
        assert [path.name for path in tmp_path.iterdir()] == ["s.lease-1"]
    assert not list(tmp_path.iterdir())


def foreign(path: Path) -> None:
    """As a process of another machine leaves it."""
    path.write_text(json.dumps({"host": "far", "process": 1, "machine": "far"}))


def test_a_lease_of_another_machine_expires_by_the_clock_of_the_files(tmp_path: Path) -> None:
    foreign(tmp_path / "s.lease-4")
    assert Lease.acquire(tmp_path, "s", expires=5) is None
    assert owner(tmp_path, "s", expires=5) == "process 1 on far"
    now = time.time()
    os.utime(tmp_path / "s.lease-4", (now - 6, now - 6))
    lease = Lease.acquire(tmp_path, "s", expires=5)
    assert lease is not None
    assert [path.name for path in tmp_path.iterdir()] == ["s.lease-5"]
    lease.release()


def test_a_living_owner_keeps_its_lease(tmp_path: Path) -> None:
    work = holder(tmp_path, 1.0)
    try:
        said = json.loads((tmp_path / "s.lease-0").read_text())
        (tmp_path / "s.lease-0").write_text(json.dumps({**said, "machine": "far"}))  # so that only its touch counts
        for _ in range(4):
            time.sleep(0.6)
            assert Lease.acquire(tmp_path, "s", expires=1.0) is None
        os.kill(work.pid, signal.SIGSTOP)
        time.sleep(1.3)
        lease = Lease.acquire(tmp_path, "s", expires=1.0)
        assert lease is not None
        lease.release()
    finally:
        os.kill(work.pid, signal.SIGCONT)
        killed(work)


def test_who_was_taken_for_dead_learns_it(tmp_path: Path) -> None:
    lease = Lease.acquire(tmp_path, "s", expires=0.3)
    assert lease is not None
    lease.check()
    (tmp_path / "s.lease-0").unlink()
    with pytest.raises(Lost):
        lease.check()
    lease.release()


def test_two_that_make_their_files_at_once_do_not_hold_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eosin.wsi import lease as module

    seen = module._leases

    def late(folder: Path, name: str) -> dict[int, Path]:
        found = seen(folder, name)
        if not found:
            foreign(folder / "s.lease-3")  # made by another between our look and our file
        return found

    monkeypatch.setattr(module, "_leases", late)
    assert Lease.acquire(tmp_path, "s") is None
    assert [path.name for path in tmp_path.iterdir()] == ["s.lease-3"]
