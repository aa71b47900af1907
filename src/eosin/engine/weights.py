"""Weights on disk: how a step keeps them, and how a learner gets them back."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from eosin.core.artifact import Artifact, write_bytes
from eosin.core.errors import EosinError
from eosin.core.learner import Learner
from eosin.engine.device import seed_everything

L = TypeVar("L", bound=Learner)
WEIGHTS = "weights.safetensors"


def built(build: partial[L], name: str, seed: int) -> L:
    """A new learner, whose first weights follow from the seed and the step's name."""
    seed_everything(seed, zlib.crc32(name.encode()))
    return build()


def store(weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write a learner's state into the folder of a step."""
    write_bytes(folder / WEIGHTS, save({name: value.detach().cpu().contiguous() for name, value in weights.items()}))


def load(build: partial[Any], source: Artifact) -> Learner:
    """The learner of a finished step, for use."""
    learner: Learner = without_weights(build)()
    return fill(learner, source).eval()


def fill(learner: L, source: Artifact) -> L:
    """Give a learner the weights of a finished step.

    Raises:
        EosinError: if they cannot be read, or are those of another network, naming what differs.
    """
    path = source.folder / WEIGHTS
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise EosinError(f"{path}: cannot be read ({error}); do the step {source.name} again (--redo)") from None
    wanted = {name: value.shape for name, value in learner.state_dict().items()}
    odd = sorted(
        name for name in wanted.keys() | found.keys() if wanted.get(name) != getattr(found.get(name), "shape", None)
    )
    if odd:
        raise EosinError(
            f"{path}: weights of another network: {len(odd)} of {len(wanted)} entries do not fit "
            f"({', '.join(odd[:3])}); use the options that it was trained with"
        )
    learner.load_state_dict(found)
    return learner


def begin(learner: L, source: Artifact) -> L:
    """As :func:`fill`, to be trained on: what the learner was ``given`` it keeps."""
    own = {name: learner.state_dict()[name].clone() for name in learner.given}
    fill(learner, source).load_state_dict(own, strict=False)
    return learner


def without_weights(build: partial[Any]) -> partial[Any]:
    """The same builder with every ``pretrained`` set to "none": for a learner whose own weights are loaded next."""
    given = inspect.signature(build.func).bind_partial(*build.args, **build.keywords).arguments
    bare = {key: "none" if key == "pretrained" else _bare(value) for key, value in given.items()}
    return partial(build.func, **bare)


def _bare(value: Any) -> Any:
    """An argument without the weights of what it builds, also within sequences and mappings."""
    if isinstance(value, partial):
        return without_weights(value)
    if isinstance(value, Mapping):
        return {key: _bare(inner) for key, inner in value.items()}
    return tuple(map(_bare, value)) if isinstance(value, tuple | list) else value
