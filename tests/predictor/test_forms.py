"""A model in another form is the same function, says how near it is, and is left out whole where it is not near."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eosin.core.errors import EosinError, WrongUse
from eosin.core.fingerprint import file_digest
from eosin.engine.export import tissue
from eosin.predictor import export as exporting
from eosin.predictor import parity as measuring
from eosin.predictor.export import export_program
from eosin.predictor.formats import onnx as onnx_form
from eosin.predictor.formats import openvino as openvino_form
from eosin.predictor.predictor import Predictor
from eosin.predictor.spec import Card, Runtime
from small_model import CLASSES, TILE, SmallNet, card, model_folder

FORMS = ["onnx", "openvino"]
FILES = {"onnx": ["model.onnx"], "openvino": ["model.bin", "model.xml"]}
MADE = [name for names in FILES.values() for name in names]


@pytest.fixture
def at_once(forms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX files of the small network are not made again: for tests of what becomes of a file."""
    content = (forms / "model.onnx").read_bytes()
    for place in (onnx_form, openvino_form):
        monkeypatch.setattr(place, "to_onnx", lambda program: content)


def noise(batch: int) -> np.ndarray:
    return np.random.default_rng(batch).integers(0, 256, (batch, TILE, TILE, 3), dtype=np.uint8)


def listing(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("runtime", FORMS)
@pytest.mark.parametrize("batch", [1, 2, 3, 5, 16])
def test_any_batch_gives_what_the_network_gives(forms: Path, runtime: Runtime, batch: int) -> None:
    tiles = noise(batch)
    with torch.inference_mode():
        expected = SmallNet().eval()(torch.from_numpy(tiles))
    found = Predictor.load(forms, runtime=runtime)(tiles)
    assert found.dtype == torch.float32 and found.shape == (batch, 3, TILE, TILE)
    assert (found - expected).abs().max() <= 1e-4
    assert found.std((0, 2, 3)).min() > 0.03


@pytest.mark.parametrize("runtime", FORMS)
def test_views_are_taken_and_answers_stay_as_they_were(forms: Path, runtime: Runtime) -> None:
    predictor, tiles = Predictor.load(forms, runtime=runtime), torch.from_numpy(noise(2))
    first = predictor(tiles)
    kept = first.clone()
    assert torch.equal(predictor(tiles.flip(1)), predictor(tiles.flip(1).contiguous()))
    assert torch.equal(first, kept), "a later call wrote into an earlier answer"
    with pytest.raises(WrongUse, match="takes uint8"):
        predictor(tiles[:, :-1])


def test_the_card_holds_digest_and_agreement_of_each_form(forms: Path, plain: Path) -> None:
    read = Card.read(forms)
    assert set(read.exports) == set(FORMS)
    for form, export in read.exports.items():
        assert sorted(export.files) == FILES[form]
        assert all(file_digest(forms / name) == digest for name, digest in export.files.items())
        assert export.parity.max_difference <= 1e-4 and export.parity.argmax_agreement >= 0.999
        assert export.made_with is None
    assert read.digest == Card.read(plain).digest
    assert listing(forms) == {"card.json", "program.pt2", *MADE}


def test_forms_tell_nothing_of_the_machine_that_made_them(forms: Path) -> None:
    for name in MADE:
        data = (forms / name).read_bytes()
        assert b".py" not in data and str(Path(__file__).parent).encode() not in data


@pytest.mark.usefixtures("at_once")
def test_a_folder_of_its_own_holds_card_and_form_alone(plain: Path, tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    export_program(plain, sent, "onnx", tissue(TILE))
    assert listing(sent) == {"card.json", "model.onnx"}
    assert Card.read(sent).digest == Card.read(plain).digest and not Card.read(plain).exports
    assert torch.equal(
        Predictor.load(sent, runtime="onnx")(noise(2)).argmax(1), Predictor.load(plain)(noise(2)).argmax(1)
    )
    with pytest.raises(EosinError, match=r"program.pt2: no such file"):
        Predictor.load(sent)
    export_program(plain, sent, "onnx", tissue(TILE))  # again
    assert listing(sent) == {"card.json", "model.onnx"} and Predictor.load(sent, runtime="onnx")


def test_a_folder_of_another_model_or_of_anything_else_is_left_alone(plain: Path, tmp_path: Path) -> None:
    other = model_folder(tmp_path / "other", margin=5)
    with pytest.raises(EosinError, match="holds another model"):
        export_program(plain, other, "onnx", tissue(TILE))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "x.txt").write_text("x")
    with pytest.raises(EosinError, match="neither empty nor a model folder"):
        export_program(plain, tmp_path / "notes", "onnx", tissue(TILE))
    assert listing(other) == {"card.json", "program.pt2"} and listing(tmp_path / "notes") == {"x.txt"}


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("form", "fresh"), [("onnx", True), ("onnx", False), ("openvino", False)])
def test_a_form_that_differs_leaves_nothing(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, fresh: bool
) -> None:
    model = shutil.copytree(plain, tmp_path / "model")
    target = tmp_path / "sent" if fresh else model
    before = (model / "card.json").read_bytes()
    monkeypatch.setattr(measuring, "MOST_DIFFERENCE", -1.0)
    with pytest.raises(EosinError) as told:
        export_program(model, target, form, tissue(TILE))
    assert f"as {form} the model differs by" in str(told.value) and "\n" not in str(told.value)
    assert listing(tmp_path) == {"model/card.json", "model/program.pt2"}
    assert sorted(tmp_path.iterdir()) == [model] and (model / "card.json").read_bytes() == before


@pytest.mark.usefixtures("at_once")
def test_a_form_that_is_made_again_and_fails_stays_as_it_was(
    forms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = shutil.copytree(forms, tmp_path / "model")
    monkeypatch.setattr(measuring, "LEAST_AGREEMENT", 1.1)
    with pytest.raises(EosinError):
        export_program(model, model, "onnx", tissue(TILE))
    assert Card.read(model) == Card.read(forms)
    assert Predictor.load(model, runtime="onnx") and sorted(tmp_path.iterdir()) == [model]


class Smoothing(nn.Module):
    """Resizes smoothly on its way down and up, which OpenVINO does otherwise than torch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Conv2d(3, len(CLASSES), 3, padding=1)

    def forward(self, tiles: Tensor) -> Tensor:
        image = tiles.permute(0, 3, 1, 2).float() / 255
        small = F.interpolate(image, size=(TILE // 2 + 3, TILE // 3), mode="bilinear", antialias=True)
        tiny = F.interpolate(small, size=(TILE // 4, TILE // 5), mode="bicubic", antialias=True)
        return (20 * self.head(F.interpolate(tiny, size=image.shape[2:], mode="bilinear"))).softmax(1)


@pytest.fixture(scope="module")
def smoothing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("smoothing") / "model", Smoothing())


@pytest.mark.parametrize("form", FORMS)
def test_smoothed_resizing_is_the_same_in_every_form(smoothing: Path, tmp_path: Path, form: str) -> None:
    pytest.importorskip(form)
    assert export_program(smoothing, tmp_path / "sent", form, tissue(TILE)).parity.max_difference <= 1e-5


def test_a_runtime_that_computes_otherwise_fails_the_export(
    smoothing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is wrong with the bounds here: as torch writes smoothed resizing, OpenVINO is far from it."""
    pytest.importorskip("openvino")
    monkeypatch.setattr(onnx_form, "_smooth_by_products", lambda graph: None)
    with pytest.raises(EosinError, match=r"as openvino the model differs by 0\.\d+ and agrees in \d+\.\d+% "):
        export_program(smoothing, tmp_path / "sent", "openvino", tissue(TILE))
    assert list(tmp_path.iterdir()) == []


def test_a_model_too_large_for_one_file_is_told(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_form, "LARGEST", 1000)
    with pytest.raises(EosinError, match="more than the 2 GB of one ONNX file"):
        export_program(plain, tmp_path / "sent", "onnx", tissue(TILE))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("runtime", "precision"), [("torch", "int8"), ("onnx", "bf16"), ("onnx", "int8")])
def test_what_a_runtime_cannot_compute_in_is_wrong_use(forms: Path, runtime: Runtime, precision: str) -> None:
    with pytest.raises(WrongUse, match=r"in fp32|runs this model in fp32"):
        Predictor.load(forms, precision, runtime)  # type: ignore[arg-type]


@pytest.mark.parametrize("runtime", FORMS)
def test_a_form_that_is_not_there_is_told_with_its_command(plain: Path, runtime: Runtime) -> None:
    with pytest.raises(EosinError, match=rf"no {runtime} form; make one: eosin export .* --to {runtime}"):
        Predictor.load(plain, runtime=runtime)


def test_openvino_in_bf16_is_near_and_not_the_same(forms: Path) -> None:
    from eosin.predictor.runtimes.openvino import has_bf16, library

    if not has_bf16(library().Core()):
        with pytest.raises(WrongUse, match="no bfloat16"):
            Predictor.load(forms, "bf16", "openvino")
        return
    full, half = (Predictor.load(forms, precision, "openvino")(noise(4)) for precision in ("fp32", "bf16"))
    assert 0 < (full - half).abs().max() < 0.1


BLOCKING = """
import sys
BLOCKED = ("timm", "segmentation_models_pytorch", "accelerate", "eosin.methods", "eosin.engine", "eosin.parts",
           "eosin.data", "torchvision", "onnxscript", "nncf", "eosin.predictor.formats")
class Block:
    def find_spec(self, name, path=None, target=None):
        if any(name == b or name.startswith(b + ".") for b in BLOCKED):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Block())
from pathlib import Path
import numpy as np
from PIL import Image
from eosin.predictor.predictor import Predictor
from eosin.wsi.images import predict_images
from eosin.wsi.inputs import jobs
model, image, out = map(Path, sys.argv[1:])
Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(image)
imported = {"torch": set(), "onnx": {"onnxruntime"}, "openvino": {"onnxruntime", "openvino"}}
for runtime in imported:
    (outcome,) = predict_images(Predictor.load(model, runtime=runtime), jobs([image], out))
    assert outcome.state == "done", outcome
    assert {"onnxruntime", "openvino"} & set(sys.modules) == imported[runtime]
assert sys.modules["openvino_telemetry"] is None
try:
    import eosin.engine
except ImportError as error:
    assert "blocked" in str(error)
    print("ran")
"""


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of a user whose home folder is ``tmp_path / "home"``, and who forbade nobody to send anything."""
    (tmp_path / "home").mkdir()
    said = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    return {**said, "HOME": str(tmp_path / "home")}


def test_all_forms_run_where_no_training_code_can_be_imported(
    forms: Path, tmp_path: Path, home: dict[str, str]
) -> None:
    """And tell nobody: OpenVINO and onnxruntime on their own give the home folder an id, and send it."""
    words = [str(forms), str(tmp_path / "x.png"), str(tmp_path / "out")]
    command = [sys.executable, "-c", BLOCKING, *words]
    done = subprocess.run(command, env=home, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "ran\n"), done.stderr
    assert list((tmp_path / "home").iterdir()) == []


# -- 8 bits --------------------------------------------------------------------------------------------------------


class Undecided(nn.Module):
    """Gives every class the same share of the image, so that little turns a pixel over."""

    def __init__(self) -> None:
        super().__init__()
        self.net = SmallNet()

    def forward(self, tiles: Tensor) -> Tensor:
        found: Tensor = self.net(tiles)
        return (50 * (found - found.mean((2, 3), keepdim=True))).softmax(1)


CALIBRATING = """
import sys
from pathlib import Path
from eosin.core.errors import EosinError
from eosin.engine.export import tissue
from eosin.predictor.export import export_int8
sure, unsure, sent, refused, said = map(Path, sys.argv[1:])
tiles = tissue(32, 25)
export_int8(sure, sent, tiles[:20], tiles[20:], "data toys: CC0")
try:
    export_int8(unsure, refused, tiles[:20], tiles[20:], "data toys: CC0")
except EosinError as error:
    said.write_text(str(error))
"""


def test_int8_is_near_in_its_classes_or_refused_and_tells_nobody(
    plain: Path, tmp_path: Path, home: dict[str, str]
) -> None:
    """In a process of its own: in one of pytest's, NNCF would be silent anyway."""
    pytest.importorskip("nncf")
    unsure = model_folder(tmp_path / "unsure", Undecided())
    sent, refused, said = tmp_path / "sent", tmp_path / "refused", tmp_path / "said"
    command = [sys.executable, "-c", CALIBRATING, *map(str, (plain, unsure, sent, refused, said))]
    done = subprocess.run(command, env=home, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert list((tmp_path / "home").iterdir()) == []

    made = Card.read(sent).exports["openvino-int8"]
    assert sorted(made.files) == ["model-int8.bin", "model-int8.xml"] and made.made_with == "data toys: CC0"
    assert made.parity.argmax_agreement >= exporting.LEAST_INT8 == 0.97 and made.parity.max_difference > 1e-4
    assert b"FakeQuantize" in (sent / "model-int8.xml").read_bytes()
    tiles = tissue(TILE, 25)[20:]
    found, expected = Predictor.load(sent, "int8", "openvino")(tiles), Predictor.load(plain)(tiles)
    agreement = (found.argmax(1) == expected.argmax(1)).float().mean().item()
    assert agreement == pytest.approx(made.parity.argmax_agreement, abs=1e-3)

    told = re.fullmatch(
        r".*refused: int8 has the classes of float32 in (\d+\.\d)% of the pixels of 5 .*", said.read_text()
    )
    assert told is not None and 50 < float(told[1]) < 97
    assert not refused.exists()


def test_a_card_without_forms_is_read_as_before(plain: Path, tmp_path: Path) -> None:
    value = json.loads((plain / "card.json").read_text())
    del value["exports"]
    (tmp_path / "card.json").write_text(json.dumps(value))
    assert Card.read(tmp_path) == Card.read(plain) and card().exports == {}
