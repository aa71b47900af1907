"""What a processor can do is what the system tells."""

from __future__ import annotations

import builtins
import io
from typing import Any

import pytest

from eosin.core.processor import flags, has_bf16


@pytest.mark.parametrize(
    ("told", "has"),
    [
        ("processor\t: 0\nflags\t\t: fpu sse amx_bf16 amx_tile\nbugs\t: spectre\n", True),
        ("processor : 0\nflags : avx512f avx512_bf16\n", True),
        ("flags : fpu sse avx2\nprocessor : 1\nflags : amx_bf16\n", False),
        ("Features : fp asimd bf16\n", False),
        (None, False),
    ],
)
def test_bf16_is_what_the_system_tells(monkeypatch: pytest.MonkeyPatch, told: str | None, has: bool) -> None:
    def opened(path: str, **options: Any) -> io.StringIO:
        assert path == "/proc/cpuinfo"
        if told is None:
            raise FileNotFoundError(path)
        return io.StringIO(told)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", opened)
        found, answer = flags(), has_bf16()
    assert answer is has
    assert ("sse" in found) is ("sse" in (told or ""))
