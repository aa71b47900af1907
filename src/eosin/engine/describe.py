"""What a network says of each training item, in one vector."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from eosin.core.artifact import Vectors, write_bytes
from eosin.data.dataset import Items
from eosin.data.module import InOrder, WeakView, batch_size, loader
from eosin.engine.device import open_device, workers

PIXELS = 16 * 256 * 256  # that are described at a time


def write_vectors(net: nn.Module, items: Items, folder: Path, done: Callable[[int, str], None]) -> dict[str, Any]:
    """Write what a network says of each item's image, and the item's tags; returns notes.

    Args:
        net: ``[B, 3, H, W]`` in 0..1 to ``[B, D]``.
        items: the training items.
        folder: gets the file of :class:`Vectors`.
        done: is told how many more are described.
    """
    device = open_device("fp32")
    device.place(net).eval()
    view, found = WeakView(items, None, 0), []
    for batch in loader(view, InOrder(items, batch_size(items, PIXELS)), workers(len(view))):
        with torch.inference_mode():
            found.append(net(device.send(batch).image).float().cpu())
        done(len(batch), "")
    vectors = torch.cat(found)
    write_bytes(folder / Vectors.FILE, save({"vectors": vectors.contiguous(), "tags": torch.from_numpy(items.tags)}))
    return {"items": len(vectors), "width": vectors.shape[1]}
