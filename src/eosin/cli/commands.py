"""The verbs of the command line."""

from __future__ import annotations

import errno
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from eosin import verbs
from eosin.cli.bars import leads, shown
from eosin.cli.data import data_app
from eosin.cli.options import Data, Json, Out
from eosin.cli.predict import predict
from eosin.cli.show import (
    State,
    adaptation_table,
    comparison_table,
    details,
    error,
    minutes,
    names,
    print_,
    print_run,
    score_table,
    shares,
    table,
)

app = typer.Typer(
    name="eosin",
    help="Tissue segmentation of H&E histopathology from image-level labels. For research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")


class What(StrEnum):
    """What can be listed."""

    methods = "methods"
    recipes = "recipes"
    formats = "formats"
    protocols = "protocols"
    parts = "parts"
    weights = "weights"


class To(StrEnum):
    """What a model can be exported to."""

    onnx = "onnx"
    openvino = "openvino"
    wsinfer = "wsinfer"


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never ask the network for weights.")] = False,
) -> None:
    State.debug = debug
    if offline:  # read by the hub's library when it is imported, hence before anything else
        os.environ["HF_HUB_OFFLINE"] = "1"


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/demo"), as_json: Json = False
) -> None:
    """Draw tissue, cut tags, train, score, predict and write a report."""
    State.json = as_json
    folder = shown(lambda progress: verbs.demo(out, progress=progress))
    print_run(folder)


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe, a method, or a YAML file.")],
    data: Data = None,
    out: Out = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting.")] = None,
    redo: Annotated[list[str] | None, typer.Option(metavar="STEP", help="Do a step again.")] = None,
    start: Annotated[Path | None, typer.Option(metavar="RUN", help="Begin with the weights of another run.")] = None,
    fraction: Annotated[float, typer.Option(metavar="F", help="Train on this share of the items, by patient.")] = 1.0,
    track: Annotated[
        list[str] | None, typer.Option(metavar="WITH", help="Tell tensorboard or mlflow too (extra track).")
    ] = None,
    reuse: Annotated[Path | None, typer.Option(metavar="RUNS", help="Take equal steps of runs in this folder.")] = None,
    as_json: Json = False,
) -> None:
    """Train a recipe, score it on every labelled split, export the model and write a report."""
    State.json = as_json
    folder = shown(
        lambda progress: verbs.run(
            recipe, data, out, overrides or [], redo or [], start, fraction, track or [], reuse, progress=progress
        )
    )
    if leads():
        print_run(folder)


@app.command()
def score(
    source: Annotated[Path, typer.Argument(help="A run or a model folder.")],
    data: Annotated[Path, typer.Option(help="Folder of a data set.")],
    split: Annotated[str, typer.Option(help="Which split.")] = "test",
    protocol: Annotated[str, typer.Option(help="How to score; see 'eosin list protocols'.")] = "strict",
    as_json: Json = False,
) -> None:
    """Score a model on a labelled split, always with torch in float32."""
    State.json = as_json
    entry = shown(lambda progress: verbs.score(source, data, split, protocol, progress=progress))
    print_(entry, lambda: score_table([entry]))
    if not as_json:
        print(details(entry))


@app.command()
def compare(  # noqa: PLR0913, PLR0917 - its options
    runs: Annotated[list[Path] | None, typer.Argument(help="Finished runs; the first is the baseline.")] = None,
    methods: Annotated[str | None, typer.Option(metavar="A,B", help="Methods or recipes to run instead.")] = None,
    ablation: Annotated[str | None, typer.Option(metavar="FILE", help="Rows to run instead: a file or name.")] = None,
    base: Annotated[str | None, typer.Option(metavar="RECIPE", help="With --ablation: what its rows change.")] = None,
    data: Annotated[Path | None, typer.Option(help="A data set, or a folder of folds.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many; 3, or 1 with folds.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for tables and runs.")] = Path("runs/compare"),
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change every recipe.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="minutes=N", help="Training time that each method gets.")
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option(metavar="A,B", help="Classes whose mean IoU gets a column of its own.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which split is compared.")] = "test",
    adapt: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="SOURCE TARGET", help="Train on one data set, go on with a share of the other; both ways."
        ),
    ] = None,
    fractions: Annotated[
        str | None, typer.Option(metavar="F,G", help="With --adapt: the shares; 0.2,0.1,0.05,0.01.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(metavar="F", help="With --adapt: share of the learning rate in the second training.")
    ] = None,
    scratch: Annotated[bool, typer.Option("--scratch", help="With --adapt: train on the shares alone, too.")] = False,
    as_json: Json = False,
) -> None:
    """Compare runs, methods or the rows of an ablation: scores, intervals, paired tests, cost, published numbers."""
    State.json = as_json
    if adapt is not None:
        others = {"--ablation": ablation, "--base": base, "--data": data, "--budget": budget, "--group": group}
        _refuse("--adapt takes no", {"RUNS": runs, **others}, "the two data sets are all that it compares on")
        _adapt(adapt, methods, fractions, seeds, rate, scratch, out, overrides or [], split)
        return
    lone = {"--fractions": fractions, "--rate": rate is not None, "--scratch": scratch}
    _refuse("without --adapt there is no", lone, "add --adapt SOURCE TARGET")
    from eosin.verbs.compare import compare as made

    comparison = shown(
        lambda progress: made(
            runs or [],
            methods=names(methods),
            ablation=ablation,
            base=base,
            data=data,
            seeds=seeds,
            out=out,
            overrides=overrides or [],
            budget=minutes(budget),
            groups=[names(text) for text in group or []],
            split=split,
            command=shlex.join(["eosin", *sys.argv[1:]]),
            progress=progress,
        )
    )
    print_(json.loads((out / "compare.json").read_text(encoding="utf-8")), lambda: comparison_table(comparison))
    if not as_json:
        print(f"tables: {out / 'compare.html'}   (also .md, .tex, .json, csv; for research use only)")
    _told(comparison.failures)


def _refuse(why: str, options: Mapping[str, object], mend: str) -> None:
    """Refuse options that were given and have no meaning here."""
    from eosin.core.errors import WrongUse

    if given := [name for name, value in options.items() if value]:
        raise WrongUse(f"{why} {', '.join(given)}: {mend}")


def _adapt(
    pair: tuple[Path, Path],
    methods: str | None,
    fractions: str | None,
    seeds: int | None,
    rate: float | None,
    scratch: bool,
    out: Path,
    overrides: list[str],
    split: str,
) -> None:
    """``compare --adapt``."""
    from eosin.verbs.adapt import FRACTIONS, METHODS, RATE, SEEDS, adapt

    study = shown(
        lambda progress: adapt(
            *pair,
            methods=names(methods) or METHODS,
            fractions=shares(fractions) if fractions else FRACTIONS,
            seeds=seeds or SEEDS,
            rate=RATE if rate is None else rate,
            scratch=scratch,
            out=out,
            overrides=overrides,
            split=split,
            command=shlex.join(["eosin", *sys.argv[1:]]),
            progress=progress,
        )
    )
    print_(json.loads((out / "adapt.json").read_text(encoding="utf-8")), lambda: adaptation_table(study))
    if not State.json:
        print(f"plot and tables: {out / 'adapt.html'}   (also .md, .svg, .json, csv; for research use only)")
    _told(study.failures)


def _told(failures: Sequence[str]) -> None:
    """Say which runs failed, and end with 1 if any did."""
    for failure in failures:
        error(failure)
    if failures:
        raise typer.Exit(1)


app.command()(predict)


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="A run or a model folder.")],
    to: Annotated[To, typer.Option(help="What to write.")],
    out: Annotated[Path | None, typer.Option(help="Folder for it; by default the model folder.")] = None,
    int8: Annotated[
        Path | None, typer.Option(metavar="DATA", help="For openvino: 8 bits, calibrated on this data set.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a model in another form, compared with the model on drawn tissue: ONNX, OpenVINO, WSInfer."""
    State.json = as_json
    made = shown(lambda progress: verbs.export(source, to.value, out, int8, progress=progress))
    print_(made, lambda: _exported(made))


def _exported(made: dict[str, Any]) -> str:
    """What was written, how near it is to the model, and whose terms forbid more than research."""
    agreement = (
        f"differs by {made['max_difference']:.2g} at most, agrees in {made['argmax_agreement']:.2%} of the classes"
    )
    origin = f" ({made['made_with']})" if made["made_with"] else ""
    lines = [f"{made['folder']}: {', '.join(made['files'])}", f"{made['form']}{origin}: {agreement}"]
    return "\n".join([*lines, *(f"research only: {line}" for line in made["research_only"]), "(for research use only)"])


@app.command()
def report(
    source: Annotated[Path, typer.Argument(help="A run's folder.")],
    masks: Annotated[
        bool,
        typer.Option("--masks", help="Rank training images whose tags are probably wrong first (trains five times)."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a run's report.html anew."""
    State.json = as_json
    path = shown(lambda progress: verbs.report(source, masks, progress=progress))
    print_({"report": str(path)}, lambda: str(path))


@app.command("list")
def list_(what: Annotated[What, typer.Argument(help="What to list.")], as_json: Json = False) -> None:
    """List methods, recipes, formats, protocols, parts or weights."""
    State.json = as_json
    rows = verbs.list_known(what.value)
    heads = [what.value, "", *list(rows[0])[2:]]
    print_(rows, lambda: table(heads, [list(row.values()) for row in rows]))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine offers and what is amiss."""
    State.json = as_json
    facts, defects = verbs.doctor()
    print_({"facts": facts, "defects": defects}, lambda: table(["", ""], [[k, v] for k, v in facts.items()]))
    for defect in defects:
        error(defect)
    if defects:
        raise typer.Exit(1)


def main() -> None:
    """The console script; ends with 0, 1 (failed), 2 (wrong use) or 130 (interrupted)."""
    from eosin.core.errors import EosinError

    try:
        app(standalone_mode=True)
    except (EosinError, OSError) as failure:
        if State.debug:
            raise
        error(_full(failure) if getattr(failure, "errno", None) in (errno.ENOSPC, errno.EDQUOT) else str(failure))
        sys.exit(getattr(failure, "exit_code", 1))


def _full(failure: BaseException) -> str:
    """A full disk, in one line."""
    where = getattr(failure, "filename", None) or "the disk"
    return f"{where}: no space left; free some and give the same command again, which goes on from what is done"
