"""What there is, and what this machine offers."""

from __future__ import annotations

import platform

from eosin.core.errors import WrongUse, nearest


def doctor() -> tuple[dict[str, str], list[str]]:
    """What this machine offers, and what keeps eosin from working, each defect with its mend."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from eosin import __version__, _compat
    from eosin.engine.device import open_device

    defects = []
    facts = {"eosin": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in ("torch", "torchvision", "timm", "segmentation-models-pytorch", "accelerate"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            defects.append(f"{package} is not installed: pip install -c constraints.txt .")
    facts["torchvision binary"] = _compat.state()
    device = open_device("auto")
    facts["device"] = f"{device.name}, {torch.get_num_threads()} threads"
    facts["precision"] = f"{device.precision} (what fit.precision = auto takes here)"
    extras = {"cpu": ("openvino", "nncf"), "onnx": ("onnx", "onnxscript", "onnxruntime"), "ray": ("ray",)}
    for extra, packages in extras.items():
        told = []
        for package in packages:
            try:
                told.append(f"{package} {version(package)}")
            except PackageNotFoundError:
                told.append(f"{package} not installed")
        facts[f"extra {extra}"] = ", ".join(told)
    return facts, defects


def list_known(what: str) -> list[dict[str, str]]:
    """The ``name`` and a line ``about`` each of what is known; of weights also where they are, and their terms.

    Args:
        what: ``methods``, ``recipes``, ``formats``, ``protocols``, ``parts`` or ``weights``.
    """
    if what == "methods":
        from eosin.methods.discover import methods

        return [_row(name, (m.__doc__ or "").strip().splitlines()[0]) for name, m in methods().items()]
    if what == "recipes":
        from eosin.recipe import shipped

        return [_row(name, text.splitlines()[0].lstrip("# ")) for name, text in shipped().items()]
    if what == "formats":
        from eosin.data.formats import importers

        return [_row(name, importer.DESCRIPTION) for name, importer in importers().items()]
    if what == "protocols":
        from eosin.metrics.protocols import PROTOCOLS

        return [_row(name, (p.__doc__ or "").strip().splitlines()[0]) for name, p in PROTOCOLS.items()]
    if what == "parts":
        from importlib import import_module
        from pkgutil import walk_packages

        import eosin.parts

        found = [m.name for m in walk_packages(eosin.parts.__path__, "eosin.parts.") if not m.ispkg]
        return [_row(n.removeprefix("eosin.parts."), (import_module(n).__doc__ or "").splitlines()[0]) for n in found]
    if what == "weights":
        from dataclasses import asdict

        from eosin.parts.backbones.known import known_weights

        return [asdict(known) for known in known_weights()]
    known = ["methods", "recipes", "formats", "protocols", "parts", "weights"]
    raise WrongUse(f"cannot list {what!r}{nearest(what, known)}")


def _row(name: str, about: str) -> dict[str, str]:
    return {"name": name, "about": about}
