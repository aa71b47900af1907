"""What is trained: a module that names its loss terms, and a wrapper for networks that must never change."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eosin.core.values import Batch, Clock


class Learner(nn.Module):
    """A trainable model. It owns its normalisation: it takes RGB in 0..1 at training, export and on slides alike.

    ``forward`` *is* ``losses``; the loop calls the module, never the method, so that gradients are averaged between
    processes. ``revision`` is raised by hand when the meaning of the code changes, which makes old steps stale.
    ``given`` names what of the state files or earlier steps gave it: weights of another run do not replace that.
    """

    revision: ClassVar[int] = 1
    given: tuple[str, ...] = ()

    @abstractmethod
    def losses(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Named, weighted scalar terms in float32; the loop adds them up.

        Which terms there are may depend on the clock, not on the batch: processes that train together add them up by
        name, each of its own images. A term that a batch has nothing for is 0.
        """

    def forward(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """The losses (see the class docstring)."""
        return self.losses(batch, clock)

    @abstractmethod
    def predict(self, image: Tensor) -> Tensor:
        """Class probabilities.

        Args:
            image: float32 ``[B, 3, H, W]`` in 0..1.

        Returns:
            float32 ``[B, K, H, W]``, non-negative, summing to 1 over classes. A classifier answers with its class
            maps, so that one evaluator judges every stage.
        """

    def tag_scores(self, image: Tensor) -> Tensor:
        """Scores in 0..1 that each class is present, ``[B, K]``: here the mean of its highest tenth of pixels."""
        return highest_mean(self.predict(image), 0.1)

    def views(self, image: Tensor) -> dict[str, Tensor]:
        """What a report shows of the inside, by name and in the order in which it is read; nothing by default.

        Args:
            image: float32 ``[B, 3, H, W]`` in 0..1.

        Returns:
            Maps of any size. Float ``[B, K, h, w]``, one for each class, or ``[B, 1, h, w]``: where a view has values
            below 0 it is drawn around 0, blue below and red above; else in shades of the classes' colours. Integer
            ``[B, h, w]``: class indices, 255 for none, drawn as masks are.
        """
        return {}

    def taught_by(self, teacher: Learner) -> None:
        """Take in a trained learner that this one asks while it is trained, and that never learns.

        Nothing of it may be left in the state dict, nor be needed to predict: it is not there then.

        Raises:
            TypeError: from a learner that asks nobody.
        """
        raise TypeError(f"{type(self).__name__} learns of no teacher")

    def noticed(self) -> dict[str, tuple[Tensor, Tensor]]:
        """What the last call of ``losses`` saw beside its terms, by name: a sum, and over how many it was taken.

        The names never change. The journal has the mean of each over an epoch; nothing is learnt of it.
        """
        return {}

    def warning(self, means: Mapping[str, float]) -> str | None:
        """A line on what was noticed in an epoch, by its means, if that is a reason to worry."""
        return None

    def begins(self) -> dict[str, int]:
        """The epoch, counted from 0, from which on a part of the training is at work, by the part's name.

        A fit that ends before one of them says so.
        """
        return {}

    def rate(self, name: str) -> float:
        """By what the learning rate of a parameter is multiplied, by its name; e.g. 10 for a new head (ARML, A4)."""
        return 1.0

    def groups(self, lr: float) -> list[dict[str, Any]]:
        """Optimizer groups by ``rate``; weights decay, biases and norms do not."""
        found: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                found.setdefault((self.rate(name), parameter.ndim <= 1), []).append(parameter)
        return [
            {"params": found[rate, plain], "lr": lr * rate, **({"weight_decay": 0.0} if plain else {})}
            for rate, plain in sorted(found)
        ]

    def after_step(self, clock: Clock) -> None:
        """Called after every optimizer step; nothing by default."""
        return None


class Normalise(nn.Module):
    """Shift and scale RGB in 0..1 per channel; part of the learner, so that training, export and slides agree.

    Args:
        mean: per channel; the default is ImageNet's.
        std: per channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: tuple[float, ...] = (0.485, 0.456, 0.406), std: tuple[float, ...] = (0.229, 0.224, 0.225)
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """``[B, 3, H, W]`` in 0..1 to the same shape, about zero mean and unit spread."""
        return (image - self.mean) / self.std


def resized(image: Tensor, scale: float) -> Tensor:
    """Resize images ``[B, 3, H, W]`` bilinearly by a factor, smoothed where they shrink; a side keeps 1 pixel."""
    if scale == 1.0:
        return image
    sides = [max(1, round(side * scale)) for side in image.shape[-2:]]
    return F.interpolate(image, size=sides, mode="bilinear", align_corners=False, antialias=scale < 1)


def resized_masks(masks: Tensor, like: Tensor) -> Tensor:
    """Masks ``[B, H, W]`` at the height and width of maps ``[..., h, w]``: the value of the nearest pixel."""
    if masks.shape[-2:] == like.shape[-2:]:
        return masks
    return F.interpolate(masks[:, None].float(), size=like.shape[-2:], mode="nearest-exact")[:, 0].long()


def highest_mean(maps: Tensor, share: float) -> Tensor:
    """Mean over the highest ``share`` of the pixels of each map: ``[B, K, H, W]`` to ``[B, K]``; at least one pixel."""
    flat = maps.flatten(2)
    return flat.topk(max(1, round(share * flat.shape[2])), dim=2).values.mean(2)


class Frozen(nn.Module):
    """A network that teaches and never learns: in eval mode and without gradients for ever.

    It stays outside ``parameters()``, ``state_dict()`` and ``train()`` of whatever holds it, and follows ``.to()``.
    """

    net: nn.Module

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "net", net.eval().requires_grad_(False))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.net._apply(fn)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        """Call the network without recording gradients."""
        return self.net(*inputs)
