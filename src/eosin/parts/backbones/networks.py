"""Networks by name, cut at their taps, and what each family needs for output strides, odd sizes and other files."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import FeatureListNet, is_model_in_modules
from torch import Tensor, nn
from torch.nn import functional as F

from eosin.core.errors import EosinError, WrongUse, nearest
from eosin.parts.backbones.resnet38 import ResNet38
from eosin.parts.backbones.vgg import VggBlocks, named_as_blocks

log = logging.getLogger(__name__)

MITS = tuple(f"mit_b{size}" for size in range(6))
BORROWED = {"vgg16_blocks": "vgg16"}  # networks of ours, and whose weights of timm they begin with
Named = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Cut:
    """A network that ends at its last tap.

    Attributes:
        net: takes images and answers with a list of feature maps, one a tap.
        body: the part of it whose entries are named as in files of its weights.
        whole: makes the network before it was cut.
        channels: per tap.
        strides: per tap.
        multiple: what sides of an image must be multiples of.
        least: how long sides of an image must be.
        last: whether channels come last in its feature maps.
        renamed: gives entries of other releases the names and shapes of the body's.
        attend: puts a module behind a level that is a tap, so that it and all later ones see what that module makes of
            it; None where a network has no such place. It is for after the weights are loaded.
    """

    net: nn.Module
    body: nn.Module
    whole: Callable[[], nn.Module]
    channels: list[int]
    strides: list[int]
    multiple: int = 1
    least: int = 1
    last: bool = False
    renamed: Callable[[Named], Named] = dict
    attend: Callable[[int, nn.Module], None] | None = None


def cut(name: str, taps: tuple[int, ...], output_stride: int) -> Cut:
    """A network by name, with taps that are at most ``output_stride`` coarse.

    Raises:
        WrongUse: for an unknown network, or a tap or output stride that it does not have.
    """
    if not taps or list(taps) != sorted({*taps}) or taps[0] < 0:
        raise WrongUse(f"encoder {name!r}: taps {taps} are not levels in rising order, e.g. (2, 3, 4)")
    if name == "resnet38":
        net = ResNet38(taps)
        return Cut(net, net, partial(_named, ResNet38), net.channels, net.strides, attend=net.attend)
    if name == "vgg16_blocks":
        trunk = VggBlocks(taps)
        whole = partial(_named, partial(timm.create_model, BORROWED[name]))
        renamed = partial(named_as_blocks, len(trunk.blocks))
        return Cut(*(trunk, trunk, whole, trunk.channels, trunk.strides), renamed=renamed, attend=trunk.attend)
    if name in MITS:
        return _mit(name, taps, output_stride)
    if not in_timm(name):
        raise WrongUse(f"encoder {name!r} is not known to timm{nearest(name, [*timm.list_models(), *MITS, *BORROWED])}")
    if is_model_in_modules(name, ("vgg",)):
        return _vgg(name, taps, output_stride)
    if is_model_in_modules(name, ("vision_transformer", "deit")):
        found = _vit(name, taps)
    elif is_model_in_modules(name, ("swin_transformer",)):
        found = _swin(name, taps)
    else:
        return _timm(name, taps, {} if output_stride == 32 else {"output_stride": output_stride})
    if max(found.strides) > output_stride:
        raise WrongUse(
            f"encoder {name!r} takes no output_stride {output_stride}: its tap {taps[-1]} has stride "
            f"{found.strides[-1]}; leave it at 32, or tap earlier"
        )
    return found


def in_timm(name: str) -> bool:
    """Whether timm knows the network, and its weights where the name has a tag, as ``resnet18.a1_in1k``."""
    _, _, tag = name.partition(".")
    return timm.is_model(name) and (not tag or timm.is_model_pretrained(name))


def undilated(name: str, taps: tuple[int, ...], output_stride: int) -> Cut:
    """A ResNet whose late stages neither stride nor dilate; ``cut`` gives one that dilates.

    Raises:
        WrongUse: for any other network.
    """
    refused = f"encoder {name!r} is no plain ResNet, so its strides cannot be taken away; let it dilate"
    if not is_model_in_modules(name, ("resnet",)):
        raise WrongUse(refused)
    found = cut(name, taps, 32)
    late = [f"layer{stage}" for stage in (2, 3, 4) if 2 ** (stage + 1) > output_stride]
    layers = [getattr(found.body, layer) for layer in late if hasattr(found.body, layer)]
    modules = [module for layer in layers for module in layer.modules() if not list(module.children())]
    if not all(isinstance(module, nn.Conv2d) for module in modules if getattr(module, "stride", 1) in (2, (2, 2))):
        raise WrongUse(refused)  # one that pools
    for module in modules:
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
    return replace(found, strides=[min(stride, output_stride) for stride in found.strides])


def imagenet_weights(name: str) -> Named:
    """The entries of the whole network as timm (MiT: SMP) delivers it.

    Raises:
        EosinError: if they are not to be had.
    """
    if name == "resnet38":
        raise EosinError("ImageNet weights of resnet38 are not fetched by name: eosin list weights says where they are")
    try:
        if name in MITS:
            return smp.encoders.get_encoder(name, weights="imagenet").state_dict()  # type: ignore[no-any-return]
        return timm.create_model(BORROWED.get(name, name), pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError) as error:
        where = (
            "offline (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else "not reachable and not cached"
        )
        raise EosinError(
            f"ImageNet weights of {name} are {where}: set pretrained to a local file, or to 'none' to train from "
            f"scratch ({type(error).__name__})"
        ) from error


def _timm(name: str, taps: tuple[int, ...], settings: Mapping[str, Any]) -> Cut:
    """Whatever timm cuts by itself."""
    try:
        net: Any = timm.create_model(name, pretrained=False, features_only=True, out_indices=taps, **settings)
    except IndexError:
        raise WrongUse(f"encoder {name!r} has no feature level {max(taps)}; a ResNet has 0 to 4") from None
    except (TypeError, AssertionError) as error:  # timm has both ways to refuse a stride
        if str(error).startswith("feature index"):
            raise WrongUse(f"encoder {name!r} has no feature level {max(taps)}: {error}") from None
        if "output_stride" not in settings:
            raise
        raise WrongUse(f"encoder {name!r} takes no output_stride {settings['output_stride']}; leave it at 32") from None
    info, whole = net.feature_info, partial(_named, partial(timm.create_model, name))
    last = getattr(net, "output_fmt", "NCHW") == "NHWC"
    attend = partial(_attend, net, taps) if isinstance(net, FeatureListNet) and not last else None
    return Cut(net, getattr(net, "model", net), whole, info.channels(), info.reduction(), last=last, attend=attend)


def _attend(net: FeatureListNet, taps: tuple[int, ...], level: int, module: nn.Module) -> None:
    """Insert a module behind a level of a network that timm has as a chain of its children."""
    children, shown = dict(net.items()), net.return_layers
    stage = [name for name in children if name in shown][taps.index(level)]
    net.clear()
    for name, child in children.items():
        net[name] = child
        if name == stage:
            net[f"attention{level}"] = module
    shown[f"attention{level}"] = shown.pop(stage)


def _vgg(name: str, taps: tuple[int, ...], output_stride: int) -> Cut:
    """VGG: pools that would stride too far move by one pixel instead, and what is behind them is dilated."""
    found = _timm(name, taps, {})
    stride = dilation = 1
    for child, module in list(found.net.named_children()):
        if isinstance(module, nn.MaxPool2d) and stride < output_stride:
            stride *= 2
        elif isinstance(module, nn.MaxPool2d):
            found.net.add_module(child, _Pool(dilation))
            dilation *= 2
        elif isinstance(module, nn.Conv2d):
            module.dilation = module.padding = (dilation, dilation)
    return replace(found, strides=[min(s, output_stride) for s in found.strides])


def _named(build: Callable[[], nn.Module]) -> Any:
    """A network of which only names and shapes are wanted."""
    with torch.device("meta"):
        return build()


class _Pool(nn.Module):
    """The 2x2 max-pool of a VGG at stride 1: where the strided one has a pixel, this one has the same value."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        """Pool non-negative maps (a VGG pools after ReLU, so zeros beyond the border never win)."""
        return F.max_pool2d(F.pad(x, (0, self.dilation, 0, self.dilation)), 2, stride=1, dilation=self.dilation)


def _vit(name: str, taps: tuple[int, ...]) -> Cut:
    """ViT and DeiT at any size: positions are resized to the image's grid; level ``i`` is the output of block ``i``."""
    found = _timm(name, taps, {"dynamic_img_size": True})
    model: Any = found.body
    return replace(found, multiple=model.patch_embed.patch_size[0], renamed=partial(_regridded, model))


def whole_vit(name: str, side: int, depth: int = 0, drop_path: float = 0.0) -> Cut:
    """A ViT or DeiT of timm up to its last norm, whose parts (patches, positions, blocks) are for others to call.

    Args:
        name: timm's.
        side: of the grid of patches that positions are kept for.
        depth: how many of its blocks; 0 takes all.
        drop_path: the rate at which the last block is skipped in training, that of earlier ones rising to it.

    Raises:
        WrongUse: for a network that is no ViT, has other tokens than one for the class, or no positions.
    """
    if not in_timm(name):
        raise WrongUse(f"encoder {name!r} is not known to timm{nearest(name, timm.list_models('*vit*'))}")
    if not is_model_in_modules(name, ("vision_transformer", "deit")):
        raise WrongUse(f"encoder {name!r} is no ViT; take one, e.g. vit_small_patch16_384")
    patch = _named(partial(timm.create_model, name)).patch_embed.patch_size[0]
    settings: dict[str, Any] = {"depth": depth} if depth else {}
    model: Any = timm.create_model(
        name, num_classes=0, img_size=side * patch, dynamic_img_size=True, drop_path_rate=drop_path, **settings
    )
    if model.num_prefix_tokens != 1 or model.cls_token is None or model.pos_embed is None:
        raise WrongUse(f"encoder {name!r} has not one class token and learnt positions; take vit_small_patch16_384")
    whole = partial(_named, partial(timm.create_model, name))
    return Cut(model, model, whole, [model.embed_dim], [patch], patch, renamed=partial(_regridded, model))


def _regridded(model: Any, weights: Named) -> Named:
    """Positions of another grid are resized bicubically, as timm does for its own files."""
    grid = model.patch_embed.grid_size
    positions, own = weights.get("pos_embed"), model.pos_embed
    if positions is None or own is None or positions.ndim != 3 or positions.shape == own.shape:
        return weights
    extra = own.shape[1] - math.prod(grid)
    side = math.isqrt(max(0, positions.shape[1] - extra))
    if side < 1 or side**2 != positions.shape[1] - extra:
        return weights
    log.info("positions of a grid of %d x %d are resized to %d x %d", side, side, *grid)
    return {**weights, "pos_embed": resample_abs_pos_embed(positions, list(grid), num_prefix_tokens=extra)}


def _swin(name: str, taps: tuple[int, ...]) -> Cut:
    """Swin at any size: windows are padded by timm, patches are not."""
    found = _timm(name, taps, {"strict_img_size": False})
    body: Any = found.body
    patch = body.patch_embed.patch_size[0]

    def renamed(weights: Named) -> Named:
        """The authors' files merge patches at the end of a stage, timm at the beginning of the next."""
        if "layers.0.downsample.reduction.weight" not in weights:
            return weights
        shift = re.compile(r"layers\.(\d)\.downsample")
        return {shift.sub(lambda m: f"layers.{int(m[1]) + 1}.downsample", key): v for key, v in weights.items()}

    return replace(found, multiple=patch, renamed=renamed)


def _mit(name: str, taps: tuple[int, ...], output_stride: int) -> Cut:
    net, whole = MiT(name, taps, output_stride), partial(smp.encoders.get_encoder, name, weights=None)
    # The first stage joins 8 x 8 cells of stride 4 into one key; an image must hold one.
    return Cut(net, net.body, whole, net.channels, net.strides, least=32)


class MiT(nn.Module):
    """Mix Transformer of SegFormer (Xie et al. 2021) as SMP has it; levels 0 to 3 have strides 4, 8, 16 and 32.

    Where the output stride is smaller, later patches are embedded at stride 1, as in TPRO.
    """

    def __init__(self, name: str, taps: tuple[int, ...], output_stride: int) -> None:
        super().__init__()
        if taps[-1] > 3:
            raise WrongUse(f"encoder {name!r} has no feature level {taps[-1]}; it has 0 to 3")
        depth = taps[-1] + 2  # SMP counts the image and an empty map before
        self.body: Any = smp.encoders.get_encoder(name, depth=depth, weights=None)
        self.taps = taps
        self.channels = [self.body.out_channels[tap + 2] for tap in taps]
        self.strides = [min(4 * 2**tap, output_stride) for tap in taps]
        for stage in range(1, 5):
            if stage >= depth:
                for part in ("patch_embed", "block", "norm"):
                    delattr(self.body, f"{part}{stage}")
            elif 2 ** (stage + 1) > output_stride:
                getattr(self.body, f"patch_embed{stage}").proj.stride = (1, 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Feature maps at the taps."""
        features = self.body(image)
        return [features[tap + 2] for tap in self.taps]
