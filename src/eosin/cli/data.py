"""The verbs below ``eosin data``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from eosin import verbs
from eosin.cli.bars import shown
from eosin.cli.options import Json, Out
from eosin.cli.show import State, print_, print_summary

data_app = typer.Typer(help="Import, split, check and describe data sets.", no_args_is_help=True)


class By(StrEnum):
    """What a split keeps together."""

    patient = "patient"
    slide = "slide"
    image = "image"


@data_app.command("import")
def import_(
    form: Annotated[str, typer.Argument(metavar="FORMAT", help="See 'eosin list formats'.")],
    source: Annotated[list[Path], typer.Argument(help="Where the data lies; for qupath slides, then annotations.")],
    dest: Annotated[Path, typer.Argument(help="The folder to write.")],
    options: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the format.")
    ] = None,
    tile: Annotated[int | None, typer.Option(help="Side of the patches, for formats that cut.")] = None,
    stride: Annotated[int | None, typer.Option(help="Step between patches, for formats that cut.")] = None,
    as_json: Json = False,
) -> None:
    """Turn data of a known format into a data set folder."""
    State.json = as_json
    cut = [f"{k}={v}" for k, v in (("tile", tile), ("stride", stride)) if v is not None]
    shown(lambda progress: verbs.import_data(form, source, dest, [*(options or []), *cut], progress=progress))
    print_summary(dest)


@data_app.command("split")
def split_(
    folder: Annotated[Path, typer.Argument(help="Folder of a data set.")],
    by: Annotated[By, typer.Option(help="What stays together.")] = By.patient,
    folds: Annotated[int, typer.Option(min=0, help="How many folds; 0 makes one data set.")] = 0,
    out: Out = None,
    val: Annotated[float, typer.Option(min=0, max=1, help="Share to validate on; with folds, of the others.")] = 0.2,
    test: Annotated[float, typer.Option(min=0, max=1, help="Share to test on; not with folds.")] = 0.2,
    stratify: Annotated[bool, typer.Option("--stratify", help="Even shares of every class, too.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Which goes where.")] = 0,
    as_json: Json = False,
) -> None:
    """Split a data set by patient, slide or image, or make folds; the images stay where they are."""
    State.json = as_json
    made = verbs.split_data(folder, out, by=by.value, folds=folds, val=val, test=test, stratify=stratify, seed=seed)
    if as_json:
        print_({str(path): verbs.describe_data(path) for path in made}, lambda: "")
        return
    for path in made:
        print(path)
        print_summary(path)


@data_app.command("check")
def check(folder: Annotated[Path, typer.Argument(help="Folder of a data set.")], as_json: Json = False) -> None:
    """List every defect of a data set; exit code 1 if there is an error."""
    State.json = as_json
    findings = shown(lambda progress: verbs.check_data(folder, progress=progress))
    errors = [f for f in findings if f.level == "error"]
    plain = [{"level": f.level, "file": str(f.file), "message": f.message} for f in findings]
    print_(plain, lambda: "\n".join(f"{f.level}: {f}" for f in findings) or f"{folder}: no defect found")
    if errors:
        raise typer.Exit(1)
    if not as_json:
        print_summary(folder)
