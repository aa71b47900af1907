"""The contract of every method. It is found by its file, so a new one is tested without writing a test."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest

from contracts import clauses_gradients, clauses_plan, clauses_run
from contracts.runs import EPOCHS, Run, Subject, plan_only, torn
from eosin.methods.discover import methods
from eosin.methods.method import Ingredient, Method
from eosin.recipe import family, load, shipped, validated

SUBJECTS = [pytest.param(Subject.shipped(name, kind), id=name) for name, kind in methods().items()]
INGREDIENTS = [
    pytest.param(Subject.shipped(name, kind), ingredient, id=f"{name}: {ingredient.name}")
    for name, kind in methods().items()
    for ingredient in kind.ingredients
]
RunOf = Callable[[Subject], Run]
every_method = pytest.mark.parametrize("subject", SUBJECTS)


def chosen(recipe: str) -> Method:
    """The method of a shipped recipe, with its options."""
    read = load(recipe)
    return validated(methods()[read.method], read.options, recipe)


@every_method
def test_its_plan_runs_and_the_loss_of_each_fit_falls(subject: Subject, run_of: RunOf) -> None:
    clauses_run.the_loss_of_each_fit_falls(run_of(subject))


@every_method
def test_every_learner_predicts_probabilities_at_any_size(subject: Subject, run_of: RunOf) -> None:
    clauses_run.every_learner_predicts_probabilities(run_of(subject))


@every_method
def test_it_survives_a_kill_and_comes_to_the_same_weights(
    subject: Subject, run_of: RunOf, data: Path, tmp_path: Path
) -> None:
    run, again = run_of(subject), Run(subject, data, tmp_path / "torn")
    kept, kill = chosen_steps(run)
    code = torn(again, kept, kill)
    clauses_run.a_killed_run_goes_on_to_the_same_weights(run, again, kept, code)


def chosen_steps(run: Run) -> tuple[int, int]:
    """A step of the first epoch of some fit, and one of its second epoch, counted over the whole run from 1.

    So the journal has a line more when the run is killed than when it was last saved.
    """
    steps, chance = run.steps(), random.Random(crc32(run.subject.name.encode()))
    fit = chance.choice(sorted({name for name, _ in steps}))
    first = steps.index((fit, 0)) + 1
    epoch = [name for name, _ in steps].count(fit) // EPOCHS
    return first + chance.randrange(epoch - 1), first + epoch + chance.randrange(epoch)


@every_method
def test_the_exported_model_is_the_deployed_learner(subject: Subject, run_of: RunOf) -> None:
    clauses_run.the_exported_model_is_the_deployed_learner(run_of(subject))


@every_method
def test_noise_for_training_truth_gives_the_same_weights(
    subject: Subject, run_of: RunOf, spoiled: Path, tmp_path: Path
) -> None:
    clauses_run.noise_for_truth_changes_nothing(run_of(subject), plan_only(Run(subject, spoiled, tmp_path / "spoiled")))


@every_method
def test_no_process_opens_training_truth(subject: Subject, run_of: RunOf) -> None:
    clauses_run.no_training_truth_is_opened(run_of(subject))


@pytest.mark.parametrize(("subject", "ingredient"), INGREDIENTS)
def test_each_ingredient_is_at_work(subject: Subject, ingredient: Ingredient, run_of: RunOf) -> None:
    clauses_gradients.the_ingredient_is_at_work(run_of(subject), ingredient)


@every_method
def test_an_unknown_tag_teaches_nothing(subject: Subject, run_of: RunOf) -> None:
    clauses_gradients.unknown_tags_teach_nothing(run_of(subject))


@pytest.mark.parametrize("recipe", shipped())
def test_each_step_of_a_recipe_has_a_name_of_its_own(recipe: str) -> None:
    clauses_plan.each_step_has_a_name_of_its_own(chosen(recipe))


@pytest.mark.parametrize("recipe", shipped())
def test_all_numbers_of_a_build_come_from_the_recipe(recipe: str) -> None:
    clauses_plan.numbers_come_from_the_recipe(chosen(recipe))


@pytest.mark.parametrize("name", methods())
def test_no_option_is_ignored(name: str) -> None:
    recipes = [chosen(recipe) for recipe in shipped() if load(recipe).method == name]
    clauses_plan.no_option_is_ignored(methods()[name], recipes)


@pytest.mark.parametrize("name", methods())
def test_each_of_its_steps_is_trained_by_some_recipe(name: str) -> None:
    recipes = [chosen(recipe) for recipe in shipped() if load(recipe).method == name]
    trained = {family(step) for method in recipes for step in clauses_plan.planned(method).names("fit")}
    assert trained == set(methods()[name].steps)
