"""Model folders that are made once; tests that change one take a copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from eosin.engine.export import tissue
from eosin.predictor.export import export_program
from small_model import TILE, model_folder


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as a run writes it: a card and the program."""
    return model_folder(tmp_path_factory.mktemp("plain") / "model")


@pytest.fixture(scope="session")
def forms(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with an ONNX and an OpenVINO form."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    made = shutil.copytree(plain, tmp_path_factory.mktemp("forms") / "model")
    export_program(made, made, "onnx", tissue(TILE))
    export_program(made, made, "openvino", tissue(TILE))
    return made
