"""Any timm encoder as a list of feature maps, with taps, output stride and an honest weight report."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import timm
import torch
from torch import Tensor, nn

from eosin.core.errors import EosinError, WrongUse, nearest
from eosin.core.fingerprint import file_digest

log = logging.getLogger(__name__)


class Encoder(nn.Module):
    """A timm network cut at ``taps``.

    Args:
        name: timm's name, e.g. ``resnet18``.
        taps: indices of timm's feature levels, in rising order; level ``i`` of a ResNet has stride ``2**(i+1)``.
        output_stride: 8, 16 or 32; deeper levels are dilated instead of strided (ResNets; others keep 32).
        stem_pool: keep a ResNet's max-pool after the stem. Without it every level past the stem is twice as fine.
        pretrained: ``none``, ``imagenet`` (timm's own weights) or the path of a state dict.

    Shapes:
        ``[B, 3, H, W]`` to a list of ``[B, channels[i], about H / strides[i], about W / strides[i]]``.

    Raises:
        WrongUse: for an unknown network, or a stem without max-pool.
        EosinError: if weights cannot be had or do not match.
    """

    def __init__(
        self,
        name: str = "resnet18",
        taps: Sequence[int] = (4,),
        output_stride: Literal[8, 16, 32] = 32,
        stem_pool: bool = True,
        pretrained: str = "none",
    ) -> None:
        super().__init__()
        if not timm.is_model(name):
            raise WrongUse(f"encoder {name!r} is not known to timm{nearest(name, timm.list_models())}")
        stride = {} if output_stride == 32 else {"output_stride": output_stride}
        self.net = timm.create_model(name, pretrained=False, features_only=True, out_indices=tuple(taps), **stride)
        self.channels: list[int] = self.net.feature_info.channels()
        self.strides: list[int] = self.net.feature_info.reduction()
        if pretrained != "none":
            load_weights(self.net, _weights_of(name) if pretrained == "imagenet" else _read(Path(pretrained)), name)
        if not stem_pool:
            if not isinstance(getattr(self.net, "maxpool", None), nn.MaxPool2d):
                raise WrongUse(f"encoder {name!r} has no max-pool after its stem; leave stem_pool true")
            self.net.maxpool = nn.Identity()
            self.strides = [s if s == 2 else s // 2 for s in self.strides]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Feature maps at the taps."""
        features: list[Tensor] = self.net(image)
        return features


def load_weights(net: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Load by matching name and shape; what is missing from the file is an error, what is left over is reported.

    timm loads a file without one matching key silently when cut to features, so nothing is left to it.

    Raises:
        EosinError: if any of the network's own entries is not in the file.
    """
    own = net.state_dict()
    plain = {key.removeprefix("module."): value for key, value in weights.items()}
    matched = {k: v for k, v in plain.items() if k in own and own[k].shape == v.shape}
    missing = [k for k in own if k not in matched and not k.endswith("num_batches_tracked")]
    if missing:
        raise EosinError(
            f"weights of {name}: {len(matched)} of {len(own)} entries match; missing e.g. {missing[0]!r}: "
            "give the weights of this very network"
        )
    net.load_state_dict(matched, strict=False)
    log.info("weights of %s: %d of %d entries matched, %d left over", name, len(matched), len(own), len(plain) - len(matched))


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise EosinError(f"{path}: no such weight file; give a path, 'imagenet' or 'none'")
    log.info("%s: sha256 %s", path, file_digest(path))
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    stored = torch.load(path, map_location="cpu", weights_only=True)
    return stored.get("state_dict", stored)  # type: ignore[no-any-return]


def _weights_of(name: str) -> Mapping[str, Tensor]:
    try:
        net = timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:
        where = "offline (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else "not reachable and not cached"
        raise EosinError(
            f"ImageNet weights of {name} are {where}: set pretrained to a local file, or to 'none' to train from "
            f"scratch ({type(error).__name__})"
        ) from error
    return net.state_dict()  # type: ignore[no-any-return]
