"""The suite sees: of methods that each break one clause, each is caught, and one that breaks none passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from contracts import clauses_gradients, clauses_plan, clauses_run
from contracts.runs import Run, Subject, here, plan_only, torn, whole
from contracts.toys import GATE, TOYS, HardCodes, IgnoresOption, SameName, Sound, TrainsInSecret
from eosin.methods.method import Method
from eosin.predictor import write

pytestmark = pytest.mark.usefixtures("toys")
Toy = Callable[[str], Subject]


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    """A toy method by name, with a recipe."""

    def made(name: str) -> Subject:
        recipe = tmp_path / f"{name}.yaml"
        recipe.write_text(f"method: {name}\nfit: {{lr: 0.01, augment: {{stain: 0.1}}}}\n")
        return Subject(name, TOYS[name], str(recipe))

    return made


@pytest.fixture
def planned(toy: Toy, data: Path, tmp_path: Path) -> Callable[[str], Run]:
    """The steps of a toy, made in this process."""
    return lambda name: plan_only(Run(toy(name), data, tmp_path / name))


def caught(clause: Callable[[Run], None], run: Run, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        clause(run)


def test_a_sound_method_passes(toy: Toy, data: Path, tmp_path: Path) -> None:
    run = here(Run(toy("sound"), data, tmp_path / "sound"))
    clauses_run.the_loss_of_each_fit_falls(run)
    clauses_run.every_learner_predicts_probabilities(run)
    clauses_run.the_exported_model_is_the_deployed_learner(run)
    for ingredient in Sound.ingredients:
        clauses_gradients.the_ingredient_is_at_work(run, ingredient)
    clauses_gradients.unknown_tags_teach_nothing(run)
    clauses_plan.each_step_has_a_name_of_its_own(Sound())
    clauses_plan.numbers_come_from_the_recipe(Sound())
    clauses_plan.no_option_is_ignored(Sound, [])


def test_a_loss_that_does_not_fall_is_caught(planned: Callable[[str], Run]) -> None:
    caught(clauses_run.the_loss_of_each_fit_falls, planned("NeverLearns"), "classifier: .* does not fall")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("AnswersWithLogits", r"predict is in -.*, not in 0\.\.1|sums to 1 only within"),
        ("RoundsSizes", r"\[2, 3, 61, 47\]: predict has shape \[2, 4, 62, 48\], not \[2, 4, 61, 47\]"),
        ("ScoresBeyondOne", r"tag_scores is in .*, not in 0\.\.1"),
    ],
)
def test_answers_that_are_no_probabilities_are_caught(name: str, message: str, planned: Callable[[str], Run]) -> None:
    caught(clauses_run.every_learner_predicts_probabilities, planned(name), message)


def test_state_outside_the_state_dict_is_caught(toy: Toy, data: Path, tmp_path: Path) -> None:
    subject = toy("RemembersOutside")
    run, again = whole(subject, data, tmp_path / "whole"), Run(subject, data, tmp_path / "torn")
    code = torn(again, kept=3, kill=7)
    with pytest.raises(AssertionError, match=r"weights\.safetensors differs between the killed run"):
        clauses_run.a_killed_run_goes_on_to_the_same_weights(run, again, 3, code)


def test_a_learner_that_exports_another_function_is_caught(
    toy: Toy, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AssertionError, match="ended with exit code 1"):
        here(Run(toy("ExportsAnother"), data, tmp_path / "refused"))
    assert "the stored program differs from the network" in capsys.readouterr().err
    monkeypatch.setattr(write, "near", lambda measured: True)  # an engine that does not look
    run = here(Run(toy("ExportsAnother"), data, tmp_path / "run"))
    caught(clauses_run.the_exported_model_is_the_deployed_learner, run, r"differs from classifier by .*\(tissue, ")


def test_opening_training_truth_is_caught_though_nothing_is_learnt_from_it(
    toy: Toy, data: Path, tmp_path: Path
) -> None:
    run = whole(toy("Peeks"), data, tmp_path / "run")
    caught(clauses_run.no_training_truth_is_opened, run, "36 training masks were opened, train1-0-0.png among them")


def test_learning_from_truth_is_caught_though_python_does_not_see_it_opened(
    toy: Toy, data: Path, spoiled: Path, tmp_path: Path
) -> None:
    subject = toy("Cheats")
    run = whole(subject, data, tmp_path / "run")
    caught(clauses_run.no_training_truth_is_opened, run, "C code opened 36 training masks")
    other = whole(subject, spoiled, tmp_path / "spoiled")
    with pytest.raises(AssertionError, match="classifier came out differently with noise for truth: truth leaks"):
        clauses_run.noise_for_truth_changes_nothing(run, other)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoGradient", "'gate': its weights have 0 of the gradient only"),
        ("NoEffect", "'gate': switched off, prediction changes by .* and loss by .* only"),
        ("pull", "'second term': switched off, the loss is another, but the gradient changes by 0 only"),
        ("deaf_switch", "'views': switched off, only 0 of the drawn pixels change"),
    ],
)
def test_an_inert_ingredient_is_caught(name: str, message: str, planned: Callable[[str], Run]) -> None:
    run = planned(name)
    with pytest.raises(AssertionError, match=message):
        clauses_gradients.the_ingredient_is_at_work(run, TOYS[name].ingredients[0])


def test_an_ingredient_that_is_said_wrongly_is_caught(planned: Callable[[str], Run]) -> None:
    run = planned("sound")
    for change, message in (
        ({"off": {"gait": False}}, "there is no option 'gait'"),
        ({"off": {"gate": True}}, "gate = True in .* already"),
        ({"step": "segmenter"}, "there is no step 'segmenter', only"),
        ({"parameters": ("gates.",)}, "no parameter begins with 'gates.'"),
        ({"off": {}}, "names no option"),
    ):
        with pytest.raises(AssertionError, match=message):
            clauses_gradients.the_ingredient_is_at_work(run, replace(GATE, **change))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("UnknownIsAbsent", "an unknown tag of class 0 counts as an absent one"),
        ("UnknownIsPresent", "an image whose tags are all unknown has .* of the gradient"),
        ("UnknownIsHalf", "an unknown tag of class 0 or 1 leaves .* of the gradient behind"),
        ("DividesByKnown", "the gradient is not finite"),
    ],
)
def test_unknown_tags_that_teach_are_caught(name: str, message: str, planned: Callable[[str], Run]) -> None:
    caught(clauses_gradients.unknown_tags_teach_nothing, planned(name), message)


@pytest.mark.parametrize(
    ("clause", "method", "message"),
    [
        (clauses_plan.each_step_has_a_name_of_its_own, SameName(), "pseudo is the name of two steps"),
        (clauses_plan.each_step_has_a_name_of_its_own, TrainsInSecret(), r"trains \['classifier'\], but its steps are"),
        (clauses_plan.numbers_come_from_the_recipe, HardCodes(), r"classifier\.Net\.width = 8 is the value of no opt"),
    ],
)
def test_a_plan_that_says_too_little_is_caught(clause: Callable[[Method], None], method: Method, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        clause(method)


def test_an_ignored_option_is_caught() -> None:
    with pytest.raises(AssertionError, match="no step changes with option 'warmth'; it is ignored"):
        clauses_plan.no_option_is_ignored(IgnoresOption, [])
