"""Pretrained weights that are known: where they come from, under which terms, and how to have them offline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import timm

from eosin.parts.backbones.networks import BORROWED, MITS, in_timm

NOT_KNOWN = "not known"
NVIDIA = "NVIDIA Source Code License for SegFormer: non-commercial, for research or evaluation only"
_LUNIT = "Lunit Public License: non-commercial, for research only"
_ADELAIDE = "Apache-2.0 (of the authors' repository; the file says nothing)"
_PATH = "anywhere; pretrained = its path"
_PATH_OF_FETCHED = "anywhere; pretrained = path of model.safetensors"


@dataclass(frozen=True, slots=True)
class Known:
    """Pretrained weights.

    Attributes:
        name: the file; for weights that are fetched by ``pretrained: imagenet``, the encoder.
        about: which encoder they fit, and what they were trained on.
        source: where they come from.
        licence: their terms.
        sha256: how the file's digest begins, as far as it is known for certain.
        offline: where to put the file on a machine without a network.
    """

    name: str
    about: str
    source: str
    licence: str
    sha256: str = NOT_KNOWN
    offline: str = _PATH


# Networks of the papers that are reproduced here; ``imagenet`` works for any other network of timm as well.
_TIMM = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnest101e", "resnest200e", "vgg16", "vgg16_bn"),
    *("vit_small_patch16_224", "vit_small_patch16_384", "deit_small_patch16_224", "swin_tiny_patch4_window7_224"),
)
_RESNEST = "https://github.com/zhanghang1989/ResNeSt/releases/download/weights_step1"
_PATHOLOGY = "https://github.com/lunit-io/benchmark-ssl-pathology/releases/download/pretrained-weights"

# The digests of torch's files begin with what stands in their names (the rule of torch.hub).
_FILES = (
    Known(
        "ilsvrc-cls_rna-a1_cls1000_ep-0001.params",
        "for resnet38: ImageNet-1k; MD5 ff21f45d6bf03284100dcbec571edfad",
        "https://github.com/itijyou/ademxapp (model A1)",
        _ADELAIDE,
    ),
    Known(
        "res38d.pth",
        "for resnet38: the same weights, converted to torch",
        "https://github.com/xmed-lab/OEEM (pretrained models)",
        _ADELAIDE,
    ),
    Known(
        "resnest101-22405ba7.pth",
        "for resnest101e: ImageNet-1k, as in ARML",
        f"{_RESNEST}/resnest101-22405ba7.pth",
        "Apache-2.0",
        "22405ba7...",
    ),
    Known(
        "resnest200-75117900.pth",
        "for resnest200e: ImageNet-1k, as in Gland",
        f"{_RESNEST}/resnest200-75117900.pth",
        "Apache-2.0",
        "75117900...",
    ),
    *(
        Known(file, f"for {encoder}: pathology, {how} on TCGA", f"{_PATHOLOGY}/{file}", _LUNIT)
        for file, encoder, how in (
            ("bt_rn50_ep200.torch", "resnet50", "Barlow Twins"),
            ("mocov2_rn50_ep200.torch", "resnet50", "MoCo v2"),
            ("swav_rn50_ep200.torch", "resnet50", "SwAV"),
            ("dino_vit_small_patch16_ep200.torch", "vit_small_patch16_224", "DINO"),
            ("dino_vit_small_patch8_ep200.torch", "vit_small_patch8_224", "DINO"),
        )
    ),
)


def known_weights() -> list[Known]:
    """What is known, fetched ones first."""
    return [*map(_of_timm, _TIMM), *map(_of_smp, MITS), *_FILES]


def promised(file: str) -> str:
    """How the SHA-256 of a file of this name begins; empty where that is not known."""
    digests = {known.name: known.sha256.removesuffix("...") for known in _FILES if known.sha256 != NOT_KNOWN}
    return digests.get(file, "")


def terms(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The terms of the weights that a method's options begin with, one line for each option of that kind.

    ``pretrained`` goes with ``encoder``, ``seg_pretrained`` with ``seg_encoder`` and so on. Encoders of a ``seg_``
    option are SMP's, whose ``tu-`` names are timm's again.
    """
    lines = []
    for key, value in options.items():
        if not key.endswith("pretrained") or value == "none":
            continue
        if value == "imagenet":
            encoder = str(options.get(f"{key.removesuffix('pretrained')}encoder", ""))
            which = f" ({encoder})" if encoder else ""
            lines.append(f"{key} = imagenet{which}: {_licence(encoder, of_smp=key.startswith('seg_'))}")
        else:
            file = Path(str(value)).name
            licence = next((known.licence for known in _FILES if known.name == file), None)
            lines.append(f"{key} = {file}: {licence or 'terms not known to eosin; ask whom it is from'}")
    return tuple(lines)


def _licence(encoder: str, of_smp: bool) -> str:
    if encoder in MITS:
        return NVIDIA
    if of_smp and not encoder.startswith("tu-"):
        repository = _repository(encoder)
        return f"the terms of https://huggingface.co/{repository}" if repository else NOT_KNOWN
    name = BORROWED.get(encoder, encoder.removeprefix("tu-"))
    config = timm.get_pretrained_cfg(name) if in_timm(name) else None
    return getattr(config, "license", None) or NOT_KNOWN


def _of_timm(encoder: str) -> Known:
    config: Any = timm.get_pretrained_cfg(encoder)
    return _fetched(encoder, config.tag, config.hf_hub_id, config.license)


def _of_smp(encoder: str) -> Known:
    return _fetched(encoder, "in1k", _repository(encoder), NVIDIA)


def _fetched(encoder: str, tag: str, repository: str, licence: str) -> Known:
    about = f"ImageNet ({tag}), by pretrained = imagenet"
    return Known(encoder, about, f"https://huggingface.co/{repository}", licence, offline=_PATH_OF_FETCHED)


def _repository(encoder: str) -> str:
    """Where SMP has the ImageNet weights of an encoder; empty if it has none."""
    settings = smp.encoders.encoders.get(encoder, {}).get("pretrained_settings", {}).get("imagenet", {})
    return str(settings.get("repo_id", ""))
