"""Digests of settings: equal meaning gives equal digests, and what cannot be written down is refused.

A step is the same step if its kind, name, builder, settings and inputs have the same canonical form. The form is
stored beside the digest, so that a difference can be shown in words.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

# The keys by which a form says what it stands for; a mapping of the settings with just these would be mistaken for it.
_MARKS = (
    {"float"},
    {"enum"},
    {"class", "revision"},
    {"digest"},
    {"model", "fields"},
    {"dataclass", "fields"},
    {"set"},
    {"function"},
    {"call", "args"},
)


def canonical(value: Any) -> Json:
    """Write ``value`` as JSON with one form per meaning.

    Floats become their exact hexadecimal form, sets are sorted, enums, models, dataclasses and classes carry their
    qualified name, partials are bound to their target's signature with defaults filled in (so that positional,
    keyword and default agree), and anything with a ``digest`` stands for it.

    Raises:
        TypeError: for lambdas, tensors, bare objects and anything else without a lasting meaning.
    """
    if value is None or (isinstance(value, bool | int | str) and not isinstance(value, enum.Enum)):
        return value
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, enum.Enum):
        return {"enum": f"{_name(type(value))}.{value.name}"}
    if isinstance(value, Path):
        raise TypeError(f"a path ({value}) has no lasting meaning; digest the content of the file instead")
    if isinstance(value, functools.partial):
        return _call(value)
    if isinstance(value, type):
        return {"class": _name(value), "revision": getattr(value, "revision", 0)}
    if isinstance(digest := getattr(value, "digest", None), str):
        return {"digest": digest}
    if isinstance(value, BaseModel):
        return {
            "model": _name(type(value)),
            "fields": {k: canonical(getattr(value, k)) for k in type(value).model_fields},
        }
    if dataclasses.is_dataclass(value):
        fields = {f.name: canonical(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"dataclass": _name(type(value)), "fields": fields}
    if isinstance(value, Mapping):
        if any(not isinstance(k, str) for k in value):
            raise TypeError("only mappings with text keys can be digested")
        if value.keys() in _MARKS:
            raise TypeError(f"a mapping of {', '.join(value)} alone cannot be told from a canonical form")
        return {k: canonical(value[k]) for k in sorted(value)}
    if isinstance(value, list | tuple):
        return [canonical(v) for v in value]
    if isinstance(value, set | frozenset):
        return {"set": sorted((canonical(v) for v in value), key=_dump)}
    if inspect.isfunction(value):
        return {"function": _name(value)}
    raise TypeError(f"{type(value).__qualname__} {value!r:.80} cannot be part of a step's settings")


def _call(partial: functools.partial[Any]) -> Json:
    bound = inspect.signature(partial.func).bind_partial(*partial.args, **partial.keywords)
    bound.apply_defaults()
    return {"call": canonical(partial.func), "args": {k: canonical(v) for k, v in sorted(bound.arguments.items())}}


def _name(thing: Any) -> str:
    name = f"{thing.__module__}.{thing.__qualname__}"
    if "<lambda>" in name or "<locals>" in name:
        raise TypeError(f"{name} is not reachable by name; define it at module level")
    if thing.__module__ == "__main__":
        raise TypeError(f"{name} is defined in a script; put it into a module")
    return name


def _dump(form: Json) -> str:
    return json.dumps(form, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical form of ``value``."""
    return hashlib.sha256(_dump(canonical(value)).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differences(old: Json, new: Json, at: str = "") -> list[str]:
    """Say in words where two canonical forms differ, as ``"fit.lr: 0.3 -> 0.31"``."""
    if isinstance(old, dict) and isinstance(new, dict) and "float" not in old and "float" not in new:
        found = []
        for key in sorted(old.keys() | new.keys()):
            here = at if key in ("fields", "args", "call") else f"{at}.{key}".lstrip(".")
            if key not in old or key not in new:
                found.append(f"{here}: {'added' if key not in old else 'removed'}")
            else:
                found += differences(old[key], new[key], here)
        return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [d for i, (a, b) in enumerate(zip(old, new, strict=True)) for d in differences(a, b, f"{at}[{i}]")]
    return [] if old == new else [f"{at}: {_plain(old)} -> {_plain(new)}"]


def _plain(form: Json) -> str:
    text = form if isinstance(form, str) else json.dumps(_readable(form), ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _readable(form: Json) -> Json:
    """The form with its floats in decimals again."""
    if isinstance(form, list):
        return [_readable(part) for part in form]
    if isinstance(form, dict):
        hexadecimal = form.get("float")
        if isinstance(hexadecimal, str):
            return float.fromhex(hexadecimal)
        return {key: _readable(part) for key, part in form.items()}
    return form
