"""Is it cheap to let three networks teach each other? Exits with 1 where a bound is broken.

Usage: ``python benchmarks/peers.py [--threads 1] [--encoder tu-resnest101e] [--quick] [--write PAGE]``. With the
encoder of the paper, the default, rivals take 12 GB and more.

Stage 2 of ARML as it is trained here, against the same objective as its formulas have it: for each of the three roles
all networks answer anew, nine passes in all, peers are detached, and the relations of images are taken of the
differences of all pairs of them, ``B x B x D`` numbers. The bounds are of that rival; a better one, whose peers record
no gradients, is shown beside it. All have the same weights, float32, and no dropout, so that every pass of a network is
the same; batch and image size are those of the paper.

A ratio is the median over rounds in which rivals take turns; memory is the peak of a process of its own.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import torch
from _page import Ratio, begin, commit, finish, processor
from torch import Tensor, nn
from torch.nn import functional as F

import eosin  # noqa: F401  (before segmentation_models_pytorch, which imports torchvision)
from eosin.core.values import Batch, Clock
from eosin.engine.device import peak_memory_mb
from eosin.parts.losses.srm import SRM
from eosin.parts.losses.swv import SWV
from eosin.parts.peers import Peers
from eosin.parts.segmenters import PSPNet

CLASSES, SIDE, BATCH = 4, 224, 20
OMEGA, VOTED, RELATED, DISTANCE, ANGLE = 2.0, 0.8, 0.2, 30.0, 60.0
FASTER, SMALLER, APART = 2.0, 0.5, 1e-5  # the bounds
BLOCK = "peers"
CLOCK = Clock(0, 0, 1, 1)
Step = Callable[[Peers, Batch], Tensor]


def networks(encoder: str) -> Peers:
    """Three PSPNets on the first three levels of an encoder, with the weights of one seed."""
    torch.manual_seed(0)
    net = partial(PSPNet, CLASSES, encoder)
    relation = partial(SRM, DISTANCE, ANGLE)
    learner = Peers(net, partial(SWV, OMEGA), ("pseudo",), relation, loss_weight=VOTED, relation_weight=RELATED).train()
    for module in learner.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    return learner


def drawn(count: int, side: int) -> Batch:
    """A batch of noise."""
    torch.manual_seed(1)
    mask = torch.randint(0, CLASSES, (count, side, side))
    return Batch(torch.rand(count, 3, side, side), torch.zeros(count, CLASSES), {"pseudo": mask})


def ours(learner: Peers, batch: Batch) -> Tensor:
    """The objective as it is trained."""
    return torch.stack(list(learner(batch, CLOCK).values())).sum()


def printed(learner: Peers, batch: Batch, recording: bool = True) -> Tensor:
    """The objective from its formulas, role by role; the answers of peers are detached, whether recorded or not."""
    image, mask = learner.normalise(batch.image), batch.masks["pseudo"]
    total = torch.zeros(())
    for a, b, c in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
        own = learner.nets[a](image)
        with torch.set_grad_enabled(recording):
            answers = [learner.nets[peer](image) for peer in (b, c)]
        peers = [answer.detach() for answer in answers]
        agree = peers[0].argmax(1) == peers[1].argmax(1)
        weights = torch.where(agree, OMEGA, 1 / OMEGA)
        voted = (weights * F.cross_entropy(own, mask, reduction="none")).mean()
        related = sum(structure(own.flatten(1), peer.flatten(1)) for peer in peers) / len(peers)
        total = total + VOTED * voted + RELATED * related
    return total


def structure(student: Tensor, teacher: Tensor) -> Tensor:
    """Distances and angles by the differences of all pairs of ``[B, D]`` points."""
    with torch.no_grad():
        taught = lengths_and_angles(teacher)
    apart, angles = (F.smooth_l1_loss(s, t) for s, t in zip(lengths_and_angles(student), taught, strict=True))
    return DISTANCE * apart + ANGLE * angles


def lengths_and_angles(points: Tensor) -> tuple[Tensor, Tensor]:
    """Distances over their mean ``[B, B]``, and cosines at each point ``[B, B, B]``."""
    differences = points[None] - points[:, None]
    lengths = differences.norm(dim=2)
    directions = F.normalize(differences, dim=2)
    return lengths / lengths[lengths > 0].mean(), directions @ directions.transpose(1, 2)


STEPS: dict[str, Step] = {"ours": ours, "printed": printed, "frugal": partial(printed, recording=False)}
RIVALS = {"printed": "nine passes and differences", "frugal": "the same, peers without gradients"}


def stepped(step: Step, learner: Peers, batch: Batch) -> tuple[float, float]:
    """The objective of a batch, and the seconds that it takes forward and backward."""
    learner.zero_grad(set_to_none=True)
    begin = time.perf_counter()
    total = step(learner, batch)
    total.backward()
    return total.item(), time.perf_counter() - begin


def peak(name: str, encoder: str, count: int, side: int, threads: int) -> float:
    """MB that a step needs besides the networks; runs in a process of its own, whose peak never falls."""
    torch.set_num_threads(threads)
    learner, batch = networks(encoder), drawn(count, side)
    before = peak_memory_mb()
    stepped(STEPS[name], learner, batch)
    after = peak_memory_mb()
    assert before is not None and after is not None, "this system does not tell how much memory a process held"
    return after - before


def measured(rounds: int, encoder: str, count: int, side: int, threads: int) -> list[Ratio]:
    """What each rival takes, and how far the losses are apart."""
    mb = {}
    for name in STEPS:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            mb[name] = pool.submit(peak, name, encoder, count, side, threads).result()
        print(f"{name}: {mb[name]:.0f} MB", flush=True)
    learner, batch = networks(encoder), drawn(count, side)
    seconds: dict[str, list[float]] = {name: [] for name in STEPS}
    losses: dict[str, float] = {}
    for number in range(rounds + 1):
        for name, step in STEPS.items():
            losses[name], spent = stepped(step, learner, batch)
            if number:  # the first prepares kernels
                seconds[name].append(spent)
        print(*(f"{name} {losses[name]:.7f}" for name in STEPS), flush=True)
    print(*(f"{name} {statistics.median(each):.1f} s a step" for name, each in seconds.items()), flush=True)
    what = f"three PSPNets ({encoder}), {side} px, batch {count}"
    found = []
    for rival, told in RIVALS.items():
        gains = [b / a for a, b in zip(seconds["ours"], seconds[rival], strict=True)]
        bounds = (("≥", FASTER), ("≤", SMALLER)) if rival == "printed" else ((), ())
        found.append(Ratio(f"steps/s, ours : {told}, {what}", gains, *bounds[0]))
        memory = f"peak memory, ours : {told} ({mb['ours']:.0f} : {mb[rival]:.0f} MB)"
        found.append(Ratio(memory, [mb["ours"] / mb[rival]], *bounds[1]))
    apart = abs(losses["ours"] - losses["printed"]) / abs(losses["printed"])
    return [*found, Ratio(f"difference of the losses, relative ({apart:.1e})", [apart], "≤", APART)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="tu-resnest101e", help="of the networks")
    arguments = begin(parser)
    rounds, *sizes = (1, 4, 64) if arguments.quick else (3, BATCH, SIDE)
    ratios = measured(rounds, arguments.encoder, *sizes, arguments.threads)
    where = f"Device cpu: {processor()}; float32, torch threads {arguments.threads}, torch {torch.__version__}"
    return finish(ratios, f"{where}, commit {commit()}.", arguments.write, BLOCK)


if __name__ == "__main__":
    sys.exit(main())
