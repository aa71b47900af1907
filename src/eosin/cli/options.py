"""Options that several verbs have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path | None, typer.Option(help="Folder to write into.")]
Data = Annotated[Path | None, typer.Option(help="Folder of a data set (dataset.yaml, items.csv).")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value for machines, nothing else.")]
