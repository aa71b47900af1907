"""The command line: parse, one call, print. Everything heavy is imported by the verb that needs it."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from eosin import verbs

app = typer.Typer(
    name="eosin",
    help="Tissue segmentation of H&E histopathology from image-level labels. For research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Import, check and describe data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")


class _State:
    json = False
    debug = False


Out = Annotated[Path | None, typer.Option(help="Folder to write into.")]
Data = Annotated[Path | None, typer.Option(help="Folder of a data set (dataset.yaml, items.csv).")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value for machines, nothing else.")]


class What(StrEnum):
    """What can be listed."""

    methods = "methods"
    recipes = "recipes"
    formats = "formats"
    protocols = "protocols"
    parts = "parts"


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never ask the network for weights.")] = False,
) -> None:
    _State.debug = debug
    if offline:  # read by the hub's library when it is imported, hence before anything else
        os.environ["HF_HUB_OFFLINE"] = "1"


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/demo"), as_json: Json = False
) -> None:
    """Draw tissue, cut tags, train, score, predict and write a report."""
    _State.json = as_json
    folder = _shown(lambda progress: verbs.demo(out, progress=progress))
    _print_run(folder)


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe, a method, or a YAML file.")],
    data: Data = None,
    out: Out = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting.")] = None,
    redo: Annotated[list[str] | None, typer.Option(metavar="STEP", help="Do a finished step again.")] = None,
    as_json: Json = False,
) -> None:
    """Train a recipe, score it on every labelled split, export the model and write a report."""
    _State.json = as_json
    folder = _shown(lambda progress: verbs.run(recipe, data, out, overrides or [], redo or [], progress=progress))
    _print_run(folder)


@app.command()
def score(
    source: Annotated[Path, typer.Argument(help="A run or a model folder.")],
    data: Annotated[Path, typer.Option(help="Folder of a data set.")],
    split: Annotated[str, typer.Option(help="Which split.")] = "test",
    protocol: Annotated[str, typer.Option(help="How to score; see 'eosin list protocols'.")] = "strict",
    as_json: Json = False,
) -> None:
    """Score a model on a labelled split, always with torch in float32."""
    _State.json = as_json
    entry = _shown(lambda progress: verbs.score(source, data, split, protocol, progress=progress))
    _print(entry, lambda: _score_table([entry]))


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A run or a model folder.")],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    batch: Annotated[int, typer.Option(min=1, help="Tiles at a time.")] = 16,
    as_json: Json = False,
) -> None:
    """Segment images of any size: class PNG, overlay with legend, areas."""
    _State.json = as_json
    outcomes = _shown(lambda progress: verbs.predict(model, images, out, batch, progress=progress))
    rows = [{"image": str(o.source), "state": o.state, "reason": o.reason, "folder": str(o.folder)} for o in outcomes]
    _print(
        rows,
        lambda: _table(
            ["image", "state", "result"], [[r["image"], r["state"], r["reason"] or r["folder"]] for r in rows]
        ),
    )
    if any(o.state == "failed" for o in outcomes):
        raise typer.Exit(1)


@app.command()
def report(source: Annotated[Path, typer.Argument(help="A run's folder.")], as_json: Json = False) -> None:
    """Write a run's report.html anew."""
    _State.json = as_json
    path = verbs.report(source)
    _print({"report": str(path)}, lambda: str(path))


@app.command("list")
def list_(what: Annotated[What, typer.Argument(help="What to list.")], as_json: Json = False) -> None:
    """List methods, recipes, formats, protocols or parts."""
    _State.json = as_json
    rows = verbs.list_known(what.value)
    _print([{"name": n, "about": a} for n, a in rows], lambda: _table([what.value, ""], [[n, a] for n, a in rows]))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine offers and what is amiss."""
    _State.json = as_json
    facts, defects = verbs.doctor()
    _print({"facts": facts, "defects": defects}, lambda: _table(["", ""], [[k, v] for k, v in facts.items()]))
    for defect in defects:
        _error(defect)
    if defects:
        raise typer.Exit(1)


@data_app.command("import")
def import_(
    form: Annotated[str, typer.Argument(metavar="FORMAT", help="See 'eosin list formats'.")],
    source: Annotated[Path, typer.Argument(help="Where the data lies.")],
    dest: Annotated[Path, typer.Argument(help="The folder to write.")],
    options: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the format.")
    ] = None,
    tile: Annotated[int | None, typer.Option(help="Side of the patches, for formats that cut.")] = None,
    stride: Annotated[int | None, typer.Option(help="Step between patches, for formats that cut.")] = None,
    as_json: Json = False,
) -> None:
    """Turn data of a known format into a data set folder."""
    _State.json = as_json
    cut = [f"{k}={v}" for k, v in (("tile", tile), ("stride", stride)) if v is not None]
    _shown(lambda progress: verbs.import_data(form, source, dest, [*(options or []), *cut], progress=progress))
    _print_summary(dest)


@data_app.command("check")
def check(folder: Annotated[Path, typer.Argument(help="Folder of a data set.")], as_json: Json = False) -> None:
    """List every defect of a data set; exit code 1 if there is an error."""
    _State.json = as_json
    findings = _shown(lambda progress: verbs.check_data(folder, progress=progress))
    errors = [f for f in findings if f.level == "error"]
    plain = [{"level": f.level, "file": str(f.file), "message": f.message} for f in findings]
    _print(plain, lambda: "\n".join(f"{f.level}: {f}" for f in findings) or f"{folder}: no defect found")
    if errors:
        raise typer.Exit(1)
    if not as_json:
        _print_summary(folder)


def main() -> None:
    """The console script; ends with 0, 1 (failed), 2 (wrong use) or 130 (interrupted)."""
    from eosin.core.errors import EosinError

    try:
        app(standalone_mode=True)
    except (EosinError, OSError) as error:
        if _State.debug:
            raise
        _error(str(error))
        sys.exit(getattr(error, "exit_code", 1))


# -- printing --------------------------------------------------------------------------------------------------------


def _error(line: str) -> None:
    print(f"eosin: {line}", file=sys.stderr)


def _print(value: Any, text: Callable[[], str | Table]) -> None:
    if _State.json:
        print(json.dumps(value, indent=1, ensure_ascii=False))
        return
    shown = text()
    if isinstance(shown, str):
        print(shown)
    else:
        Console(width=None if sys.stdout.isatty() else 200).print(shown)


def _table(heads: list[str], rows: list[list[str]]) -> Table:
    table = Table(*heads, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    return table


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _score_table(entries: list[dict[str, Any]]) -> Table:
    """One line an entry; scores in percent."""
    names = entries[0]["classes"] if entries else []
    rows = []
    for e in entries:
        if "tags" in e:
            means = [_percent(e["tags"]["map"]), ""]
            each = [_percent(e["tags"]["average_precision"][n]) for n in names]
        else:
            low, high = e["ci95"]["miou"]
            means = [_percent(e["miou"]), "" if low is None else f"{_percent(low)}–{_percent(high)}"]
            each = [_percent(e["iou"][n]) for n in names]
        rows.append([e["step"], e["split"], e["protocol"], e["selection"], str(e["n_images"]), *means, *each])
    return _table(["step", "split", "protocol", "selected by", "images", "mIoU/mAP %", "95 %", *names], rows)


def _print_run(folder: Path) -> None:
    entries = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    _print({"run": str(folder), "scores": entries}, lambda: _score_table(entries))
    if not _State.json:
        print(f"report: {folder / 'report.html'}   (for research use only)")


def _print_summary(folder: Path) -> None:
    facts = verbs.describe_data(folder)
    rows = [
        [
            split,
            str(n["images"]),
            str(n["masks"]),
            str(n["patients"] or "–"),
            *(str(t["present"]) for t in n["tags"].values()),
        ]
        for split, n in facts["splits"].items()
    ]
    heads = ["split", "images", "masks", "patients", *(f"with {name}" for name in facts["classes"])]
    _print(facts, lambda: _table(heads, rows))
    if not _State.json:
        print(f"{facts['name']}: {facts['mpp'] or 'unknown'} um/px; licence: {facts['licence']}")


def _shown(work: Callable[[Any], Any]) -> Any:
    """Run a verb under progress bars, on standard error, so that output can be piped."""
    from eosin.core.progress import Silent

    if _State.json:
        return work(Silent())
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.2g}/s")

    console = Console(stderr=True, width=None if sys.stderr.isatty() else 140)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bars, _logged(bars.console.print):
        try:
            return work(_Bars(bars))
        except KeyboardInterrupt:
            _error("interrupted; finished steps are kept, the same command goes on from them")
            raise typer.Exit(130) from None


@contextmanager
def _logged(show: Callable[[str], None]) -> Iterator[None]:
    """Show what eosin logs (which weights were loaded, how many entries matched)."""
    handler = logging.Handler()
    handler.emit = lambda record: show(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("eosin")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)


class _Bars:
    """Shows progress as rich bars."""

    def __init__(self, bars: Any) -> None:
        self.bars = bars

    def start(self, what: str, total: int) -> Callable[[int, str], None]:
        task = self.bars.add_task(what, total=total, note="")
        return lambda done, note: self.bars.update(task, advance=done, note=note)

    def say(self, line: str) -> None:
        self.bars.console.print(line)
