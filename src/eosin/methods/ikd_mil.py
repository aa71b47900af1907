"""IKD-MIL: a student whose every side learns the fused map of its teacher, until it is the better one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat
from torch import nn

from eosin.core.artifact import Trained
from eosin.core.errors import WrongUse
from eosin.core.lab import Lab
from eosin.methods.method import Bags, Ingredient, Method
from eosin.parts.losses.dice import BagDice
from eosin.parts.losses.mining import Mining
from eosin.parts.mil import Fusing, Mil, Student


class IkdMil(Bags, Method):
    """Iterative fusion-knowledge distillation: teacher and student of one kind, whose roles are exchanged.

    Idea:
        A network that was told that a positive image is positive everywhere has found out better: its fused map is
        nearer to the truth than what it was taught. So it teaches a fresh one, whose sides all learn that map; and when
        the student has become better than its teacher, they exchange roles.

    Follows:
        He et al. 2024: a teacher by constant masks; students by ``sum_i D(f_i^s, f_w^t) + D(f_w^s, f_w^t)``, images
        without the class by inverted maps against ones, plus ``a = 0.25`` times a mining loss, whose pixels weigh by
        ``softmax(-ce)``; rounds of as many epochs as the teacher had, with the roles exchanged where the student is
        better; teacher and student each with an optimizer of their own.

    Differs:
        "Better" is measured on the validation split; the released code measures on the test split and always
        exchanges, by files that leave both networks equal. The mining loss has both terms of a cross-entropy and a
        target that is not 0 everywhere (``wce: printed`` is the equation as it stands). One head a class where there
        are more than two.

    Shapes:
        Those of the host: image ``[B, 3, H, W]``, side and fused maps of teacher and student ``[B, 4, 1, H, W]`` (for
        more than two classes ``[B, 4, K, H, W]``), output ``[B, K, H, W]``.
    """

    paper: ClassVar[str] = (
        "He, Li, Zemp: Enhancing weakly-supervised histopathology image segmentation with knowledge distillation on "
        "MIL-based pseudo-labels, arXiv 2024"
    )
    steps: ClassVar[tuple[str, ...]] = ("teacher", "fusion", "student")
    ingredients: ClassVar[tuple[Ingredient, ...]] = (
        Ingredient("finest side", "student", {"taps": (1, 2), "fusion": (0.4, 0.6)}, ("net.heads.0.",)),
        Ingredient("middle side", "student", {"taps": (0, 2), "fusion": (0.4, 0.6)}, ("net.heads.1.",)),
        Ingredient("coarsest side", "student", {"taps": (0, 1), "fusion": (0.5, 0.5)}, ("net.heads.2.",)),
        Ingredient("fusion knowledge", "student", {"structure": "layers"}),
        Ingredient("mining loss", "student", {"wce": "off"}),
        Ingredient("weights of mining", "student", {"mining": False}),
        Ingredient("role switch", "student-2", {"switch": "never"}, on={"switch": "always"}),
    )

    rounds: int = Field(default=4, ge=0)
    switch: Literal["better", "always", "never"] = "better"
    structure: Literal["fusion", "layers", "output"] = "fusion"
    wce: Literal["hard", "soft", "printed", "off"] = "hard"
    mining: bool = True
    alpha: PositiveFloat = 0.25
    fusion_weights: Literal["fixed", "learnt"] = "fixed"

    def rounds_of(self) -> Mapping[str, int]:
        """How often each step is trained with these options."""
        rounds = {"teacher": 1, "fusion": int(self.fusion_weights == "learnt"), "student": self.rounds}
        return {step: count for step, count in rounds.items() if count}

    def plan(self, lab: Lab) -> Trained:
        """Teacher, then rounds in which a student learns of it; the best of all on the validation split is deployed."""
        if self.rounds and not lab.has_val:
            raise WrongUse("ikd_mil compares its networks on a split 'val', which these data do not have: make one")
        teacher = lab.fit("teacher", self.network(lab, Mil))
        if self.fusion_weights == "learnt":
            teacher = lab.fit("fusion", self.network(lab, Fusing, loss=partial(BagDice)), start=teacher)
        trained, student = [teacher], None
        for number in range(1, self.rounds + 1):
            student = lab.fit(_round(number), self.student(lab), start=student, teacher=teacher)
            trained.append(student)
            if self.switched(lab, teacher, student):
                teacher, student = student, teacher
        return max(trained, key=lab.val_score) if self.rounds else teacher

    def switched(self, lab: Lab, teacher: Trained, student: Trained) -> bool:
        """Whether the two exchange their roles."""
        if self.switch == "better":
            return lab.val_score(student) > lab.val_score(teacher)
        return self.switch == "always"

    def student(self, lab: Lab) -> partial[Student]:
        """What builds a student."""
        mining: Callable[[], nn.Module] | None = None
        if self.wce != "off":
            mining = partial(Mining, self.wce, self.mining)
        return self.network(
            lab, Student, loss=partial(BagDice), structure=self.structure, mining=mining, alpha=self.alpha
        )


def _round(number: int) -> str:
    return "student" if number == 1 else f"student-{number}"
