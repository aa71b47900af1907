"""Finds the methods: every module of this folder that defines one, under the module's name."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

import eosin.methods
from eosin.core.errors import WrongUse, nearest
from eosin.methods.method import Method


@cache
def methods() -> dict[str, type[Method]]:
    """All methods by name, in alphabetical order."""
    found: dict[str, type[Method]] = {}
    for info in iter_modules(eosin.methods.__path__):
        module = import_module(f"eosin.methods.{info.name}")
        for thing in vars(module).values():
            own = isinstance(thing, type) and thing.__module__ == module.__name__
            if own and issubclass(thing, Method) and thing is not Method:
                found[info.name] = thing
    return found


def method(name: str) -> type[Method]:
    """The method of that name.

    Raises:
        WrongUse: if there is none, naming the nearest.
    """
    known = methods()
    if name not in known:
        raise WrongUse(f"method {name!r} is not known{nearest(name, list(known))}")
    return known[name]
