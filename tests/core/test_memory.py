"""Memory that a loop frees stays with the process, and goes back at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from eosin.core import memory
from eosin.core.memory import kept_memory

resource = pytest.importorskip("resource")  # Windows has none
glibc = pytest.mark.skipif(memory._glibc() is None, reason="the C library is not glibc")
BLOCK = 96 << 20


def faults(times: int) -> int:
    """Pages that the kernel had to hand out while a large block was taken, filled and freed again and again."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        bytearray(b"\1") * BLOCK
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


@glibc
def test_within_a_block_is_used_again_and_afterwards_it_goes_back():
    few = BLOCK // resource.getpagesize() // 10
    assert faults(4) > 4 * few  # what it is against
    with kept_memory():
        faults(1)
        assert faults(4) < few
        held = resident_mb()
    assert resident_mb() < held - 0.9 * BLOCK / 2**20
    assert faults(4) > 4 * few


@glibc
def test_after_an_error_memory_goes_back():
    few = BLOCK // resource.getpagesize() // 10
    with pytest.raises(RuntimeError), kept_memory():
        raise RuntimeError
    assert faults(4) > 4 * few


@pytest.mark.parametrize("answer", [OSError, TypeError, object()])
def test_another_c_library_is_left_alone(monkeypatch, answer):
    def library(name: None) -> object:
        if isinstance(answer, type):
            raise answer
        return answer  # which knows no mallopt

    monkeypatch.setattr(memory.ctypes, "CDLL", library)
    assert memory._glibc() is None
    with kept_memory():
        pass


@glibc
@pytest.mark.parametrize(
    "setting", [("MALLOC_TRIM_THRESHOLD_", "1"), ("GLIBC_TUNABLES", "glibc.cpu.x=1:glibc.malloc.hugetlb=1")]
)
def test_settings_of_the_user_stay(monkeypatch, setting):
    monkeypatch.setenv(*setting)
    few = BLOCK // resource.getpagesize() // 10
    with kept_memory():
        assert faults(4) > 4 * few
