"""What every method is: frozen settings named by the paper's symbols, and a plan."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from eosin.core.artifact import Trained
from eosin.core.lab import Lab


@dataclass(frozen=True, slots=True)
class Ingredient:
    """One idea of a method that can be switched off, so that it can be shown to be at work.

    Attributes:
        name: as the paper calls it.
        step: the trained step or the label step that it lives in.
        off: the options that switch it off.
        parameters: how the names of its own weights in that step's learner begin; empty for an idea without weights
            of its own, such as a pooling, a gate, a loss term or a rule.
    """

    name: str
    step: str
    off: Mapping[str, Any]
    parameters: tuple[str, ...] = ()


class Method(BaseModel):
    """A published method: its fields are its options, its docstring has the headings Idea, Follows, Differs, Shapes.

    Attributes:
        paper: citation.
        supervision: ``tags`` (image-level labels only) or ``truth`` (an upper bound trained on true masks).
        steps: names of the steps that are trained; each may have settings of its own in a recipe's ``fit``.
        ingredients: what the method adds, none for a plain bound. The contract suite shows each to be at work in
            ``<method>-phantom``, where all of them are switched on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    paper: ClassVar[str]
    supervision: ClassVar[Literal["tags", "truth"]] = "tags"
    steps: ClassVar[tuple[str, ...]]
    ingredients: ClassVar[tuple[Ingredient, ...]]

    @abstractmethod
    def plan(self, lab: Lab) -> Trained:
        """The paper's algorithm, step by step; returns what is deployed."""
