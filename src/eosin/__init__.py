"""Tissue segmentation of H&E histopathology from image-level labels. For research use only.

The names below are loaded when they are first used, so that ``import eosin`` costs nothing. Every other verb is in
``eosin.verbs`` (``report`` too: here it would be hidden by the package of that name).
"""

from typing import Any

from eosin import _compat

__version__ = "0.1.0"

_compat.install()

_HOMES = {
    "Dataset": "eosin.data.dataset",
    "Predictor": "eosin.predictor.predictor",
    "compare": "eosin.verbs.compare",
    "demo": "eosin.verbs",
    "predict": "eosin.verbs",
    "run": "eosin.verbs",
    "score": "eosin.verbs",
}
__all__ = ["Dataset", "Predictor", "compare", "demo", "predict", "run", "score"]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'eosin' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
