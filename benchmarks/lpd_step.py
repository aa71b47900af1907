"""Is it cheap to compare all prototypes of all classes in all images at once? Exits with 1 where a bound is broken.

Usage: ``python benchmarks/lpd_step.py [--threads 1] [--quick] [--write PAGE]``.

The diversity and the contrast of a step of LPD, forward and backward, from the features of the last stage and the
prototypes in its space: as it is trained here, against the same losses as their formulas have them, in loops over
images, classes, prototypes and pairs of these. Both look at all pairs of image and prototype, with the network's own
features as the guide; sizes are those of the paper's data.

A ratio is the median over rounds in which rivals take turns, in float32. Loss and gradients are compared with those of
the loops in double precision, since in float32 the loops are further from these than what they are the rival of.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import combinations

import torch
from _page import Ratio, begin, commit, finish, processor
from torch import Tensor
from torch.nn import functional as F

from eosin.parts.losses.diversity import Diversity
from eosin.parts.losses.prototype_contrast import PrototypeContrast
from eosin.parts.prototypes.refiner import MaskRefiner
from eosin.parts.prototypes.seen import Fusion, Seen, Stage

CLASSES, COUNT, WIDTH, SIDE, BATCH = 4, 10, 512, 14, 16
SCALE, TEMPERATURE, CONTRAST, DIVERSITY = 1 / 0.07, 0.07, 0.1, 0.5
FASTER, APART = 10.0, 1e-5  # the bounds
BLOCK = "lpd"
Step = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

refiner = MaskRefiner(partial(PrototypeContrast, TEMPERATURE), pairs=0)
diversity = Diversity(TEMPERATURE)


def drawn(count: int, side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features that have a little of prototypes, these, tags of which about half are present, and a mask of them."""
    torch.manual_seed(0)
    prototypes = torch.randn(CLASSES, COUNT, WIDTH)
    tags = (torch.rand(count, CLASSES) < 0.5).float()
    tags[torch.arange(count), torch.randint(0, CLASSES, (count,))] = 1
    mask = torch.stack([torch.multinomial(row, side * side, replacement=True).view(side, side) for row in tags])
    near = prototypes[mask, torch.randint(0, COUNT, mask.shape)].permute(0, 3, 1, 2)
    return 0.1 * near + torch.randn(count, WIDTH, side, side), prototypes, tags, mask


def ours(features: Tensor, prototypes: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
    """All images, classes and pairs at once, as it is trained."""
    cosines = torch.einsum("bdhw,ckd->bckhw", F.normalize(features, dim=1), F.normalize(prototypes, dim=2))
    stage = Stage(0, features, SCALE * cosines, cosines, prototypes)
    image = features.new_zeros(len(features), 3, 1, 1)  # its guide looks at features
    contrast: Tensor = refiner(Seen(image, tags, prototypes, [stage], Fusion((1.0,))))
    return CONTRAST * contrast + DIVERSITY * diversity(cosines, mask)


def looped(features: Tensor, prototypes: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
    """The formulas one after another, for each image, class, prototype and pair."""
    contrasts, likenesses = [], []
    for image, known, labels in zip(features, tags, mask, strict=True):
        for c in range(CLASSES):
            if known[c] != 1:
                continue
            cosines = [F.cosine_similarity(image, own[:, None, None], dim=0) for own in prototypes[c]]
            scores = torch.stack([SCALE * one.mean() for one in cosines]).detach()
            others = torch.cat([prototypes[d] for d in range(CLASSES) if d != c])
            for u in range(COUNT):
                if scores[u] > scores.mean():
                    contrasts.append(contrast_of(image.detach(), SCALE * cosines[u], prototypes[c, u], others))
            at = labels == c
            if at.sum() > 1:
                shares = [(one[at] / TEMPERATURE).log_softmax(0) for one in cosines]
                likenesses.append(torch.stack([alike(a, b) for a, b in combinations(shares, 2)]).mean())
    return CONTRAST * torch.stack(contrasts).mean() + DIVERSITY * torch.stack(likenesses).mean()


def contrast_of(features: Tensor, found: Tensor, own: Tensor, others: Tensor) -> Tensor:
    """Of one image and one prototype."""
    scaled = (found - found.min()) / (found.max() - found.min())
    front = (scaled >= scaled.max() / 2).to(scaled)
    total = features.new_zeros(())
    for weights, behind in ((front * scaled, False), ((1 - front) * (1 - scaled), True)):
        vector = (features * weights).sum((1, 2)) / weights.sum()
        plus = F.cosine_similarity(vector, own, dim=0) / TEMPERATURE
        minus = torch.stack([F.cosine_similarity(vector, other, dim=0) for other in others]) / TEMPERATURE
        everything = torch.cat([plus[None], minus]).logsumexp(0)
        total = total + everything - (minus.logsumexp(0) if behind else plus)
    return total


def alike(a: Tensor, b: Tensor) -> Tensor:
    """``exp(-J)`` of two logarithms of shares."""
    there, back = (a.exp() * (a - b)).sum(), (b.exp() * (b - a)).sum()
    return torch.exp(-there - back)


STEPS: dict[str, Step] = {"ours": ours, "looped": looped}


def stepped(step: Step, inputs: tuple[Tensor, ...]) -> tuple[list[Tensor], float]:
    """The loss and its gradients for features and prototypes, and the seconds that they take."""
    features, prototypes = (x.clone().requires_grad_() for x in inputs[:2])
    begin = time.perf_counter()
    total = step(features, prototypes, *inputs[2:])
    total.backward()
    seconds = time.perf_counter() - begin
    assert features.grad is not None and prototypes.grad is not None
    return [total.detach(), features.grad, prototypes.grad], seconds


def measured(rounds: int, count: int, side: int) -> list[Ratio]:
    """What each takes, and how far losses and gradients are apart."""
    inputs = drawn(count, side)
    seconds: dict[str, list[float]] = {name: [] for name in STEPS}
    for number in range(rounds + 1):
        for name, step in STEPS.items():
            spent = stepped(step, inputs)[1]
            if number:  # the first prepares kernels
                seconds[name].append(spent)
    print(*(f"{name} {1e3 * statistics.median(each):.1f} ms a step" for name, each in seconds.items()), flush=True)
    gains = [b / a for a, b in zip(seconds["ours"], seconds["looped"], strict=True)]
    what = f"batch {count}, {CLASSES} classes, {COUNT} prototypes of {WIDTH}, {side} x {side} cells"
    found = [Ratio(f"steps/s, ours : loops over images, classes and pairs, {what}", gains, "≥", FASTER)]
    result, exact = (
        stepped(ours, inputs)[0],
        stepped(looped, tuple(x.double() if x.is_floating_point() else x for x in inputs))[0],
    )
    for told, a, b in zip(("loss", "gradient of features", "gradient of prototypes"), result, exact, strict=True):
        apart = ((a.double() - b).norm() / b.norm()).item()
        found.append(Ratio(f"difference of the {told}, relative ({apart:.1e})", [apart], "≤", APART))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    arguments = begin(parser)
    rounds, *sizes = (1, 3, 4) if arguments.quick else (7, BATCH, SIDE)
    ratios = measured(rounds, *sizes)
    where = f"Device cpu: {processor()}; float32, torch threads {arguments.threads}, torch {torch.__version__}"
    return finish(ratios, f"{where}, commit {commit()}.", arguments.write, BLOCK)


if __name__ == "__main__":
    sys.exit(main())
