"""What every method is: frozen settings named by the paper's symbols, and a plan."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from eosin.core.artifact import Trained
from eosin.core.lab import Lab


class Method(BaseModel):
    """A published method: its fields are its options, its docstring has the headings Idea, Follows, Differs, Shapes.

    Attributes:
        paper: citation.
        supervision: ``tags`` (image-level labels only) or ``truth`` (an upper bound trained on true masks).
        steps: names of the steps that are trained; each may have settings of its own in a recipe's ``fit``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    paper: ClassVar[str]
    supervision: ClassVar[Literal["tags", "truth"]] = "tags"
    steps: ClassVar[tuple[str, ...]]

    @abstractmethod
    def plan(self, lab: Lab) -> Trained:
        """The paper's algorithm, step by step; returns what is deployed."""
