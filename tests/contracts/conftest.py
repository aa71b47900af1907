"""What all contract tests share: the drawn tissue, a copy of it with spoiled truth, and a run of each method."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from contracts import driver, tissue
from contracts.runs import Run, Subject, whole


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this test session share."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "contracts"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def data(shared: Path) -> Path:
    """The drawn tissue."""
    with FileLock(shared / "data.lock"):
        return shared / "data" if (shared / "data").exists() else tissue.draw_tissue(shared / "data")


@pytest.fixture(scope="session")
def spoiled(shared: Path, data: Path) -> Path:
    """The same with noise for training masks."""
    with FileLock(shared / "spoiled.lock"):
        return shared / "spoiled" if (shared / "spoiled").exists() else tissue.spoiled(data, shared / "spoiled")


@pytest.fixture(scope="session")
def run_of(shared: Path, data: Path) -> Callable[[Subject], Run]:
    """The uninterrupted run of a method, made once for all tests."""
    (shared / "runs").mkdir(exist_ok=True)
    return lambda subject: whole(subject, data, shared / "runs" / subject.name)


@pytest.fixture
def toys() -> Iterator[None]:
    """Broken methods are found like any other."""
    with driver.toys_are_methods():
        yield
