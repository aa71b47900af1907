"""Adding a form to a model folder: written aside, compared with the program, and only then put in its place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from eosin.core.errors import EosinError
from eosin.core.fingerprint import file_digest
from eosin.predictor.parity import near, noise, parity
from eosin.predictor.predictor import open_run
from eosin.predictor.runtimes import Run
from eosin.predictor.runtimes.torch import load_program, runner
from eosin.predictor.spec import CARD, Card, Export, Form, Parity

LEAST_INT8 = 0.97


def export_program(source: Path, target: Path, form: Literal["onnx", "openvino"], tissue: Tensor) -> Export:
    """Write a model's program in another form.

    Args:
        source: the model folder.
        target: the folder that gets the form: ``source`` itself, one of the same model, or one to be made.
        form: which.
        tissue: tiles that look like what the model is for, uint8 ``[5, tile, tile, 3]``.

    Returns:
        What the card now says of it.

    Raises:
        EosinError: if the model cannot be loaded, cannot be written in that form, or what was written differs from it
            by more than 1e-4 in a probability or in more than 0.1 % of the pixels' classes. Nothing is left then.
    """
    card = Card.read(source)

    def made(folder: Path) -> list[str]:
        if form == "onnx":
            from eosin.predictor.formats.onnx import write
        else:
            from eosin.predictor.formats.openvino import write
        return write(load_program(source, card.files, card), folder)

    def measure(folder: Path, files: Mapping[str, str]) -> Parity:
        found = open_run(folder, files, card, form, "fp32")
        return _near(target, form, parity(_program(source, card), found, (tissue, noise(card.tile))))

    return _add(source, target, form, made, measure)


def export_int8(source: Path, target: Path, tiles: Tensor, judged: Tensor, data: str) -> Export:
    """Write a model with 8-bit weights and activations for OpenVINO.

    Args:
        source: the model folder.
        target: see :func:`export_program`.
        tiles: of real images, uint8 ``[N, tile, tile, 3]``, that the ranges of the activations are taken from.
        judged: further ones, on which it is compared with the program.
        data: the name and the terms of the data set.

    Raises:
        EosinError: as :func:`export_program`, and if its classes are the program's in less than 97 % of the pixels.
    """
    card = Card.read(source)

    def made(folder: Path) -> list[str]:
        from eosin.predictor.formats.openvino import write_int8

        return write_int8(load_program(source, card.files, card), folder, tiles)

    def measure(folder: Path, files: Mapping[str, str]) -> Parity:
        found = open_run(folder, files, card, "openvino", "int8")
        measured = parity(_program(source, card), found, [judged])
        if measured.argmax_agreement < LEAST_INT8:
            raise EosinError(
                f"{target}: int8 has the classes of float32 in {measured.argmax_agreement:.1%} of the pixels of"
                f" {len(judged)} images, less than {LEAST_INT8:.0%}; nothing was written, use openvino in bf16"
            )
        return measured

    return _add(source, target, "openvino-int8", made, measure, data)


def export_wsinfer(
    source: Path, target: Path, odds: Sequence[nn.Module], expected: Run, tissue: Tensor, step: str
) -> Export:
    """Write a model's tag classifier for WSInfer and QuPath; see ``eosin.predictor.formats.wsinfer``.

    Args:
        source: the model folder.
        target: see :func:`export_program`.
        odds: as ``eosin.predictor.formats.wsinfer.write`` takes them.
        expected: from uint8 tiles to the probabilities (absent, present) ``[B, 2, K]`` of each tag.
        tissue: see :func:`export_program`.
        step: the trained step that answers.

    Raises:
        EosinError: as :func:`export_program`.
        WrongUse: if the model does not know the size of a pixel.
    """
    from eosin.predictor.formats import wsinfer

    card = Card.read(source)

    def measure(folder: Path, files: Mapping[str, str]) -> Parity:
        found = wsinfer.run_of(card, folder)
        return _near(target, "wsinfer", parity(expected, found, (tissue, noise(card.tile))))

    return _add(source, target, "wsinfer", lambda folder: wsinfer.write(odds, card, folder), measure, step)


def _program(source: Path, card: Card) -> Run:
    return runner(load_program(source, card.files, card), "fp32")


def _near(target: Path, form: Form, measured: Parity) -> Parity:
    if not near(measured):
        raise EosinError(
            f"{target}: as {form} the model differs by {measured.max_difference:.2g} and agrees in"
            f" {measured.argmax_agreement:.2%} of the classes; nothing was written, use another form"
        )
    return measured


def _add(
    source: Path,
    target: Path,
    form: Form,
    write: Callable[[Path], list[str]],
    measure: Callable[[Path, Mapping[str, str]], Parity],
    made_with: str | None = None,
) -> Export:
    """Write aside, measure, and put into place; the card is written last, so that it never lists what is not there."""
    card = Card.read(source)
    if (target / CARD).is_file():
        known = Card.read(target)
        if known.digest != card.digest:
            raise EosinError(f"{target}: holds another model; choose another --out")
    elif target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise EosinError(f"{target}: neither empty nor a model folder; choose another --out")
    else:
        known = card.model_copy(update={"exports": {}})
    others = {name: export for name, export in known.exports.items() if name != form}
    with _aside(target) as folder:
        files = {name: file_digest(folder / name) for name in write(folder)}
        export = Export(files=files, parity=measure(folder, files), made_with=made_with)
        target.mkdir(parents=True, exist_ok=True)
        known.model_copy(update={"exports": others}).write(target)
        for path in folder.iterdir():
            if (target / path.name).is_dir():
                shutil.rmtree(target / path.name)
            os.replace(path, target / path.name)
        known.model_copy(update={"exports": {**others, form: export}}).write(target)
    return export


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """A folder on the same disk, that goes with all that is left in it."""
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.with_name(f".{target.name}.exporting")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
