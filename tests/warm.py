"""Scripts in processes of their own that begin with the libraries of training loaded: alone each would take seconds."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import get_context, set_start_method
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from tempfile import TemporaryDirectory

FORKS = get_context("forkserver")  # one server for each process that tests; it alone loads them, its children are forks
LIBRARIES = ("torch.export", "networkx")
FORKS.set_forkserver_preload(["eosin.cli", "eosin.engine.lab", "eosin.methods.pdseg", "eosin.report.html", *LIBRARIES])


def script(
    path: Path,
    words: Sequence[object],
    environment: Mapping[str, str],
    folder: Path | None = None,
    limit_s: float = 150,
) -> CompletedProcess[str]:
    """As ``subprocess.run([sys.executable, path, *words])``, but quicker.

    Args:
        path: the script, run as ``__main__``.
        words: what it finds in ``sys.argv``, after its own name.
        environment: all variables.
        folder: where it runs; None: here.
        limit_s: after so many seconds it is killed, and ``TimeoutExpired`` raised.
    """
    command = [str(path), *map(str, words)]
    with TemporaryDirectory() as told:
        out, err = Path(told, "out"), Path(told, "err")
        process = FORKS.Process(target=_become, args=(command, dict(environment), folder or Path.cwd(), out, err))
        process.start()
        process.join(limit_s)
        if process.exitcode is None:
            process.kill()
            raise TimeoutExpired(command, limit_s, err.read_bytes())
        return CompletedProcess(command, process.exitcode, out.read_text(), err.read_text())


def _become(command: list[str], environment: dict[str, str], folder: Path, out: Path, err: Path) -> None:
    for stream, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    set_start_method(None, force=True)  # else its own children would come from one more server, and outlive its death
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")
