"""``eosin predict``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from eosin import verbs
from eosin.cli.bars import shown
from eosin.cli.options import Json
from eosin.cli.show import State, print_, table


class RunBy(StrEnum):
    """What a model can be run by."""

    auto = "auto"
    torch = "torch"
    openvino = "openvino"
    onnx = "onnx"


class In(StrEnum):
    """What it can compute in."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"


class ReadBy(StrEnum):
    """What slides can be read by."""

    auto = "auto"
    openslide = "openslide"
    tifffile = "tifffile"


class Engine(StrEnum):
    """Where slides are predicted."""

    local = "local"
    ray = "ray"


class Palette(StrEnum):
    """Whose names and colours regions have."""

    model = "model"
    qupath = "qupath"


def predict(  # noqa: PLR0913, PLR0917 - its options
    model: Annotated[Path, typer.Argument(help="A run or a model folder.")],
    inputs: Annotated[list[Path], typer.Argument(help="Images and slides, or folders of them.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    mpp: Annotated[float | None, typer.Option(metavar="X", help="Micrometres per pixel of all slides.")] = None,
    mpp_csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A table of those, with columns wsi,mpp.")
    ] = None,
    tissue: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where tissue is: GeoJSON or mask, or a folder of them.")
    ] = None,
    abstain: Annotated[
        float | None, typer.Option(metavar="P", help="Write tissue less probable than this as uncertain.")
    ] = None,
    palette: Annotated[Palette, typer.Option(help="Names and colours of regions.")] = Palette.model,
    min_area: Annotated[float, typer.Option(metavar="UM2", help="Leave out smaller regions.")] = 0.0,
    simplify: Annotated[float, typer.Option(metavar="UM", help="Simplify outlines by so much.")] = 0.0,
    runtime: Annotated[RunBy, typer.Option(help="What runs the model.")] = RunBy.auto,
    precision: Annotated[In, typer.Option(help="What it computes in.")] = In.auto,
    batch: Annotated[int, typer.Option(min=1, help="Tiles at a time.")] = 16,
    reader: Annotated[ReadBy, typer.Option(help="What reads slides.")] = ReadBy.auto,
    engine: Annotated[Engine, typer.Option(help="Where slides are predicted.")] = Engine.local,
    address: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Of a Ray cluster.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what slides would take, and write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Segment slides (regions for QuPath, areas, class map, overview) and images (class PNG, overlay, areas)."""
    State.json = as_json
    asked: dict[str, Any] = {
        "batch": batch,
        "runtime": runtime.value,
        "precision": precision.value,
        "mpp": mpp,
        "mpp_csv": mpp_csv,
        "reader": reader.value,
        "tissue": tissue,
        "abstain": abstain,
        "palette": palette.value,
        "min_area": min_area,
        "simplify": simplify,
    }
    if dry_run:
        _survey(model, inputs, out, asked)
        return
    outcomes = shown(
        lambda progress: verbs.predict(
            model,
            inputs,
            out,
            **asked,
            engine=engine.value,
            address=address,
            progress=progress,
        )
    )
    rows = [{"image": str(o.source), "state": o.state, "reason": o.reason, "folder": str(o.folder)} for o in outcomes]
    print_(
        rows,
        lambda: table(
            ["image", "state", "result"], [[r["image"], r["state"], r["reason"] or r["folder"]] for r in rows]
        ),
    )
    if any(o.state == "failed" for o in outcomes):
        raise typer.Exit(1)


def _survey(model: Path, inputs: list[Path], out: Path, asked: dict[str, Any]) -> None:
    """``--dry-run``."""
    plans = shown(lambda progress: verbs.survey_slides(model, inputs, out, **asked, progress=progress))
    rows = [
        {
            "slide": str(p.source),
            "state": p.state,
            "reason": p.reason,
            "height": p.height,
            "width": p.width,
            "mpp": p.mpp,
            "mpp_from": p.mpp_from,
            "tiles": p.tiles,
            "minutes": p.minutes,
            "megabytes": p.megabytes,
        }
        for p in plans
    ]
    print_(rows, lambda: _plan_table(plans))
    if any(p.state == "failed" for p in plans):
        raise typer.Exit(1)


def _plan_table(plans: list[Any]) -> Table:
    rows = []
    for p in plans:
        if p.state == "failed":
            rows.append([str(p.source), p.reason, *[""] * 5])
            continue
        took = [f"{p.minutes:.1f}", f"{p.megabytes:,.0f}"] if p.state == "open" else [p.state, ""]
        rows.append([str(p.source), f"{p.width} x {p.height}", f"{p.mpp:.4g}", p.mpp_from, f"{p.tiles:,}", *took])
    rows.append(
        [
            f"{len(plans)} slides",
            "",
            "",
            "",
            f"{sum(p.tiles for p in plans if p.state == 'open'):,}",
            f"{sum(p.minutes for p in plans):.1f}",
            f"{sum(p.megabytes for p in plans):,.0f}",
        ]
    )
    return table(["slide", "pixels", "um/px", "from", "tiles", "minutes", "MB"], rows)
