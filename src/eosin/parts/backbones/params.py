"""The ``.params`` files of MXNet: arrays by name, read without MXNet."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosin.core.errors import EosinError

# What follows is little-endian. A file is LIST, 0 (both u64), the number of arrays (u64), the arrays, the number of
# names (u64), and for each name its length (u64) and its letters. An array is, by its age:
#   before 0.12  the number of sides (u32), the sides (u32)
#   then         V1 (u32), the number of sides (u32), the sides (i64)
#   now          V2 (u32), how it is stored (i32, 0 for dense), the number of sides (u32), the sides (i64)
# and, unless it has no side, the device (two i32), the type (i32) and the values.
_LIST, _V1, _V2 = 0x112, 0xF993FAC8, 0xF993FAC9
_TYPES = ("f4", "f8", "f2", "u1", "i4", "i1", "i8")
_MOST_SIDES = 32


def read_params(path: Path) -> dict[str, Tensor]:
    """Arrays of an MXNet parameter file by name, e.g. ``arg:conv1a_weight`` or ``aux:bn7_moving_mean``.

    Raises:
        EosinError: if the file is none, is cut short, or holds arrays of a kind that weights do not have.
    """
    file = _File(path)
    if file.number("u8") != _LIST:
        raise EosinError(f"{path}: not an MXNet parameter file (it does not begin with 0x112); download it again")
    file.number("u8")
    arrays = [file.array() for _ in range(file.number("u8"))]
    names = [file.text() for _ in range(file.number("u8"))]
    if len(names) != len(arrays) or file.left:
        raise EosinError(
            f"{path}: {len(arrays)} arrays, {len(names)} names, {file.left} bytes behind them; download it again"
        )
    return dict(zip(names, arrays, strict=True))


class _File:
    """A file read from front to back; reading beyond its end says that it is cut short."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
        self.at = 0

    @property
    def left(self) -> int:
        return len(self.bytes) - self.at

    def take(self, kind: str, count: int) -> NDArray[Any]:
        size = count * np.dtype(kind).itemsize
        if size > self.left:
            raise EosinError(
                f"{self.path}: cut short at byte {len(self.bytes)}, at least {size - self.left} are missing; "
                "download it again"
            )
        self.at += size
        return self.bytes[self.at - size : self.at].view(f"<{kind}")

    def number(self, kind: str) -> int:
        return int(self.take(kind, 1)[0])

    def text(self) -> str:
        return bytes(self.take("u1", self.number("u8"))).decode("utf-8", "replace")

    def array(self) -> Tensor:
        began = self.at
        version = self.number("u4")
        if version == _V2 and (stored := self.number("i4")) != 0:
            raise EosinError(f"{self.path}: the array at byte {began} is sparse (kind {stored}); save it dense")
        sides = self.number("u4") if version in (_V1, _V2) else version
        if sides > _MOST_SIDES:
            raise EosinError(f"{self.path}: no array at byte {began} (it begins with {sides:#x}); download it again")
        shape = [int(side) for side in self.take("i8" if version in (_V1, _V2) else "u4", sides)]
        if not shape:
            return torch.empty(0)
        self.take("i4", 2)
        kind = self.number("i4")
        if not 0 <= kind < len(_TYPES) or min(shape) < 0:
            raise EosinError(
                f"{self.path}: the array at byte {began} has type {kind}, shape {shape}; download it again"
            )
        return torch.from_numpy(np.array(self.take(_TYPES[kind], math.prod(shape)))).view(shape)
