"""What a model sees in images and slides."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eosin.core.errors import EosinError, WrongUse
from eosin.core.progress import SILENT, Progress, counter
from eosin.verbs.models import model_folder

if TYPE_CHECKING:
    from eosin.predictor.choose import Auto
    from eosin.predictor.predictor import Predictor
    from eosin.predictor.spec import Precision, Runtime
    from eosin.slides.open import Reader
    from eosin.wsi.inputs import Job, Outcome
    from eosin.wsi.options import Palette
    from eosin.wsi.settings import Model, Settings
    from eosin.wsi.survey import Plan

Engine = Literal["local", "ray"]


def predict(  # noqa: PLR0913 - its options
    model: Path,
    inputs: Sequence[Path],
    out: Path,
    batch: int = 16,
    runtime: Runtime | Auto = "auto",
    precision: Precision | Auto = "auto",
    *,
    mpp: float | None = None,
    mpp_csv: Path | None = None,
    reader: Reader = "auto",
    tissue: Path | None = None,
    abstain: float | None = None,
    palette: Palette = "model",
    min_area: float = 0.0,
    simplify: float = 0.0,
    engine: Engine = "local",
    address: str | None = None,
    progress: Progress = SILENT,
) -> list[Any]:
    """Predict images and slides of any size into ``out/<name>/``.

    Images are predicted pixel by pixel (class PNG, overlay with legend, JSON); slides, and images of which ``mpp`` or
    ``mpp_csv`` says how large their pixels are, at the model's pixel size and where they have tissue (class map as a
    pyramid, regions for QuPath, areas, overview, JSON). See ``eosin.wsi.images`` and ``eosin.wsi.run``.

    Args:
        model: a run's folder or a model folder.
        inputs: files, or folders of which all images and slides are taken.
        out: folder of the results.
        batch: most tiles in one call of the model.
        runtime: what runs the model; see ``eosin.predictor.choose``.
        precision: what it computes in; likewise.
        mpp: micrometres per pixel of all slides, at full resolution.
        mpp_csv: a table of those, with columns wsi,mpp.
        reader: what reads slides.
        tissue: GeoJSON or mask of the tissue, or a folder with one for each slide.
        abstain: tissue less probable than this is written as "uncertain".
        palette: names and colours of the regions.
        min_area: regions smaller than this, in square micrometres, are left out of the GeoJSON.
        simplify: micrometres that outlines may be simplified by.
        engine: ``ray`` predicts slides on a cluster.
        address: of the cluster.
        progress: is told what happens, and what was chosen.

    Returns:
        One outcome for each file.

    Raises:
        EosinError: if the model cannot be run, or a folder holds neither images nor slides.
        WrongUse: for options that do not fit together.
    """
    if address is not None and engine != "ray":
        raise WrongUse(f"--address {address} has no meaning without --engine ray")
    settings = _settings(batch, reader, mpp, mpp_csv, tissue, abstain, palette, min_area, simplify)
    images, slides = _sorted(inputs, out, settings, progress)
    chosen = _chosen(model, runtime, precision, progress)
    load = cache(chosen.load)
    outcomes: list[Outcome] = []
    if slides and engine == "ray":
        from eosin.wsi.ray import predict_on_ray

        outcomes += predict_on_ray(chosen, slides, out, settings, progress, address)
    elif slides:
        from eosin.wsi.run import predict_slides

        outcomes += predict_slides(load(), slides, out, settings, progress)
    if images:
        outcomes += _predict_images(load(), images, out, batch, progress)
    if slides:
        from eosin.wsi.areas import write_all_areas

        write_all_areas(out)
    order = {job.folder: place for place, job in enumerate(_jobs(inputs, out))}
    return sorted(outcomes, key=lambda outcome: order[outcome.folder])


def survey_slides(  # noqa: PLR0913 - its options
    model: Path,
    inputs: Sequence[Path],
    out: Path,
    batch: int = 16,
    runtime: Runtime | Auto = "auto",
    precision: Precision | Auto = "auto",
    *,
    mpp: float | None = None,
    mpp_csv: Path | None = None,
    reader: Reader = "auto",
    tissue: Path | None = None,
    abstain: float | None = None,
    palette: Palette = "model",
    min_area: float = 0.0,
    simplify: float = 0.0,
    progress: Progress = SILENT,
) -> list[Plan]:
    """Say what the prediction of slides would take, without writing anything; see :func:`predict`.

    Returns:
        One plan for each slide; images are left out.
    """
    from eosin.wsi.survey import survey

    settings = _settings(batch, reader, mpp, mpp_csv, tissue, abstain, palette, min_area, simplify)
    _, slides = _sorted(inputs, out, settings, progress)
    predictor = _chosen(model, runtime, precision, progress).load()
    advance, plans = progress.start("look", len(slides)), []
    for plan in survey(predictor, slides, settings):
        plans.append(plan)
        advance(1, "")
    return plans


def _settings(
    batch: int,
    reader: Reader,
    mpp: float | None,
    mpp_csv: Path | None,
    tissue: Path | None,
    abstain: float | None,
    palette: Palette,
    min_area: float,
    simplify: float,
) -> Settings:
    from eosin.slides.pixel_size import read_table
    from eosin.wsi.options import OutcomeOptions
    from eosin.wsi.settings import Settings

    if tissue is not None and not tissue.exists():
        raise EosinError(f"{tissue}: no such file or folder; --tissue names a GeoJSON, a mask, or a folder of them")
    table = None if mpp_csv is None else read_table(mpp_csv)
    outcome = OutcomeOptions(abstain, palette, min_area, simplify)
    return Settings(batch, reader, mpp, table, tissue, outcome)


def _jobs(inputs: Sequence[Path], out: Path) -> list[Job]:
    from eosin.wsi.inputs import jobs

    return jobs(inputs, out)


def _sorted(inputs: Sequence[Path], out: Path, settings: Settings, progress: Progress) -> tuple[list[Job], list[Job]]:
    """Images and slides."""
    from eosin.wsi.inputs import goes_as_slide

    images: list[Job] = []
    slides: list[Job] = []
    for job in _jobs(inputs, out):
        sized = settings.mpp is not None or settings.table is not None
        (slides if goes_as_slide(job.source, sized) else images).append(job)
    asked = settings.outcome
    ours = {
        "--tissue": settings.tissue is not None,
        "--abstain": asked.abstain is not None,
        "--palette": asked.palette != "model",
        "--min-area": asked.min_area > 0,
        "--simplify": asked.simplify > 0,
    }
    if images and not slides and (idle := [option for option, given in ours.items() if given]):
        raise WrongUse(
            f"{images[0].source}: {idle[0]} is for slides, and for images whose pixel size is given; "
            "add --mpp or --mpp-csv"
        )
    if settings.tissue is not None and settings.tissue.is_file() and len(slides) != 1:
        raise WrongUse(
            f"--tissue {settings.tissue}: one file for {len(slides)} slides; name a folder with one for each"
        )
    called = {name for job in slides for name in (job.source.name, job.source.stem)}
    if idle := sorted(set(settings.table or ()) - called):
        more = f" and {len(idle) - 3} more" if len(idle) > 3 else ""
        progress.say(f"--mpp-csv: there is no slide {', '.join(idle[:3])}{more} here")
    return images, slides


def _chosen(model: Path, runtime: Runtime | Auto, precision: Precision | Auto, progress: Progress) -> Model:
    from eosin.predictor.choose import choose
    from eosin.wsi.settings import Model

    folder = model_folder(model)
    taken, computed = choose(folder, runtime, precision)
    progress.say(f"{taken} in {computed}")
    return Model(folder, computed, taken)


def _predict_images(
    predictor: Predictor, images: Sequence[Job], out: Path, batch: int, progress: Progress
) -> list[Outcome]:
    from eosin.wsi.images import predict_images
    from eosin.wsi.summary import end, write_summary

    outcomes = predict_images(predictor, images, batch=batch, progress=counter(progress, "predict"))
    for outcome in outcomes:
        if outcome.state != "skipped":
            minutes = round(outcome.seconds / 60, 2)
            end(out, outcome.folder.name, outcome.state, reason=outcome.reason, minutes=minutes)
    write_summary(out)
    return outcomes
