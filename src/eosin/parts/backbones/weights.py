"""Weights on disk: read without running code, freed of what wrapped their network, and loaded only if they fit."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from struct import error as StructError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from eosin.core.errors import EosinError
from eosin.parts.backbones.params import read_params
from eosin.parts.backbones.resnet38 import torch_name

log = logging.getLogger(__name__)

_WRAPS = ("state_dict", "model_state_dict", "model")  # where checkpoints keep the network among other things
_PREFIXES = re.compile(r"(?:(?:module|model|net|backbone|encoder|trunk|body)[._])*")  # of networks inside of others
_LISTS = re.compile(r"[._]\d+(?=\.)")  # entries of a list of blocks
_DERIVED = ("num_batches_tracked", "relative_position_index", "relative_coords_table", "attn_mask")  # never learnt
_DAMAGED = (  # by which torch and safetensors refuse a file, or stumble over it
    *(SafetensorError, UnpicklingError, StructError, EOFError, RuntimeError),
    *(ValueError, TypeError, LookupError, AttributeError, AssertionError),
)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The entries of a file of weights by their plain names.

    ``.safetensors`` and MXNet's ``.params`` are known by their ending; anything else is read as torch saves it, with
    the state dict at the top or one level below. Nothing in a file is run.

    Raises:
        EosinError: if it is damaged, holds anything but weights, or an entry twice.
    """
    stored = _stored(path)
    found: dict[str, Tensor] = {}
    for name, value in stored.items():
        if isinstance(value, Tensor):
            if (plain := _plain(str(name))) in found:
                raise EosinError(f"{path}: holds {plain!r} twice; save the state dict of one network")
            found[plain] = value
    if not found:
        inside = ", ".join(repr(name) for name in list(stored)[:5]) or "nothing"
        raise EosinError(f"{path}: holds no weights, only {inside:.200}; save a plain state dict")
    return found


def _stored(path: Path) -> Mapping[Any, Any]:
    if path.suffix == ".params":
        return {torch_name(name): value for name, value in read_params(path).items()}
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGED as error:
        reason = str(error).partition("\n")[0]
        raise EosinError(f"{path}: not a file of weights ({reason:.100}); save a plain state dict") from None
    if not isinstance(stored, Mapping):
        raise EosinError(f"{path}: holds a {type(stored).__name__}; save a plain state dict")
    return next((stored[wrap] for wrap in _WRAPS if isinstance(stored.get(wrap), Mapping)), stored)


def load_weights(net: nn.Module, weights: Mapping[str, Tensor], source: str, whole: Callable[[], nn.Module]) -> None:
    """Load by matching name and shape; what is missing from the file is an error, what is left over is reported.

    A cut network has no head, so nothing of it may be missing. Heads and levels that were cut off may be left over;
    anything else among its blocks is an error: ResNet-101 has all that ResNet-50 has, and is not ResNet-50.

    timm loads a file without one matching name silently when cut to features, so nothing is left to it. It also joins
    some names of a cut network by underscores, so names are compared without regard to that.

    Args:
        net: what is filled.
        weights: tensors by their plain names.
        source: what errors and the log call them.
        whole: makes the network before it was cut; asked only for its names.

    Raises:
        EosinError: if they are not those of this very network, naming what does not match.
    """
    own = net.state_dict()
    names = {_joined(key): key for key in own}
    matched: dict[str, Tensor] = {}
    left: list[str] = []
    lists: set[str] = set()
    for key, value in weights.items():
        mine = names.get(_joined(key))
        if mine is not None and value.shape == own[mine].shape:
            matched[mine] = value
            lists |= _lists(key)
        elif not key.endswith(_DERIVED):
            left.append(key)
    missing = [k for k in own if k not in matched and not k.endswith(_DERIVED)]
    if missing:
        raise EosinError(
            f"{source}: {len(matched)} of the encoder's {len(own)} entries match; missing or of another shape is e.g. "
            f"{missing[0]!r}{f', left over is {left[0]!r}' if left else ''}; give the weights of this very network"
        )
    if odd := [key for key in left if lists & _lists(key)]:
        cut_off = {_joined(key) for key in whole().state_dict()}
        if odd := [key for key in odd if _joined(key) not in cut_off]:
            raise EosinError(
                f"{source}: {len(odd)} entries have no place in the encoder, e.g. {odd[0]!r}; give the weights of this "
                "very network"
            )
    nn.Module.load_state_dict(net, matched, strict=False)  # MiT's own, in SMP, takes no `strict`
    some = f" ({', '.join(left[:3])}{', ...' if len(left) > 3 else ''})" if left else ""
    rest = len(weights) - len(matched)
    log.info("%s: %d of the encoder's %d entries matched, %d left over%s", source, len(matched), len(own), rest, some)


def _plain(key: str) -> str:
    return _PREFIXES.sub("", key, count=1)


def _joined(key: str) -> str:
    return _plain(key).replace(".", "_")


def _lists(key: str) -> set[str]:
    """The lists that an entry stands in: ``layers`` and ``layers.2.blocks`` for ``layers.2.blocks.0.norm1.weight``."""
    return {key[: match.start()] for match in _LISTS.finditer(key)}
