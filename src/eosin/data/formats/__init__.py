"""Importers: each module here turns one way of handing out images and labels into the data contract.

A new format is one new file with ``DESCRIPTION``, ``Options`` and ``run``; its name is the module's, with hyphens.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
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

    def run(self, source: Path, dest: Path, options: Any, progress: Progress) -> None:
        """Read ``source`` and make the data set ``dest``, whole or not at all; count progress as (done, total)."""
        ...


def importers() -> dict[str, Importer]:
    """All importers by format name."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    return {name.replace("_", "-"): cast(Importer, import_module(f"{__name__}.{name}")) for name in names}


def import_dataset(
    format_name: str,
    source: Path,
    dest: Path,
    options: Mapping[str, Any],
    progress: Progress = lambda done, total: None,
) -> Dataset:
    """Run an importer with options as text or values, and open what it made.

    Raises:
        WrongUse: for an unknown format or option, or a value that an option cannot take.
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
    if not source.exists():
        raise EosinError(f"{source}: no such folder; give the folder that holds the images")
    if dest.exists():
        raise EosinError(f"{dest}: exists already; choose another folder or remove it")
    importer.run(source.resolve(), dest.resolve(), settings, progress)
    return Dataset.open(dest)
