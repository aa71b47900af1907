"""Importers: each module here turns one way of handing out images and labels into the data contract.

A new format is one new file with ``DESCRIPTION``, ``Options`` and ``run``; its name is the module's, with hyphens. One
that reads from several places names them in ``SOURCES``. One of slides says in ``HANDED`` what it must be given, since
nothing in this room may know a slide library.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from pydantic import BaseModel, ValidationError

from eosin.core.errors import EosinError, WrongUse, nearest
from eosin.data.dataset import Dataset

Progress = Callable[[int, int], None]


class Importer(Protocol):
    """What a module of this folder offers."""

    DESCRIPTION: str
    Options: type[BaseModel]

    def run(self, *places: Any, **handed: Any) -> None:
        """Called as ``run(source, dest, options, progress)``.

        Read the source, or each of ``SOURCES``, and make the data set ``dest``, whole or not at all; count progress as
        (done, total). What ``HANDED`` names is given by name.
        """
        ...


def importers() -> dict[str, Importer]:
    """All importers by format name."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    return {name.replace("_", "-"): cast(Importer, import_module(f"{__name__}.{name}")) for name in names}


def import_dataset(
    format_name: str,
    source: Path | Sequence[Path],
    dest: Path,
    options: Mapping[str, Any],
    progress: Progress = lambda done, total: None,
    handed: Mapping[str, Any] | None = None,
) -> Dataset:
    """Run an importer with options as text or values, and open what it made.

    Args:
        format_name: see :func:`importers`.
        source: where the data lies; several places for a format that has several.
        dest: the folder to write; must not exist.
        options: of the format.
        progress: is called with (done, total).
        handed: what formats of slides name in ``HANDED``: ``open_slide`` opens a slide, ``open_map`` a map of classes.

    Raises:
        WrongUse: for an unknown format or option, a value that an option cannot take, or too many or too few sources.
        EosinError: if the source is missing or damaged, or ``dest`` exists.
    """
    known = importers()
    if format_name not in known:
        raise WrongUse(f"no format {format_name!r}{nearest(format_name, list(known))}")
    importer = known[format_name]
    try:
        settings = importer.Options.model_validate(dict(options))
    except ValidationError as error:
        detail = error.errors()[0]
        name = str(detail["loc"][0]) if detail["loc"] else "options"
        if detail["type"] == "extra_forbidden":
            raise WrongUse(
                f"{format_name}: no option {name!r}{nearest(name, list(importer.Options.model_fields))}"
            ) from None
        message = detail["msg"].removeprefix("Value error, ")
        raise WrongUse(f"{format_name}: {name}: {message} (it says {detail['input']!r:.60})") from None
    sources = [source] if isinstance(source, Path) else list(source)
    wanted = getattr(importer, "SOURCES", ("SOURCE",))
    if len(sources) != len(wanted):
        raise WrongUse(f"{format_name}: write eosin data import {format_name} {' '.join(wanted)} DEST")
    for place in sources:
        if not place.exists():
            raise EosinError(f"{place}: no such folder; give the folder that holds the images")
    if dest.exists():
        raise EosinError(f"{dest}: exists already; choose another folder or remove it")
    given = {name: (handed or {})[name] for name in getattr(importer, "HANDED", ())}
    importer.run(*(place.resolve() for place in sources), dest.resolve(), settings, progress, **given)
    return Dataset.open(dest)
