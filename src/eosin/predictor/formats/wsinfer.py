"""A multi-label classifier for WSInfer and its extension of QuPath. The one file that knows TorchScript.

Both put a softmax over all outputs of a model. Tags are independent of each other, so no one softmax can hold them:
each tag is a model of its own, ``wsinfer/<tag>/``, with two outputs whose softmax is (absent, present). One output
would do for WSInfer, which takes a sigmoid then; QuPath's softmax of it would always be 1.

torch has deprecated TorchScript, but WSInfer reads nothing else. Unlike the other forms it is a program that can do
anything, so eosin itself reads only what it has just written.
"""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.jit._trace import TracerWarning

from eosin.core.artifact import write_json
from eosin.core.errors import EosinError, WrongUse
from eosin.predictor.runtimes import Run
from eosin.predictor.spec import Card

FOLDER = "wsinfer"
MODEL, CONFIG = "torchscript_model.pt", "config.json"  # as WSInfer's model zoo names them


def write(odds: Sequence[nn.Module], card: Card, folder: Path) -> list[str]:
    """Write one model a tag.

    Args:
        odds: of each class, in the card's order: from float32 ``[B, 3, tile, tile]`` in 0..1 to ``[B, 2]``, whose
            softmax is (absent, present).
        card: of the model.
        folder: to write into.

    Returns:
        The names of what was written.

    Raises:
        EosinError: if torch cannot trace the classifier.
        WrongUse: if the size of a pixel is not known, without which WSInfer cannot cut patches.
    """
    if card.mpp is None:
        raise WrongUse(f"WSInfer needs the size of a pixel, and data set {card.dataset} has none: add mpp to its head")
    names = []
    for place, tissue, module in zip(places(card), card.classes.names, odds, strict=True):
        (folder / place).mkdir(parents=True)
        (folder / place / MODEL).write_bytes(_script(module, card.tile))
        write_json(folder / place / CONFIG, _config(card, tissue))
        names += [f"{place}/{MODEL}", f"{place}/{CONFIG}"]
    return names


def places(card: Card) -> list[str]:
    """The folder of each tag, in the order of the classes."""
    plain = [re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "tag" for name in card.classes.names]
    return [f"{FOLDER}/{n}" if plain.count(n) == 1 else f"{FOLDER}/{n}.{i}" for i, n in enumerate(plain)]


def run_of(card: Card, folder: Path) -> Run:
    """What WSInfer makes of the written models: uint8 tiles to (absent, present) ``[B, 2, K]`` of each tag."""
    with _quietly():
        models = [torch.jit.load(folder / place / MODEL) for place in places(card)]

    def run(tiles: Tensor) -> Tensor:
        image = tiles.permute(0, 3, 1, 2).float() / 255  # ToTensor
        return torch.stack([model(image).softmax(1) for model in models], 2)

    return run


def _config(card: Card, tissue: str) -> Mapping[str, object]:
    """``config.json`` as WSInfer's schema 1.0 wants it; it lets further keys pass."""
    return {
        "spec_version": "1.0",
        "architecture": f"eosin {card.method}",
        "num_classes": 2,
        "class_names": [f"no {tissue}", tissue],
        "patch_size_pixels": card.tile,
        "spacing_um_px": card.mpp,
        "transform": [{"name": "Resize", "arguments": {"size": card.tile}}, {"name": "ToTensor"}],
        "licences": list(card.licences),
        "use": card.use,
    }


def _script(module: nn.Module, tile: int) -> bytes:
    """TorchScript of a module, without the paths and lines of source that torch puts beside it."""
    made, clean = io.BytesIO(), io.BytesIO()
    example = torch.zeros(2, 3, tile, tile)
    with _quietly(), torch.no_grad():
        try:
            # First the graph, in which sizes are numbers: the trace of a network would hold them as tensors.
            program = torch.export.export(module.eval(), (example,), dynamic_shapes=({0: Dim("batch", min=1)},))
            torch.jit.save(torch.jit.trace(program.module(), example, check_trace=False), made)
        except RuntimeError as error:
            line = " ".join(str(error).split())
            raise EosinError(f"the tag classifier cannot be written for WSInfer: {line:.200}") from None
    with zipfile.ZipFile(made) as source, zipfile.ZipFile(clean, "w") as target:
        for info in source.infolist():
            if not info.filename.endswith(".debug_pkl"):
                target.writestr(info.filename, source.read(info))
    return clean.getvalue()


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the warnings that TorchScript is old, and that sizes become constants, which is what is wanted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", TracerWarning)
        yield
