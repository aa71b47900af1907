"""The layers of docs/architecture.md: they hold here, and each planted violation of them is reported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
CONTRACTS = {
    contract["name"]: contract["id"]
    for contract in tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}

# what is planted: {file: content} -> the contracts that must break
VIOLATIONS: dict[str, tuple[dict[str, str], set[str]]] = {
    "up": ({"core/planted.py": "import eosin.engine"}, {"layers"}),
    "up from the bottom to the top": ({"slides/planted.py": "from eosin import report"}, {"layers"}),
    "sibling": ({"data/planted.py": "from eosin.metrics import planted", "metrics/planted.py": ""}, {"layers"}),
    "sibling for types": (
        {"wsi/planted.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import eosin.engine"},
        {"layers"},
    ),
    "up inside a function": ({"predictor/planted.py": "def f():\n    import eosin.report"}, {"layers"}),
    "a new room": ({"attic/__init__.py": ""}, {"layers"}),
    "a new file beside the rooms": ({"helpers.py": ""}, {"layers"}),
    "method sees data": ({"methods/planted.py": "import eosin.data"}, {"methods-are-handed-a-lab"}),
    "method sees metrics through a part": (
        {"methods/planted.py": "import eosin.parts.planted", "parts/planted.py": "import eosin.metrics"},
        {"layers", "methods-are-handed-a-lab"},
    ),
    "method sees another": (
        {"methods/planted.py": "import eosin.methods.other", "methods/other.py": ""},
        {"methods-stand-alone"},
    ),
    "engine sees a part": ({"engine/planted.py": "import eosin.parts.losses"}, {"engine-knows-no-method"}),
    "wsi sees data": ({"wsi/planted.py": "import eosin.data"}, {"slides-need-no-training"}),
    "accelerate in a second file": ({"engine/planted.py": "import accelerate"}, {"accelerate-in-one-file"}),
    "accelerate inside a function": (
        {"metrics/planted.py": "def f():\n    from accelerate import utils"},
        {"accelerate-in-one-file"},
    ),
    "timm in the predictor": ({"predictor/planted.py": "import timm.layers"}, {"no-training-libraries"}),
    "SMP in wsi": ({"wsi/planted.py": "import segmentation_models_pytorch"}, {"no-training-libraries"}),
    "tifffile in data": ({"data/planted.py": "import tifffile"}, {"no-slide-libraries"}),
    "openslide in data through slides": (
        {"data/planted.py": "import eosin.slides.planted", "slides/planted.py": "import openslide"},
        {"no-slide-libraries"},
    ),
    "a part imports another": (
        {"parts/planted.py": "import eosin.parts.losses.planted", "parts/losses/planted.py": ""},
        {"parts-stand-alone"},
    ),
    "a loss imports another": (
        {"parts/losses/planted.py": "from eosin.parts.losses import other", "parts/losses/other.py": ""},
        {"losses-stand-alone"},
    ),
}

ALLOWED: dict[str, dict[str, str]] = {
    "method": {"methods/planted.py": "import eosin.methods.method, eosin.parts.cams, eosin.core.lab"},
    "wsi": {"wsi/planted.py": "import eosin.predictor, eosin.slides, tifffile, rasterio, shapely"},
    "report": {"report/planted.py": "import eosin.engine, eosin.methods, eosin.metrics"},
    "data": {"data/planted.py": "import eosin.slides.image"},
}

# Runs in its own process, where ``eosin`` is the copy: lints it once for each planting and prints what broke.
LINT_COPY = """
import contextlib, io, json, os, re, sys
from pathlib import Path
from importlinter.cli import lint_imports

sys.path.insert(0, os.getcwd())
package, found = Path("eosin"), {}
for name, files in json.load(sys.stdin).items():
    fresh = [package / file for file in files if not (package / file).exists()]
    for file in fresh:
        file.parent.mkdir(exist_ok=True)
        file.write_text(files[str(file.relative_to(package))])
    with contextlib.redirect_stdout(io.StringIO()) as said:
        ended = lint_imports(config_filename="pyproject.toml", no_cache=True)
    broken = re.findall(r"^(.+) BROKEN", said.getvalue(), re.MULTILINE)
    found[name] = broken if ended == bool(broken) and len(fresh) == len(files) else ["did not run: " + said.getvalue()]
    for file in fresh:
        file.unlink()
        if not any(file.parent.iterdir()):
            file.parent.rmdir()
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """For each planting, the ids of the contracts that broke in a copy of the package."""
    copy = tmp_path_factory.mktemp("layers")
    shutil.copytree(REPOSITORY / "src" / "eosin", copy / "eosin", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", copy)
    plantings = {"nothing": {}, **{name: files for name, (files, _) in VIOLATIONS.items()}, **ALLOWED}
    ended = subprocess.run(
        [sys.executable, "-c", LINT_COPY],
        input=json.dumps(plantings),
        capture_output=True,
        text=True,
        check=True,
        cwd=copy,
        env={**os.environ, "COLUMNS": "300"},
    )
    return {name: {CONTRACTS.get(c, c) for c in found} for name, found in json.loads(ended.stdout).items()}


def test_the_layers_hold(broken: dict[str, set[str]]) -> None:
    assert broken["nothing"] == set()


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_planted_violation_is_caught(name: str, broken: dict[str, set[str]]) -> None:
    assert broken[name] == VIOLATIONS[name][1]


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_allowed_passes(name: str, broken: dict[str, set[str]]) -> None:
    assert broken[name] == set()


def test_every_contract_has_a_planted_violation() -> None:
    assert set().union(*(contracts for _, contracts in VIOLATIONS.values())) == set(CONTRACTS.values())
