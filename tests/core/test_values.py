"""Classes, errors and the plain settings."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from eosin.core.classes import Classes, Tissue
from eosin.core.errors import EosinError, Stale, WrongUse, nearest
from eosin.core.progress import Progress, Silent
from eosin.core.values import Augment, Clock, FitSpec

RED = (255, 0, 0)


def tissue(name: str = "tumour", colour: tuple[int, int, int] = RED) -> Tissue:
    return Tissue(name=name, colour=colour)


def test_classes_are_in_mask_order() -> None:
    classes = Classes(tissues=(tissue("stroma"), tissue("tumour", (0, 255, 0))))
    assert classes.names == ("stroma", "tumour") and classes.colours == (RED, (0, 255, 0))
    assert len(classes) == 2 and [t.name for t in classes] == ["stroma", "tumour"] and classes.ignore == 255


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tissues": ()}, "at least 1"),
        ({"tissues": (tissue(), tissue())}, "same name"),
        ({"tissues": (tissue(),), "ignore": 0}, "also a class"),
        ({"tissues": (tissue(),), "ignore": 256}, "less than or equal to 255"),
        ({"tissues": (tissue(),), "colour": 1}, "Extra inputs"),
    ],
)
def test_classes_that_cannot_be(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Classes.model_validate(arguments)


@pytest.mark.parametrize("name", ["", " tumour", "a,b", "a\nb", "a/b", "-"])
def test_class_names_that_would_break_files_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        tissue(name)


@pytest.mark.parametrize("name", ["tumour", "white background", "T-cells", "Größe", "grade_3+"])
def test_class_names_as_the_field_writes_them(name: str) -> None:
    assert tissue(name).name == name


@pytest.mark.parametrize("colour", [(256, 0, 0), (-1, 0, 0), (1, 2)])
def test_colours_are_three_bytes(colour: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        Tissue.model_validate({"name": "a", "colour": colour})


def test_the_nearest_name_is_offered_or_the_names_are_listed() -> None:
    assert nearest("resnet81", ["resnet18", "vgg11"]) == " (did you mean 'resnet18'?)"
    assert nearest("xyz", ["b", "a"]) == " (known: a, b)"
    assert nearest("xyz", []) == ""
    assert nearest("xyz", [f"name{i:03}" for i in range(1500)]).endswith("name019 and 1480 more)")


def test_exit_codes() -> None:
    assert (EosinError.exit_code, Stale.exit_code, WrongUse.exit_code) == (1, 1, 2)


def test_the_clock_runs_from_0_to_1() -> None:
    assert [Clock(step, 0, 4, 1).progress for step in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    assert Clock(0, 0, 0, 1).progress == 0


@pytest.mark.parametrize(
    ("model", "change"),
    [
        (FitSpec, {"lr": 0}),
        (FitSpec, {"epochs": 0}),
        (FitSpec, {"schedule": "linear"}),
        (FitSpec, {"augment": {"crop": -1}}),
        (FitSpec, {"learning_rate": 0.1}),
        (Augment, {"brightness": 1}),
        (Augment, {"stain": 1.1}),
    ],
)
def test_settings_out_of_range_are_refused(model: type[BaseModel], change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(change)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        FitSpec().lr = 1.0  # type: ignore[misc]


def test_silence(capfd: pytest.CaptureFixture[str]) -> None:
    progress: Progress = Silent()
    progress.say("a line")
    progress.start("a task", 3)(1, "a note")
    assert capfd.readouterr() == ("", "")
