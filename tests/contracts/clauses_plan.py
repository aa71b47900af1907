"""What a fake lab shows of a method's plan, which trains nothing: names, numbers, and that no option is ignored."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from eosin.core.classes import Classes, Tissue
from eosin.core.errors import EosinError
from eosin.core.fingerprint import digest
from eosin.methods.method import Method
from eosin.recipe import family
from methods.fake_lab import FakeLab

# As many classes as no option is likely to be; no two counts are alike, and no quotient of them is the same in both.
CLASSES = Classes(tissues=tuple(Tissue(name=f"tissue {i}", colour=(i, i, i)) for i in range(23)))
COUNTS = tuple((101 + 7 * i, 211 + 3 * i) for i in range(23))
OTHER_COUNTS = tuple((331 + 5 * i, 173 + 11 * i) for i in range(23))


def planned(method: Method, counts: tuple[tuple[int, int], ...] = COUNTS) -> FakeLab:
    """The steps that a method asks for."""
    lab = FakeLab(method.supervision, CLASSES, counts)
    final = method.plan(lab)  # type: ignore[arg-type]
    assert final.name in [*lab.names("fit"), *lab.names("keep")], f"{_name(method)} deploys {final.name}, not a learner"
    return lab


def _name(method: Method) -> str:
    return type(method).__name__


# -- names ---------------------------------------------------------------------------------------------------------


def each_step_has_a_name_of_its_own(method: Method) -> None:
    """And what is trained is what the method says it trains, so that a recipe can say how; each time the same."""
    lab = planned(method)
    names = [call.name for call in lab.calls]
    twice = sorted({name for name in names if names.count(name) > 1})
    assert not twice, f"{_name(method)}: {', '.join(twice)} is the name of two steps"
    odd = [name for name in names if not re.fullmatch(r"[a-z0-9-]+", name)]
    assert not odd, f"{_name(method)}: {', '.join(odd)} cannot be the name of a step: lower case, digits and hyphens"
    fits = lab.names("fit")
    own = list(method.steps)
    assert {family(name) for name in fits} <= set(own), f"{_name(method)} trains {fits}, but its steps are {own}"
    rounds = {step: sum(family(name) == step for name in fits) for step in own}
    told = {step: method.rounds_of().get(step, 0) for step in own}
    assert rounds == told, f"{_name(method)} trains its steps so often: {rounds}, but says {told}"
    assert steps(method) == steps(method), f"{_name(method)}: the same options give other steps the second time"


# -- numbers -------------------------------------------------------------------------------------------------------


def numbers_come_from_the_recipe(method: Method) -> None:
    """Every number in a step's build is an option's value or the number of classes, or follows from the tag counts.

    It is looked at twice: with the recipe's values, and with others, so that a number that is only by chance the same
    as an option's is found, too.
    """
    for chosen in (method, unusual(method)):
        allowed = {len(CLASSES), *(number for _, number in numbers(chosen.model_dump()))}
        other = {path: number for path, number in _of_all(planned(chosen, OTHER_COUNTS))}
        for path, number in _of_all(planned(chosen)):
            counted = path in other and other[path] != number
            assert counted or number in allowed, (
                f"{_name(method)}: {path} = {number} is the value of no option; make it one"
            )


def _of_all(lab: FakeLab) -> Iterator[tuple[str, float]]:
    for call in lab.calls:
        yield from numbers(call.build, call.name)


def numbers(value: Any, at: str = "") -> Iterator[tuple[str, float]]:
    """The numbers that are given explicitly in partials, sequences, mappings and settings, with their places."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield at, value
    elif isinstance(value, partial):
        where = f"{at}.{value.func.__name__}"
        yield from numbers(value.args, where)
        yield from numbers(value.keywords, where)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from numbers(inner, f"{at}.{key}")
    elif isinstance(value, list | tuple | set | frozenset):
        for i, inner in enumerate(value):
            yield from numbers(inner, f"{at}[{i}]")
    elif isinstance(value, BaseModel):
        yield from numbers({key: getattr(value, key) for key in type(value).model_fields}, at)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type) and not hasattr(value, "digest"):
        yield from numbers({f.name: getattr(value, f.name) for f in dataclasses.fields(value)}, at)


def unusual(method: Method) -> Method:
    """The same method with another value for every option that has a number, as far as each can be changed."""
    for option, value in method.model_dump().items():
        if next(numbers(value), None) is not None:
            method = next(variants(method, option), method)
    return method


# -- options -------------------------------------------------------------------------------------------------------


def no_option_is_ignored(kind: type[Method], recipes: Sequence[Method]) -> None:
    """Changing any single option changes a step: in a recipe, by default, or with one switch in another position."""
    bases = [*recipes, kind()]
    switches = [o for o, field in kind.model_fields.items() if _choices(field.annotation)]
    bases += [other for base in list(bases) for switch in switches for other in variants(base, switch)]
    for option in kind.model_fields:
        changes = (steps(base) != steps(other) for base in bases for other in variants(base, option))
        assert any(changes), f"{kind.__name__}: no step changes with option {option!r}; it is ignored"


def steps(method: Method) -> str:
    """A digest of all steps, and of what each is made from."""
    lab = planned(method)
    return digest(
        [
            [call.kind, call.name, call.build, [f"{key} {mask.name}" for key, mask in sorted(call.masks.items())]]
            + [source.name for source in call.sources]
            + [call.teacher.name if call.teacher else ""]
            for call in lab.calls
        ]
    )


def variants(method: Method, option: str) -> Iterator[Method]:
    """The method with other values of one option; those that cannot be are left out."""
    value = getattr(method, option)
    for other in _others(value, type(method).model_fields[option].annotation):
        if other == value:
            continue
        try:
            changed = type(method).model_validate({**method.model_dump(), option: other})
            planned(changed)
        except (ValidationError, EosinError):
            continue
        yield changed


def _choices(annotation: Any) -> list[Any]:
    """The values of a ``Literal`` or a bool."""
    if annotation is bool:
        return [False, True]
    return [choice for choice in get_args(annotation) if isinstance(choice, str | int)]


def _others(value: Any, annotation: Any) -> Iterator[Any]:
    yield from _choices(annotation)
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        yield from (value + step for step in (1, 2, -1, -2, 8, 16))
    elif isinstance(value, float):
        yield from (value * factor + shift for factor, shift in ((0.83, 0.0), (1.17, 0.0), (1.0, 0.17), (1.0, 1.7)))
    elif isinstance(value, str):
        # Another network, for options that name one; and, for those that name a file, this one.
        yield from ("imagenet", f"{value}x", "mit_b0", "resnet18", __file__)
    elif isinstance(value, tuple | list):
        for i, inner in enumerate(value):
            yield from ([*value[:i], other, *value[i + 1 :]] for other in _others(inner, type(inner)))
        yield from ([*value, *more] for more in ([value[:1]] if value else ([1], [2])))
    elif value is None:
        yield from (1, 0.5, "imagenet", [1])
