"""What this machine's processor can do, as far as the system tells."""

from __future__ import annotations


def flags() -> frozenset[str]:
    """Its feature flags, on Linux on x86; else none."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            line = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return frozenset()
    return frozenset(line.partition(":")[2].split())


def has_bf16() -> bool:
    """Whether it computes in bfloat16 (AMX or AVX512-BF16), so that bf16 gains."""
    return not flags().isdisjoint({"amx_bf16", "avx512_bf16"})
