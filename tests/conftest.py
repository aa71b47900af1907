"""Fixtures shared by all tests, and the two house rules: no network, one torch thread a worker."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import pytest

import eosin  # noqa: F401  (before any test imports timm, which imports torchvision)

os.environ.setdefault("OMP_NUM_THREADS", "1")
# These tell their makers that they are imported, some from code that the fixture below does not reach.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
REPOSITORY = Path(__file__).resolve().parents[1]

# What a machine may lack without a library being missing: CI counts every other skipped test as a failed one.
FORGIVEN = ("real data is absent", "no C++ compiler", "no Chromium")
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def _skip_is_failure(report: Report) -> Report:
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if not any(forgiven in reason for forgiven in FORGIVEN):
            report.outcome = "failed"
            report.longrepr = f"{report.nodeid}: skipped, which CI does not allow. {reason}"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under CI, fail a test that skips itself because a library is missing."""
    return _skip_is_failure((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Under CI, fail a whole file that skips itself (``importorskip`` at its head)."""
    return _skip_is_failure((yield))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one worker test what shares a fixture: a file, or all that the contract suite asks of one method."""
    for item in items:
        asked = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        group = asked["subject"].name if "subject" in asked else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture
def real_data() -> Path:
    """The folder of real H&E data; the test is skipped where it is absent."""
    folder = Path(os.environ.get("EOSIN_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("real data is absent: set EOSIN_DATA to its folder")
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sockets reach this machine only."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else None
        if host is not None and host not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"tests may not reach the network ({host})")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", local_only)
