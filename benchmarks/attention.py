"""How fast is criss-cross attention? Exits with 1 where a bound is broken.

Usage: ``python benchmarks/attention.py [--threads 1] [--quick] [--write PAGE]``. The bounds hold for the default
settings on a machine that does nothing else.

One image after the other, a loop does what the formula says at each pixel. The usual form of CCNet folds rows and
columns into the batch, one copy for each, and multiplies by ``bmm``. All rivals have the same weights and give the same
result, and take turns; a ratio is the median over rounds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from _page import Ratio, commit, finish, processor
from torch import Tensor, nn

from eosin.parts.attention.criss_cross import CrissCross

SHAPE, QUICK = (8, 512, 28, 28), (2, 64, 10, 12)
FASTER, SLOWER = 50.0, 0.9  # the bounds
BLOCK = "attention-speed"
FORMATS: Mapping[str, torch.memory_format] = {
    "channels last": torch.channels_last,  # as the engine trains
    "channels first": torch.contiguous_format,
}


class Folded(nn.Module):
    """The usual form: rows and columns in the batch."""

    def __init__(self, of: CrissCross) -> None:
        super().__init__()
        channels = of.widths[-1]
        self.query, self.key, self.value = (nn.Conv2d(channels, width, 1) for width in of.widths)
        self.gate = nn.Parameter(of.gate.detach().clone())
        weights, biases = (values.detach().split(of.widths) for values in (of.project.weight, of.project.bias))
        with torch.no_grad():
            for conv, weight, bias in zip((self.query, self.key, self.value), weights, biases, strict=True):
                conv.weight.copy_(weight[:, :, None, None])
                conv.bias.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        batch, _, height, width = x.shape
        query, key, value = self.query(x), self.key(x), self.value(x)

        def columns(t: Tensor) -> Tensor:
            return t.permute(0, 3, 1, 2).contiguous().view(batch * width, -1, height)

        def rows(t: Tensor) -> Tensor:
            return t.permute(0, 2, 1, 3).contiguous().view(batch * height, -1, width)

        down = torch.bmm(columns(query).transpose(1, 2), columns(key))
        down = down.masked_fill(torch.eye(height, dtype=torch.bool), -torch.inf)
        down = down.view(batch, width, height, height).permute(0, 2, 1, 3)
        across = torch.bmm(rows(query).transpose(1, 2), rows(key)).view(batch, height, width, width)
        weights = torch.cat([down, across], 3).softmax(3)
        in_column = weights[..., :height].permute(0, 2, 1, 3).contiguous().view(batch * width, height, height)
        in_row = weights[..., height:].contiguous().view(batch * height, width, width)
        seen = torch.bmm(columns(value), in_column.transpose(1, 2)).view(batch, width, -1, height).permute(0, 2, 3, 1)
        seen = seen + torch.bmm(rows(value), in_row.transpose(1, 2)).view(batch, height, -1, width).permute(0, 2, 1, 3)
        return x + self.gate * seen


@torch.no_grad()
def looped(module: CrissCross, x: Tensor) -> Tensor:
    """The formula, one pixel and one of its neighbours at a time."""
    out, (batch, _, height, width) = x.clone(), x.shape
    weight, bias = module.project.weight, module.project.bias
    for image in range(batch):
        at = [[weight @ x[image, :, i, j] + bias for j in range(width)] for i in range(height)]
        query, key, value = ([[pixel.split(module.widths)[n] for pixel in row] for row in at] for n in range(3))
        for i in range(height):
            for j in range(width):
                cross = [(i, b) for b in range(width)] + [(a, j) for a in range(height) if a != i]
                weights = torch.stack([query[i][j] @ key[a][b] for a, b in cross]).softmax(0)
                for share, (a, b) in zip(weights, cross, strict=True):
                    out[image, :, i, j] += module.gate * share * value[a][b]
    return out


def forward(module: Callable[[Tensor], Tensor], x: Tensor) -> None:
    with torch.no_grad():
        module(x)


def both(module: nn.Module, x: Tensor, gradient: Tensor) -> None:
    """Forward and backward, to weights and features."""
    x = x.detach().requires_grad_()
    module(x).backward(gradient)
    module.zero_grad(set_to_none=True)


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def ratios(one: Callable[[], object], other: Callable[[], object], rounds: int) -> list[float]:
    """Seconds of one over those of the other, by rounds."""
    other()  # the first prepares kernels
    return [seconds(one) / seconds(other) for _ in range(rounds)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--quick", action="store_true", help="only see whether it works: its numbers say nothing")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables into this page")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    shape = QUICK if arguments.quick else SHAPE
    ours = CrissCross(shape[1])
    nn.init.constant_(ours.gate, 0.5)
    folded, x = Folded(ours), torch.randn(shape)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), ours(x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(looped(ours, x[:1]), ours(x[:1]), rtol=1e-4, atol=1e-4)
    few, many = (1, 3) if arguments.quick else (3, 15)
    found = []
    for name, memory_format in FORMATS.items():
        given = x.contiguous(memory_format=memory_format)
        gradient = torch.ones_like(given)
        loop, us, usual = partial(looped, ours, given), partial(forward, ours, given), partial(forward, folded, given)
        learning = partial(both, ours, given, gradient), partial(both, folded, given, gradient)
        for what, rounds, *bound in (
            ("loop : ours, forward", ratios(loop, us, few), "≥", FASTER),
            ("ours : usual form, forward", ratios(us, usual, many)),
            ("ours : usual form, forward and backward", ratios(*learning, many), "≤", SLOWER),
        ):
            found.append(Ratio(f"time, {what}, {name}", rounds, *bound))
            print(*found[-1].row(), flush=True)
    where = f"Features {tuple(shape)}, float32, device cpu: {processor()}"
    where = f"{where}, torch threads {arguments.threads}, torch {torch.__version__}"
    return finish(found, f"{where}, commit {commit()}.", arguments.write, BLOCK)


if __name__ == "__main__":
    sys.exit(main())
