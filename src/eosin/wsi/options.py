"""What a person may choose about the outcome of a slide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from eosin.core.errors import WrongUse, nearest

Palette = Literal["model", "qupath"]
"""Whose names and colours the outcome has: the model's, or QuPath's own where a class is one of those."""


@dataclass(frozen=True, slots=True)
class OutcomeOptions:
    """Options of what is written for a slide; none of them changes the prediction.

    Attributes:
        abstain: tissue whose largest probability is below this is written as "uncertain"; None has no such tissue.
        palette: names and colours.
        min_area: regions smaller than this, in square micrometres, are left out of the GeoJSON.
        simplify: corners of outlines are left out, while their triangles are smaller than the square of this many
            micrometres; 0 keeps the edges of pixels.

    Raises:
        WrongUse: for a value out of range.
    """

    abstain: float | None = None
    palette: Palette = "model"
    min_area: float = 0.0
    simplify: float = 0.0

    def __post_init__(self) -> None:
        if self.abstain is not None and not 0 < self.abstain <= 1:
            raise WrongUse(f"--abstain {self.abstain:g} is no probability; choose one above 0 and up to 1, as 0.6")
        if self.palette not in get_args(Palette):
            raise WrongUse(f"--palette {self.palette} is unknown{nearest(self.palette, list(get_args(Palette)))}")
        for name, value in (("--min-area", self.min_area), ("--simplify", self.simplify)):
            if not 0 <= value < float("inf"):
                raise WrongUse(f"{name} {value:g} must be 0 or more")
