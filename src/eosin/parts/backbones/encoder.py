"""Any timm encoder as a list of feature maps, with taps, output stride and an honest weight report."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from eosin.core.errors import EosinError, WrongUse, nearest
from eosin.core.fingerprint import file_digest

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A state dict on disk (``.pth`` or ``.safetensors``); a step's digest holds its content in place of its path."""

    path: Path
    digest: str


def pretrained_from(source: str) -> str | WeightFile:
    """What a recipe means by ``none``, ``imagenet`` or a path.

    Raises:
        WrongUse: if there is no such file.
    """
    if source in ("none", "imagenet"):
        return source
    path = Path(source)
    if not path.is_file():
        raise WrongUse(f"pretrained = {source!r}: no such weight file; give a path, 'imagenet' or 'none'")
    return WeightFile(path, file_digest(path))


class Encoder(nn.Module):
    """A timm network cut at ``taps``.

    Args:
        name: timm's name, e.g. ``resnet18``.
        taps: indices of timm's feature levels, in rising order; level ``i`` of a ResNet has stride ``2**(i+1)``.
        output_stride: 8, 16 or 32; deeper levels are dilated instead of strided.
        stem_pool: keep a ResNet's max-pool after the stem. Without it every level past the stem is twice as fine.
        pretrained: ``none``, ``imagenet`` (timm's own weights) or a state dict on disk.

    Shapes:
        ``[B, 3, H, W]`` to a list of ``[B, channels[i], about H / strides[i], about W / strides[i]]``.

    Raises:
        WrongUse: for an unknown network, or a tap, an output stride or a max-pool that it does not have.
        EosinError: if weights cannot be had or do not match.
    """

    def __init__(
        self,
        name: str = "resnet18",
        taps: Sequence[int] = (4,),
        output_stride: Literal[8, 16, 32] = 32,
        stem_pool: bool = True,
        pretrained: str | WeightFile = "none",
    ) -> None:
        super().__init__()
        if not timm.is_model(name):
            raise WrongUse(f"encoder {name!r} is not known to timm{nearest(name, timm.list_models())}")
        self.net = _cut(name, tuple(taps), output_stride)
        self.channels: list[int] = self.net.feature_info.channels()
        self.strides: list[int] = self.net.feature_info.reduction()
        if isinstance(pretrained, WeightFile):
            load_weights(self.net, _read(pretrained), str(pretrained.path))
        elif pretrained == "imagenet":
            load_weights(self.net, _imagenet(name), f"ImageNet weights of {name}")
        elif pretrained != "none":
            raise WrongUse(f"pretrained = {pretrained!r}: give none, imagenet or a WeightFile")
        if not stem_pool:
            if not isinstance(getattr(self.net, "maxpool", None), nn.MaxPool2d):
                raise WrongUse(f"encoder {name!r} has no max-pool after its stem; leave stem_pool true")
            self.net.maxpool = nn.Identity()
            self.strides = [s if s == 2 else s // 2 for s in self.strides]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Feature maps at the taps."""
        features: list[Tensor] = self.net(image)
        return features


def _cut(name: str, taps: tuple[int, ...], output_stride: int) -> Any:
    """The network up to its last tap, answering with all taps."""
    stride: dict[str, Any] = {} if output_stride == 32 else {"output_stride": output_stride}
    try:
        return timm.create_model(name, pretrained=False, features_only=True, out_indices=taps, **stride)
    except IndexError:
        raise WrongUse(f"encoder {name!r} has no feature level {max(taps)}; a ResNet has 0 to 4") from None
    except (TypeError, AssertionError):  # timm has both ways to refuse a stride
        if not stride:
            raise
        raise WrongUse(f"encoder {name!r} takes no output_stride {output_stride}; leave it at 32") from None


def load_weights(net: nn.Module, weights: Mapping[str, Any], source: str) -> None:
    """Load by matching name and shape; what is missing from the file is an error, what is left over is reported.

    timm loads a file without one matching key silently when cut to features, so nothing is left to it. It also joins
    some names of a cut network by underscores, so names are compared without regard to that.

    Raises:
        EosinError: if any of the network's own entries is not in the file.
    """
    own = net.state_dict()
    names = {key.replace(".", "_"): key for key in own}
    matched: dict[str, Tensor] = {}
    for key, value in weights.items():
        mine = names.get(key.removeprefix("module.").replace(".", "_"))
        if mine is not None and isinstance(value, Tensor) and value.shape == own[mine].shape:
            matched[mine] = value
    missing = [k for k in own if k not in matched and not k.endswith("num_batches_tracked")]
    if missing:
        raise EosinError(
            f"{source}: {len(matched)} of the encoder's {len(own)} entries match; missing or of another shape is e.g. "
            f"{missing[0]!r}; give the weights of this very network"
        )
    net.load_state_dict(matched, strict=False)
    left = len(weights) - len(matched)
    log.info("%s: %d of the encoder's %d entries matched, %d left over", source, len(matched), len(own), left)


def _read(file: WeightFile) -> Mapping[str, Any]:
    log.info("%s: sha256 %s", file.path, file.digest)
    try:
        if file.path.suffix == ".safetensors":
            return load_file(file.path)
        stored = torch.load(file.path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, UnpicklingError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise EosinError(f"{file.path}: not a file of weights ({reason:.100}); save a plain state dict") from None
    if not isinstance(stored, Mapping):
        raise EosinError(f"{file.path}: holds a {type(stored).__name__}; save a plain state dict")
    return stored.get("state_dict", stored)  # type: ignore[no-any-return]


def _imagenet(name: str) -> Mapping[str, Any]:
    try:
        net = timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:
        where = (
            "offline (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else "not reachable and not cached"
        )
        raise EosinError(
            f"ImageNet weights of {name} are {where}: set pretrained to a local file, or to 'none' to train from "
            f"scratch ({type(error).__name__})"
        ) from error
    return net.state_dict()
