"""Class maps: where they come from (a classifier's head, its gradients) and how they are averaged and scaled."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from eosin.core.learner import resized

Predict = Callable[[Tensor], Tensor]
Weighing = Literal["mean", "rms", "plus-plus"]
Scaling = Literal["class", "joint"]
PIXELS = 16 * 224 * 224  # of images whose gradients are taken at a time
EPS = 1e-5  # beside a maximum or a root mean square that may be 0


class Averaged:
    """The mean of the class maps of an image seen at several scales and in several positions.

    Args:
        scales: factors of the image size, at least one.
        views: 1: as it is; 2: also mirrored left-right; 4: also up-down and both ways; 8: each of them also turned by
            90 degrees (tissue has no upright).
    """

    def __init__(self, scales: Sequence[float] = (1.0,), views: Literal[1, 2, 4, 8] = 1) -> None:
        self.scales = tuple(scales)
        flips: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))[:views]
        self.views = [(flip, turn) for turn in ((0, 1) if views == 8 else (0,)) for flip in flips]

    def __call__(self, predict: Predict, image: Tensor) -> Tensor:
        """Maps ``[B, K, H, W]`` of images ``[B, 3, H, W]``; ``predict`` makes ``[B, K, h, w]`` of ``[B, 3, h, w]``."""
        return reduce(torch.add, self._seen(predict, image)) / (len(self.scales) * len(self.views))

    def _seen(self, predict: Predict, image: Tensor) -> Iterator[Tensor]:
        """The maps ``[B, K, H, W]`` of each scale and view, back in the image's position and size."""
        for scale in self.scales:
            scaled = resized(image, scale)
            for flip, turn in self.views:
                yield _put_back(predict, scaled, flip, turn, image)


class Transformed:
    """The mean of the class maps of an image seen in random sizes and positions (MCA of HAMIL, Zhong et al. 2023).

    Each time the image is resized, mirrored left-right and up-down or not, and turned by 0 to 3 quarters, and its maps
    are put back. The draws are made once, so that every image, and the same one again, is seen in the same ways.

    Args:
        count: how many times.
        spread: factors of the image size are drawn from ``1 - spread`` to ``1 + spread``.
        seed: of the draws.
    """

    def __init__(self, count: int = 20, spread: float = 0.25, seed: int = 0) -> None:
        chance = random.Random(seed)
        self.poses = [
            (
                chance.uniform(1 - spread, 1 + spread),
                tuple(axis for axis in (-1, -2) if chance.random() < 0.5),
                chance.randrange(4),
            )
            for _ in range(count)
        ]

    def __call__(self, predict: Predict, image: Tensor) -> Tensor:
        """Maps ``[B, K, H, W]`` of images ``[B, 3, H, W]``; ``predict`` makes ``[B, K, h, w]`` of ``[B, 3, h, w]``."""
        seen = (_put_back(predict, resized(image, scale), flip, turn, image) for scale, flip, turn in self.poses)
        return reduce(torch.add, seen) / len(self.poses)


def _put_back(predict: Predict, scaled: Tensor, flip: tuple[int, ...], turn: int, image: Tensor) -> Tensor:
    """The maps of a resized image that is mirrored and turned, in the position and size of the image itself."""
    seen = torch.rot90(torch.flip(scaled, flip), turn, (-2, -1))
    maps = torch.flip(torch.rot90(predict(seen), -turn, (-2, -1)), flip)
    return F.interpolate(maps.float(), size=image.shape[-2:], mode="bilinear", align_corners=False)


class Scaled:
    """Maps of another maker, scaled for each image to 0..1; what is negative counts as 0 by class.

    Args:
        maker: makes the maker of maps, such as :class:`Averaged`.
        by: ``class``: each map by its own maximum, ``relu(M_c) / (max relu(M_c) + 1e-5)``; ``joint``: all maps
            together to their common minimum and maximum, which keeps the order of classes at every pixel.
    """

    def __init__(self, maker: Callable[[], Callable[[Predict, Tensor], Tensor]], by: Scaling) -> None:
        self.maker = maker()
        self.by = by

    def __call__(self, predict: Predict, image: Tensor) -> Tensor:
        """Maps ``[B, K, H, W]`` in 0..1."""
        maps = self.maker(predict, image)
        if self.by == "class":
            maps = maps.relu()
            return maps / (maps.amax((2, 3), keepdim=True) + EPS)
        low, high = maps.amin((1, 2, 3), keepdim=True), maps.amax((1, 2, 3), keepdim=True)
        return (maps - low) / torch.where(high > low, high - low, 1.0)


class Mapped(Protocol):
    """A classifier with signed class maps."""

    def maps(self, image: Tensor) -> Tensor:
        """Class maps ``[B, K, h, w]``."""
        ...


class LinearCam:
    """The class maps that a classifier pools, without what speaks against a class: ``relu(sum_d W_cd F_d)``."""

    def __call__(self, learner: Mapped, image: Tensor) -> Tensor:
        """Maps ``[B, K, h, w]`` of images ``[B, 3, H, W]``."""
        return learner.maps(image).float().relu()


class Tapped(Protocol):
    """A classifier that shows the features on its way from an image to the logits of its tags."""

    def taps(self, image: Tensor) -> list[Tensor]:
        """Feature maps ``[B, D, h, w]``, the last one being what ``classify`` takes."""
        ...

    def classify(self, features: Tensor) -> Tensor:
        """Class maps ``[B, K, h, w]`` of the last features."""
        ...

    def logits(self, maps: Tensor) -> Tensor:
        """Tag logits ``[B, K]`` of class maps."""
        ...


class GradCam:
    """Class maps by the gradients of the tag logits: ``relu(sum_d w_cd F_d)`` at any tap of the encoder.

    With ``g = dx_c / dF_d`` of the logit ``x_c``:

    - ``mean``: ``w_cd = mean_ij g`` (Grad-CAM, Selvaraju et al. 2017);
    - ``rms``: the same of ``g`` over its root mean square, for each image and class (HistoSegNet);
    - ``plus-plus``: ``w_cd = sum_ij a relu(g)`` with ``a = g^2 / (2 g^2 + g^3 sum_ab F_dab)`` and 0/0 = 0
      (Grad-CAM++, Chattopadhay et al. 2018).

    Everything is float32, also under autocast, since third powers of small gradients are taken; and it may be called
    in inference mode, since gradients are recorded here all the same. What they need is held of a few images at a time.

    Args:
        weigh: how gradients become weights of channels.
        tap: the level of the encoder whose features are weighed; None is the last one, which is classified.
        taps: the levels of the encoder in its order, where ``tap`` is one of them.
        signed: keep what speaks against a class, as MLPS and ARML do: no ReLU at the end.
    """

    def __init__(self, weigh: Weighing, tap: int | None = None, taps: Sequence[int] = (), signed: bool = False) -> None:
        self.weigh = weigh
        self.signed = signed
        self.index = -1 if tap is None or tap == taps[-1] else list(taps).index(tap)

    def __call__(self, learner: Tapped, image: Tensor) -> Tensor:
        """Maps ``[B, K, h, w]`` of images ``[B, 3, H, W]``, without a gradient of their own."""
        few = max(1, PIXELS // image[0, 0].numel())
        with torch.inference_mode(False), torch.autocast(image.device.type, enabled=False):
            return torch.cat([self._maps(learner, part) for part in image.clone().split(few)])

    def _maps(self, learner: Tapped, image: Tensor) -> Tensor:
        features, gradients = self._gradients(learner, image)
        with torch.no_grad():
            return torch.stack([self._map(features, gradient) for gradient in gradients], 1)

    def _gradients(self, learner: Tapped, image: Tensor) -> tuple[Tensor, Iterator[Tensor]]:
        """The features ``[B, D, h, w]``, and for each class the gradients of its logits, of the same shape.

        One backward pass serves a class of all images. All classes at once would hold K times as many gradients.
        """
        with torch.set_grad_enabled(self.index != -1):  # of the image, too, since early layers may be held
            taps = [tap.float() for tap in learner.taps(image.requires_grad_(self.index != -1))]
        with torch.enable_grad():
            if self.index == -1:  # nothing before the last features is differentiated, so nothing of it is held
                taps[-1] = taps[-1].requires_grad_()
            sums = learner.logits(learner.classify(taps[-1])).sum(0).unbind()  # each image has a say in its own alone
        features = taps[self.index]
        return features, (torch.autograd.grad(one, features, retain_graph=True)[0] for one in sums)

    def _map(self, features: Tensor, gradient: Tensor) -> Tensor:
        found = torch.einsum("bd,bdhw->bhw", self.weights(features, gradient), features)
        return found if self.signed else found.relu()

    def weights(self, features: Tensor, gradient: Tensor) -> Tensor:
        """Weights of channels ``[B, D]`` from features and the gradients of one class, both ``[B, D, h, w]``."""
        if self.weigh == "mean":
            return gradient.mean((2, 3))
        if self.weigh == "rms":
            size = gradient.square().mean((1, 2, 3), keepdim=True).sqrt()
            return (gradient / (size + EPS)).mean((2, 3))
        below = 2 * gradient.square() + features.sum((2, 3), keepdim=True) * gradient.pow(3)
        share = torch.where(below == 0, 0.0, gradient.square() / torch.where(below == 0, 1.0, below))
        return (share * gradient.relu()).sum((2, 3))
