"""The classes of an outcome: those of the model and "uncertain", each with its index, its names and its colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eosin.core.classes import Classes, Colour
from eosin.core.errors import WrongUse
from eosin.wsi.bands import OUTSIDE
from eosin.wsi.options import OutcomeOptions
from eosin.wsi.roles import Role, role_of

Pixels = NDArray[np.uint8]

UNCERTAIN = 254
"""The index of tissue that no class is probable enough for."""

_UNCERTAIN_NAME = "uncertain"
_UNCERTAIN_COLOUR = (150, 150, 150)

_QUPATH: dict[Role, tuple[str, Colour]] = {
    "tumour": ("Tumor", (200, 0, 0)),
    "stroma": ("Stroma", (150, 200, 150)),
    "lymphocytes": ("Immune cells", (160, 90, 160)),
    "necrosis": ("Necrosis", (50, 50, 50)),
    "background": ("Ignore*", (180, 180, 180)),
    "other": ("Other", (255, 200, 0)),
}
"""The classes that QuPath knows from the start, which must be called just so there."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One class of an outcome.

    Attributes:
        index: its value in ``classes.tif``.
        name: the model's name for it.
        label: the name of its classification in QuPath.
        colour: RGB.
    """

    index: int
    name: str
    label: str
    colour: Colour


def shown_classes(classes: Classes, options: OutcomeOptions) -> tuple[Shown, ...]:
    """The classes of an outcome, those of the model first and in its order.

    Raises:
        WrongUse: if the model itself has a class that is called "uncertain" and others are to be called so.
    """
    found = []
    for index, tissue in enumerate(classes):
        role = role_of(tissue.name) if options.palette == "qupath" else None
        label, colour = _QUPATH[role] if role else (tissue.name, tissue.colour)
        found.append(Shown(index, tissue.name, label, colour))
    if options.abstain is not None:
        if _UNCERTAIN_NAME in classes.names:
            raise WrongUse(f"--abstain: the model has a class {_UNCERTAIN_NAME!r} of its own; leave the option out")
        found.append(Shown(UNCERTAIN, _UNCERTAIN_NAME, _UNCERTAIN_NAME, _UNCERTAIN_COLOUR))
    return tuple(found)


def palette_of(shown: tuple[Shown, ...]) -> Pixels:
    """The colours by index, uint8 ``[256, 3]``: white outside tissue, black where there is no class."""
    palette = np.zeros((256, 3), np.uint8)
    palette[OUTSIDE] = 255
    for tissue in shown:
        palette[tissue.index] = tissue.colour
    return palette


def decided(classes: Pixels, confidence: Pixels, abstain: float | None) -> Pixels:
    """Set the pixels of tissue that are less probable than ``abstain`` to "uncertain".

    Args:
        classes: uint8 ``[H, W]``, 255 outside tissue.
        confidence: uint8 ``[H, W]``, 255 times the largest probability, rounded; so the threshold is, too.
        abstain: the threshold, or None.
    """
    if abstain is None:
        return classes
    unsure = (confidence < round(255 * abstain)) & (classes != OUTSIDE)
    return np.where(unsure, np.uint8(UNCERTAIN), classes)
