"""A script in a process that was loaded before is told, and tells, what one started by itself is and does."""

from __future__ import annotations

import os
from multiprocessing import get_start_method
from pathlib import Path
from subprocess import TimeoutExpired

import pytest

from warm import script

SCRIPT = """
import multiprocessing, os, signal, sys, time
print(__name__, sys.argv[1:], os.environ["WISH"], os.environ.get("PATH"), os.path.basename(os.getcwd()))
print("eosin.engine.lab" in sys.modules, multiprocessing.get_start_method(), file=sys.stderr)
sys.stdout.flush()
if sys.argv[1] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "raise":
    raise RuntimeError("not found")
if sys.argv[1] == "sleep":
    time.sleep(60)
sys.exit(int(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("word", "code", "told"), [("3", 3, ""), ("0", 0, ""), ("kill", -9, ""), ("raise", 1, "found")]
)
def test_it_is_as_if_started_by_itself(word: str, code: int, told: str, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(SCRIPT)
    done = script(tmp_path / "s.py", [word, 7], {"WISH": "w"}, tmp_path)
    assert done.returncode == code
    assert done.stdout == f"__main__ ['{word}', '7'] w None {tmp_path.name}\n"
    assert done.stderr.startswith(f"True {get_start_method()}\n") and told in done.stderr, "not loaded before"


def test_what_takes_too_long_is_killed(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(SCRIPT)
    with pytest.raises(TimeoutExpired):
        script(tmp_path / "s.py", ["sleep"], {**os.environ, "WISH": "w"}, limit_s=2)
