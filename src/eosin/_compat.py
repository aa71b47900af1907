"""Lets torchvision import beside a torch it was not built for.

torchvision's ordinary wheel holds a binary that a CPU-only torch cannot load. torchvision hides that failure and then
stops, because it gives shapes to operators (``nms``, ``qnms``) that the binary would have declared. timm, SMP and
others import torchvision and stop with it, although none of them calls these operators.

So the missing operators are declared without code, and only while torchvision is being imported, and only after its
binary was seen not to load: a binary that finds its operators already declared ends the process.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

NAME = "torchvision"
OPERATORS = ("nms", "qnms")
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

_kept: list[Any] = []  # torch takes declarations back when the library object dies


def install() -> None:
    """Arrange for torchvision's import to be mended. Does nothing the second time, or where torchvision is there.

    Takes some microseconds and imports neither torch nor torchvision; the work is done when torchvision is executed.
    """
    if NAME not in sys.modules and _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def state() -> str:
    """Import torchvision and say which case this machine is."""
    try:
        importlib.import_module(NAME)
    except ModuleNotFoundError:
        return "torchvision is not installed"
    if _kept:
        return "does not load beside this torch; mended by eosin (import eosin before timm or torchvision)"
    return "loads"


class _Finder:
    """Answers for torchvision alone, with its ordinary spec whose loader mends first."""

    def __init__(self) -> None:
        self.asking = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of torchvision as the other finders give it; finding (which libraries do to probe) has no effect."""
        if fullname != NAME or getattr(self.asking, "now", False):
            return None
        self.asking.now = True
        try:
            spec = importlib.util.find_spec(NAME)
        finally:
            self.asking.now = False
        if spec is not None and spec.loader is not None:
            self._wrap(spec)
        return spec

    def _wrap(self, spec: ModuleSpec) -> None:
        loader: Any = spec.loader
        original = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            del loader.exec_module  # the loader is as it was
            for stale in [name for name in sys.modules if name.startswith(f"{NAME}.")]:  # of an import that failed
                del sys.modules[stale]
            if not _loads(spec):
                _declare_missing()
            original(module)

        loader.exec_module = exec_module


_finder = _Finder()


def _loads(spec: ModuleSpec) -> bool:
    """Whether torchvision's binary is there and loads; torchvision loads the same file again, which is harmless."""
    from pathlib import Path

    import torch

    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    binaries = [file for folder in folders for kind in ("so", "pyd") for file in sorted(folder.glob(f"_C*.{kind}"))]
    try:
        for binary in binaries:
            torch.ops.load_library(binary)
    except OSError:
        return False
    return bool(binaries)


def _declare_missing() -> None:
    import torch
    from torch.library import Library

    fragment = Library(NAME, "FRAGMENT")
    for operator in OPERATORS:
        if not hasattr(getattr(torch.ops, NAME), operator):
            fragment.define(operator + SCHEMA)
    _kept.append(fragment)
