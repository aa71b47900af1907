"""Training a recipe: where it meets its method, and the method the engine; nothing below knows all three."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any

from eosin.core.artifact import read_json, write_json, write_text
from eosin.core.errors import Stale, WrongUse
from eosin.core.fingerprint import digest
from eosin.core.lock import alone, sole
from eosin.core.progress import SILENT, Progress, counter
from eosin.recipe import Recipe, dump, load, validated
from eosin.verbs.data import say_known
from eosin.verbs.predict import predict

if TYPE_CHECKING:
    from eosin.data.dataset import Dataset
    from eosin.engine.lab import EngineLab
    from eosin.engine.workplace import Workplace
    from eosin.methods.method import Method


def run(
    recipe: str,
    data: Path | None = None,
    out: Path | None = None,
    overrides: Sequence[str] = (),
    redo: Sequence[str] = (),
    start: Path | None = None,
    fraction: float = 1.0,
    track: Sequence[str] = (),
    reuse: Path | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Train, score on every labelled split, export and report.

    Args:
        recipe: a shipped recipe's name, a method's name, or a YAML file.
        data: folder of a data set; phantom recipes draw their own when it is missing.
        out: the run's folder; ``runs/<recipe>`` by default. Finished steps in it are reused.
        overrides: ``key=value`` changes to the recipe.
        redo: steps to do again, with all that was made from them.
        start: another run; every trained step begins with the weights of its step of the same name.
        fraction: train on this share of the training items only, whole patients as far as it goes, by the seed.
        track: ``tensorboard`` or ``mlflow``: what is told besides what the journal holds.
        reuse: a folder of runs; what one of them has made in the same way is taken from it.
        progress: is told what happens.

    Returns:
        The run's folder.

    Raises:
        WrongUse: for a recipe, option or data set that does not fit.
        Stale: if the folder holds steps of other settings.
        EosinError: if another process works in the folder.
    """
    from eosin.data.dataset import Dataset
    from eosin.data.fraction import fraction_of
    from eosin.engine.device import open_team
    from eosin.engine.track import trackers
    from eosin.engine.workplace import Start, Workplace
    from eosin.parts.backbones.encoder import pretrained_from
    from eosin.parts.backbones.known import terms

    resolved, plan = resolve(recipe, overrides)
    if reuse is not None and not reuse.is_dir():
        raise WrongUse(f"--reuse {reuse}: no such folder; give one that holds runs")
    out = out or Path("runs") / Path(recipe).stem
    asked = trackers(track, out, resolved)
    with ExitStack() as stack:
        team = stack.enter_context(open_team())
        progress = progress if team.leads else SILENT
        team.first(lambda: stack.enter_context(sole(out)))
        told = [stack.enter_context(tracker) for tracker in asked] if team.leads else []
        folder = team.first(lambda: data or drawn(resolved, out.parent / "data", progress))
        whole = Dataset.open(folder)
        dataset = fraction_of(whole, fraction, resolved.seed)
        starting = Start.of(start) if start is not None else None
        if starting is not None:
            starting.check(out, dataset.classes, plan.rounds_of())
        team.first(lambda: _claim(out, resolved))
        _say_data(resolved, whole, dataset, progress)
        again, listeners = frozenset(redo), tuple(told)
        for option, source in resolved.options.items():
            if option.endswith("pretrained"):
                pretrained_from(source)  # its own step may come hours later
        weights = terms(resolved.options)
        place = Workplace(
            out, dataset, resolved, plan.supervision, progress, again, starting, team, listeners, weights, reuse
        )
        taken = {"digest": whole.digest, "fraction": fraction}
        _carry_out(plan, place, taken, Path(recipe).stem)
    return out


def _carry_out(plan: Method, place: Workplace, taken: dict[str, Any], name: str) -> None:
    """Let the method's plan run, score and export what it made, and write down how it came about."""
    from eosin.engine.lab import EngineLab
    from eosin.report.html import write_report

    out, before = place.run, place.run / "provenance.json"
    started = read_json(before)["started"] if before.exists() else datetime.now(UTC).isoformat(timespec="seconds")
    lab = EngineLab(place)
    final = plan.plan(lab)
    for split in [s for s in place.dataset.splits if s != "train"]:
        for step in lab.trained.values():
            lab.score(step, split)
        lab.illustrate(final, split)
        for step in lab.trained.values():
            lab.view(step, split)
    lab.export("export", final)

    def write() -> None:
        write_text(out / "recipe.yaml", dump(place.recipe))  # only now: a stale run stopped before, and keeps its own
        write_json(out / "scores.json", lab.scores())
        write_json(before, _provenance(lab, place, taken, final.name, name, started))
        write_report(out)
        lab.steps.end()

    place.team.first(write)


def _say_data(recipe: Recipe, whole: Dataset, dataset: Dataset, progress: Progress) -> None:
    """Tell what should be known of the data before it is trained on."""
    from eosin.data.fraction import count_units, missing_classes

    if recipe.data.name not in ("", whole.name):
        progress.say(f"this recipe was written for {recipe.data.name!r}; the data set is {whole.name!r}")
    say_known(whole, progress)
    if dataset is not whole:
        items = dataset.items("train")
        progress.say(
            f"training on {len(items):,} of {len(whole.items('train')):,} items, {count_units(items):,} patients"
        )
        if (line := missing_classes(whole, dataset)) is not None:
            progress.say(line)


def resolve(recipe: str, overrides: Sequence[str] = ()) -> tuple[Recipe, Method]:
    """Load a recipe with every default filled in, and the method with the recipe's options.

    Raises:
        WrongUse: for anything that is not known or cannot be, in one line.
    """
    from eosin.methods.discover import method as find_method
    from eosin.methods.discover import methods

    read = load(recipe, overrides, {name: m.steps for name, m in methods().items()})
    kind = find_method(read.method)
    plan = validated(kind, read.options, f"options of {read.method}")
    fits = {step: read.fit_spec(step).model_dump(mode="json") for step in plan.rounds_of()}
    return read.model_copy(update={"options": plan.model_dump(mode="json"), "fit": fits}), plan


def demo(out: Path = Path("runs/demo"), progress: Progress = SILENT) -> Path:
    """Drawn tissue, tags, training, scores, a predicted image and a report; returns the run's folder."""
    from eosin.data.dataset import Dataset

    run("cam-phantom", out=out, progress=progress)
    large = Dataset.open(read_json(out / "provenance.json")["dataset"]["folder"]).items("large")
    predict(out, [large.path(i) for i in range(len(large))], out / "predicted", progress=progress)
    return out


def _claim(out: Path, recipe: Recipe) -> None:
    """Write the resolved recipe into a new run; refuse a run of another method."""
    path = out / "recipe.yaml"
    if not path.exists():
        write_text(path, dump(recipe))
    elif (before := load(str(path)).method) != recipe.method:
        raise Stale(f"{out}: holds a run of method {before!r}: choose another --out")


def drawn(recipe: Recipe, out: Path, progress: Progress) -> Path:
    """Draw the tissue that a recipe asks for into a folder of ``out``, or find it there.

    Raises:
        WrongUse: if the recipe needs data of the user.
    """
    from eosin.data.phantom import REVISION, PhantomSpec, draw_dataset

    if recipe.data.phantom is None:
        wanted = f" (it was written for {recipe.data.name!r})" if recipe.data.name else ""
        raise WrongUse(f"this recipe needs --data DIR{wanted}; 'eosin data import --help' shows how to make one")
    spec = validated(PhantomSpec, recipe.data.phantom, "data.phantom")
    folder = out / f"phantom-{digest([spec, REVISION])[:10]}"
    with alone(out / f".{folder.name}.lock", lambda: sleep(1)):  # of runs that begin together, one draws
        if not folder.exists():
            draw_dataset(folder, spec, counter(progress, "draw tissue"))
    return folder


def _provenance(
    lab: EngineLab, place: Workplace, taken: dict[str, Any], final: str, name: str, started: str
) -> dict[str, Any]:
    import torch

    from eosin import __version__
    from eosin.data.fraction import count_units
    from eosin.engine.device import open_device

    recipe, dataset, notes = lab.recipe, place.dataset, lab.step_notes()
    return {
        "eosin": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": open_device("fp32").name,
        "threads": torch.get_num_threads(),
        "precision": ", ".join(sorted({n["precision"] for n in notes.values() if "precision" in n})) or None,
        "commit": _commit(),
        "seed": recipe.seed,
        "dataset": {
            "name": dataset.name,
            "folder": str(dataset.folder),
            "licence": dataset.licence,
            "citation": dataset.citation,
            "known": dataset.known,
            "fold": dataset.fold.model_dump() if dataset.fold else None,
            **taken,
            "training_items": len(lab.items),
            "training_patients": count_units(lab.items),
        },
        "start": None if place.start is None else str(place.start.run),
        "processes": place.team.world,
        "recipe": name,
        "recipe_digest": recipe.digest,
        "method": recipe.method,
        "steps": notes,
        "started": started,
        "final": final,
        "peak_memory_mb": max((n["memory_mb"] for n in notes.values() if n.get("memory_mb")), default=None),
        **lab.steps.costs(),
    }


def _commit() -> str | None:
    """The commit of the source tree this package runs from, "+changes" if it was changed; None when installed."""
    here = Path(__file__).resolve().parents[3]
    if not (here / ".git").exists():
        return None
    git = ["git", "-C", str(here)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False).stdout
    return (commit + ("+changes" if changes else "")) or None
