"""Training a recipe: where it meets its method, and the method the engine; nothing below knows all three."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eosin.core.artifact import read_json, write_json, write_text
from eosin.core.errors import Stale, WrongUse
from eosin.core.fingerprint import digest
from eosin.core.progress import SILENT, Progress, counter
from eosin.recipe import Recipe, dump, load, validated
from eosin.verbs.data import say_known
from eosin.verbs.models import predict

if TYPE_CHECKING:
    from eosin.data.dataset import Dataset
    from eosin.engine.lab import EngineLab
    from eosin.methods.method import Method


def run(
    recipe: str,
    data: Path | None = None,
    out: Path | None = None,
    overrides: Sequence[str] = (),
    redo: Sequence[str] = (),
    progress: Progress = SILENT,
) -> Path:
    """Train, score on every labelled split, export and report.

    Args:
        recipe: a shipped recipe's name, a method's name, or a YAML file.
        data: folder of a data set; phantom recipes draw their own when it is missing.
        out: the run's folder; ``runs/<recipe>`` by default. Finished steps in it are reused.
        overrides: ``key=value`` changes to the recipe.
        redo: finished steps to do again, with all that was made from them.
        progress: is told what happens.

    Returns:
        The run's folder.

    Raises:
        WrongUse: for a recipe, option or data set that does not fit.
        Stale: if the folder holds steps of other settings.
    """
    from eosin.data.dataset import Dataset
    from eosin.engine.lab import EngineLab, Workplace
    from eosin.report.html import write_report

    resolved, plan = resolve(recipe, overrides)
    out = out or Path("runs") / Path(recipe).stem
    before = out / "provenance.json"
    started = read_json(before)["started"] if before.exists() else datetime.now(UTC).isoformat(timespec="seconds")
    folder = data or drawn(resolved, out.parent / "data", progress)
    dataset = Dataset.open(folder)
    _claim(out, resolved)
    if resolved.data.name not in ("", dataset.name):
        progress.say(f"this recipe was written for {resolved.data.name!r}; the data set is {dataset.name!r}")
    say_known(dataset, progress)
    lab = EngineLab(Workplace(out, dataset, resolved, plan.supervision, progress, frozenset(redo)))
    final = plan.plan(lab)
    for split in [s for s in dataset.splits if s != "train"]:
        for step in lab.trained.values():
            lab.score(step, split)
        lab.illustrate(final, split)
    lab.export("export", final)
    write_text(out / "recipe.yaml", dump(resolved))  # only now: a stale run stopped before, and keeps its own
    write_json(out / "scores.json", lab.scores())
    write_json(out / "provenance.json", _provenance(lab, final.name, dataset, Path(recipe).stem, started))
    write_report(out)
    return out


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
    fits = {step: read.fit_spec(step).model_dump(mode="json") for step in kind.steps}
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
    if not folder.exists():
        draw_dataset(folder, spec, counter(progress, "draw tissue"))
    return folder


def _provenance(lab: EngineLab, final: str, dataset: Dataset, name: str, started: str) -> dict[str, Any]:
    import torch

    from eosin import __version__
    from eosin.engine.device import open_device

    recipe, notes = lab.recipe, lab.step_notes()
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
            "digest": dataset.digest,
            "folder": str(dataset.folder),
            "licence": dataset.licence,
            "citation": dataset.citation,
            "known": dataset.known,
            "fold": dataset.fold.model_dump() if dataset.fold else None,
        },
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
