"""What a study of adaptation is: plain values that every writer reads and none computes."""

from __future__ import annotations

from dataclasses import dataclass

from eosin.core.classes import Colour
from eosin.report.compare.form import Comparison


@dataclass(frozen=True, slots=True, order=True)
class Stage:
    """How much of the target was trained on.

    Attributes:
        share: of the target's training items, in 0..1; 0 is the source's model as it is.
        scratch: whether it was trained without the source.
    """

    share: float
    scratch: bool = False

    @property
    def said(self) -> str:
        """``5 %``, or ``5 % from scratch``."""
        return f"{100 * self.share:g} %" + " from scratch" * self.scratch


@dataclass(frozen=True, slots=True)
class Direction:
    """From one data set to another.

    Attributes:
        source: name of the data that were trained on first.
        target: name of the data that are scored.
        stages: the methods held against the first one, at each stage, from the smallest share to the largest; p values
            are corrected over all of them. A stage that has no finished run is absent.
        gains: of each method, its stages held against the source's model as it is; p values are corrected over all of
            them. A method without such a model is absent.
    """

    source: str
    target: str
    stages: tuple[tuple[Stage, Comparison], ...]
    gains: tuple[tuple[str, Comparison], ...]

    @property
    def name(self) -> str:
        """``A → B``."""
        return f"{self.source} \N{RIGHTWARDS ARROW} {self.target}"


@dataclass(frozen=True, slots=True)
class Adaptation:
    """A whole study.

    Attributes:
        methods: names of the methods; the others are held against the first.
        directions: one for each way.
        classes: names in order.
        colours: RGB of each class.
        rate: learning rates of the second training, as a share of the recipes'.
        command: that makes this study.
        failures: one line per run that could not be made.
    """

    methods: tuple[str, ...]
    directions: tuple[Direction, ...]
    classes: tuple[str, ...]
    colours: tuple[Colour, ...]
    rate: float
    command: str
    failures: tuple[str, ...]

    @property
    def any(self) -> Comparison:
        """One of the comparisons, for what is alike in all: split, protocol, device."""
        return self.directions[0].stages[0][1]
