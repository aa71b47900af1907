"""A lab that trains nothing and remembers what it was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eosin.core.artifact import Artifact, MaskSet, Trained, Vectors
from eosin.core.classes import Classes, Tissue
from eosin.core.fingerprint import digest

CLASSES = Classes(
    tissues=tuple(Tissue(name=n, colour=(i, i, i)) for i, n in enumerate(["tumour", "stroma", "necrosis"]))
)


@dataclass
class Call:
    """One step: its kind, its name, what builds it and what it is made from."""

    kind: str
    name: str
    build: Any = None
    masks: Mapping[str, MaskSet] = field(default_factory=dict)
    sources: tuple[Artifact, ...] = ()
    start: Trained | None = None
    teacher: Trained | None = None


class FakeLab:
    """Keeps to the protocol of ``eosin.core.lab.Lab``; every artifact must have come from it.

    Args:
        supervision: of the method whose plan it is handed to.
        classes: the tissues.
        tag_counts: known (present, absent) training tags of each.
    """

    def __init__(
        self,
        supervision: str = "tags",
        classes: Classes = CLASSES,
        tag_counts: tuple[tuple[int, int], ...] = ((30, 10), (20, 20), (1, 39)),
    ) -> None:
        self.classes = classes
        self.tag_counts = tag_counts
        self.supervision = supervision
        self.calls: list[Call] = []
        self.made: list[Artifact] = []
        self.scores: dict[str, float] = {}
        self.has_val = True

    def fit(self, name: str, build: Any, masks: Any = None, start: Any = None, teacher: Any = None) -> Trained:
        sources = (*(masks or {}).values(), *filter(None, (start, teacher)))
        self._note(Call("fit", name, build, dict(masks or {}), sources, start, teacher))
        return self._give(Trained(name, self.place("fit", name), digest(build)))

    def label(self, name: str, source: Trained, rule: Any) -> MaskSet:
        self._note(Call("label", name, rule, sources=(source,)))
        return self._give(MaskSet(name, self.place("label", name), digest(rule)))

    def describe(self, name: str, reader: Any, source: Trained | None = None) -> Vectors:
        self._note(Call("describe", name, reader, sources=(source,) if source else ()))
        made = digest([reader, source.digest if source else None])
        return self._give(Vectors(name, self.place("describe", name), made))

    def truth(self) -> MaskSet:
        assert self.supervision == "truth", "a method with supervision 'tags' asked for true masks"
        self._note(Call("truth", "truth"))
        return self._give(MaskSet("truth", self.place("truth", "truth"), "0" * 64))

    def keep(self, name: str, build: Any) -> Trained:
        self._note(Call("keep", name, build))
        return self._give(Trained(name, self.place("keep", name), digest(build)))

    def make(self, kind: str, name: str, work: Callable[[Path], None], *inputs: Artifact) -> Artifact:
        self._note(Call(kind, name, work, sources=inputs))
        return self._give(Artifact(name, self.place(kind, name), digest(work)))

    def val_score(self, source: Trained) -> float:
        """Every step is better than the one before it, unless ``scores`` says otherwise."""
        assert source in self.made and self.has_val
        return self.scores.get(source.name, float(self.made.index(source)))

    def place(self, kind: str, name: str) -> Path:
        """Where a step's files are said to lie."""
        return Path(name)

    def names(self, kind: str) -> list[str]:
        return [call.name for call in self.calls if call.kind == kind]

    def call(self, name: str) -> Call:
        (found,) = (call for call in self.calls if call.name == name)
        return found

    def _note(self, call: Call) -> None:
        assert all(source in self.made for source in call.sources)
        self.calls.append(call)

    def _give(self, artifact: Any) -> Any:
        self.made.append(artifact)
        return artifact
