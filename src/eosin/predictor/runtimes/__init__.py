"""What runs a model: one file for each, imported when it is asked for.

Each has ``load(folder, files, card, precision)``, which checks what it reads before it builds anything of it, and
gives a function from uint8 tiles ``[B, tile, tile, 3]`` to float32 probabilities ``[B, C, tile, tile]``.
"""

from collections.abc import Callable

from torch import Tensor

Run = Callable[[Tensor], Tensor]
