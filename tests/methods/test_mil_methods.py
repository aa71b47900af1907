"""The MIL methods and IKD-MIL: what they build, and that the roles of teacher and student really switch."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from eosin.core.errors import WrongUse
from eosin.methods.ikd_mil import IkdMil
from eosin.methods.method import Bags
from eosin.methods.resnet_mil import ResnetMil
from eosin.methods.sa_mil import SaMil
from eosin.methods.swin_mil import SwinMil
from eosin.methods.vgg_mil import VggMil
from eosin.parts.attention.criss_cross import CrissCross
from eosin.parts.losses.bag_cross_entropy import BagCrossEntropy
from eosin.parts.losses.dice import BagDice
from eosin.parts.mil import Fusing, Mil, Student
from eosin.verbs.cells import Plan, cell
from eosin.verbs.train import resolve
from methods.fake_lab import FakeLab

HOSTS: list[type[Any]] = [VggMil, ResnetMil, SaMil, SwinMil]


def planned(method: Any, **scores: float) -> FakeLab:
    lab = FakeLab()
    lab.scores = {name.replace("_", "-"): value for name, value in scores.items()}
    lab.final = method.plan(lab)  # type: ignore[attr-defined]
    return lab


def roles(lab: FakeLab) -> list[tuple[str, str | None, str | None]]:
    """Name, start and teacher of each fit."""
    return [(c.name, c.start and c.start.name, c.teacher and c.teacher.name) for c in lab.calls]


@pytest.mark.parametrize(
    ("kind", "channels", "fusion", "loss"),
    [
        (VggMil, [64, 128, 256], (0.3, 0.3, 0.4), BagDice),
        (ResnetMil, [64, 128, 256], (0.3, 0.4, 0.3), BagDice),
        (SaMil, [64, 128, 256], (0.2, 0.35, 0.45), BagCrossEntropy),
        (SwinMil, [96, 192, 384], (0.3, 0.4, 0.3), BagCrossEntropy),
    ],
)
def test_a_host_is_one_fit_of_the_papers_network(kind: Any, channels: list[int], fusion: Any, loss: type) -> None:
    lab = planned(kind())
    assert [(call.kind, call.name, dict(call.masks)) for call in lab.calls] == [("fit", "network", {})]
    net = lab.call("network").build()
    assert isinstance(net, Mil) and isinstance(net.loss, loss) and net.net.encoder.channels == channels
    torch.testing.assert_close(net.net.fusion, torch.tensor(fusion))
    assert bool(net.net.norms) == (kind is SwinMil)
    attentions = [module for module in net.modules() if isinstance(module, CrissCross)]
    assert [a.passes for a in attentions] == ([2, 2, 2] if kind is SaMil else [])
    if loss is BagCrossEntropy:
        assert net.loss.pool.r == 4


@pytest.mark.parametrize("kind", HOSTS)
def test_taps_have_the_strides_of_the_papers(kind: Any) -> None:
    strides = planned(kind()).call("network").build().net.encoder.strides
    assert strides == ([2, 4, 8] if kind in (VggMil, SaMil) else [4, 8, 16])


class TestIkdMil:
    def test_roles_switch_where_the_student_is_better(self) -> None:
        lab = planned(IkdMil(rounds=4), teacher=0.5, student=0.6, student_2=0.55, student_3=0.7, student_4=0.7)
        assert roles(lab) == [
            ("teacher", None, None),
            ("student", None, "teacher"),  # fresh; better: they exchange roles
            ("student-2", "teacher", "student"),  # the old teacher learns; not better: both stay what they are
            ("student-3", "student-2", "student"),  # goes on learning; better
            ("student-4", "student", "student-3"),
        ]
        assert lab.final.name == "student-3", "of equals the earlier one"

    def test_roles_may_always_switch_or_never(self) -> None:
        worse = {"teacher": 0.9, "student": 0.5, "student_2": 0.4, "student_3": 0.3}
        always, never = (planned(IkdMil(rounds=3, switch=switch), **worse) for switch in ("always", "never"))
        assert roles(always)[1:] == [
            ("student", None, "teacher"),
            ("student-2", "teacher", "student"),
            ("student-3", "student", "student-2"),
        ]
        assert roles(never)[1:] == [
            ("student", None, "teacher"),
            ("student-2", "student", "teacher"),
            ("student-3", "student-2", "teacher"),
        ]
        assert always.final.name == never.final.name == "teacher", "the best of all is deployed"

    def test_an_equal_student_does_not_become_the_teacher(self) -> None:
        lab = planned(IkdMil(rounds=2), teacher=0.5, student=0.5, student_2=0.4)
        assert roles(lab)[2] == ("student-2", "student", "teacher")

    def test_without_rounds_it_is_its_host(self) -> None:
        lab = planned(IkdMil(rounds=0))
        assert roles(lab) == [("teacher", None, None)] and lab.final.name == "teacher"

    def test_the_fusion_can_be_learnt_in_between(self) -> None:
        lab = planned(IkdMil(rounds=1, fusion_weights="learnt", bag_loss="gm"))
        assert roles(lab) == [("teacher", None, None), ("fusion", "teacher", None), ("student", None, "fusion")]
        fusing = lab.call("fusion").build()
        assert isinstance(fusing, Fusing) and isinstance(fusing.loss, BagDice)

    @pytest.mark.parametrize(
        ("options", "rounds"),
        [
            ({}, {"teacher": 1, "student": 4}),
            ({"rounds": 0}, {"teacher": 1}),
            ({"rounds": 2, "fusion_weights": "learnt"}, {"teacher": 1, "fusion": 1, "student": 2}),
        ],
    )
    def test_it_says_what_it_trains(self, options: Any, rounds: Any) -> None:
        assert dict(IkdMil(**options).rounds_of()) == rounds

    def test_a_resolved_recipe_has_settings_of_what_is_trained_alone(self) -> None:
        plain, _ = resolve("ikd-mil-phantom", ["fit.fusion.epochs=7"])
        learnt, _ = resolve("ikd-mil-phantom", ["fit.fusion.epochs=7", "options.fusion_weights=learnt"])
        assert set(plain.fit) == {"teacher", "student"} and set(learnt.fit) == {"teacher", "fusion", "student"}
        assert learnt.fit_spec("fusion").epochs == 7 and learnt.fit_spec("student-3") == learnt.fit_spec("student")

    def test_a_comparison_counts_the_epochs_of_all_rounds(self) -> None:
        data = SimpleNamespace(fold=None, digest="0", folder=Path("data"))
        (epochs,) = {
            cell(Plan("a", "ikd-mil-phantom", (f"options.switch={switch}",)), data, 0, Path("out")).epochs  # type: ignore[arg-type]
            for switch in ("better", "never")
        }
        assert epochs == 4 + 3 * 4

    def test_without_validation_it_refuses_before_it_trains(self) -> None:
        lab = FakeLab()
        lab.has_val = False
        with pytest.raises(WrongUse, match="'val'"):
            IkdMil().plan(lab)  # type: ignore[arg-type]
        assert not lab.calls

    def test_the_defaults_are_those_that_are_recommended(self) -> None:
        student = planned(IkdMil()).call("student").build()
        assert isinstance(student, Student) and isinstance(student.loss, BagDice)
        assert (student.structure, student.alpha) == ("fusion", 0.25)
        assert (student.mining.target, student.mining.weighted) == ("hard", True)

    def test_the_options_reach_the_student(self) -> None:
        settings = {"structure": "layers", "wce": "printed", "mining": False, "alpha": 0.5, "scale": 0.5}
        student = planned(IkdMil(**settings)).call("student").build()
        assert (student.structure, student.alpha, student.scale) == ("layers", 0.5, 0.5)
        assert (student.mining.target, student.mining.weighted) == ("printed", False)
        assert planned(IkdMil(wce="off")).call("student").build().mining is None

    @pytest.mark.parametrize("kind", HOSTS)
    def test_any_of_the_networks_can_be_its_host(self, kind: Any) -> None:
        """Teacher and student have the same weights by name, so that each can go on as the other."""
        host = {name: getattr(kind(), name) for name in Bags.model_fields}
        lab = planned(IkdMil(rounds=1, **host))
        teacher, student = (lab.call(name).build() for name in ("teacher", "student"))
        alone = planned(kind()).call("network").build()
        shapes = [{k: v.shape for k, v in net.state_dict().items()} for net in (teacher, student, alone)]
        assert shapes[0] == shapes[1] == shapes[2]
        assert type(teacher.loss) is type(alone.loss) and isinstance(student.loss, BagDice)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (VggMil, {"fusion": (0.5, 0.5)}),
        (VggMil, {"taps": ()}),
        (SaMil, {"fusion": (0.5, 0.5, 0.0)}),
        (SwinMil, {"bag_loss": "mean"}),
        (IkdMil, {"rounds": -1}),
        (IkdMil, {"wce": "released"}),
        (IkdMil, {"switch": "sometimes"}),
        (IkdMil, {"alpha": 0.0}),
    ],
)
def test_options_out_of_range_are_refused(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        kind(**options)


def test_each_ingredient_lives_in_a_step_that_is_trained() -> None:
    for kind in (*HOSTS, IkdMil):
        steps = {ingredient.step for ingredient in kind.ingredients}
        assert steps <= {*planned(partial(kind)()).names("fit")}
