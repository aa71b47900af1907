"""What eosin does, one function a verb; the command line and ``import eosin`` offer the same ones.

This is where a recipe meets its method, and a method the engine; nothing below knows all three.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eosin.core.artifact import read_json, write_json, write_text
from eosin.core.errors import EosinError, Stale, WrongUse, nearest
from eosin.core.fingerprint import digest
from eosin.core.progress import Progress, Silent
from eosin.recipe import Recipe, dump, load

if TYPE_CHECKING:
    from eosin.data.dataset import Dataset
    from eosin.engine.lab import EngineLab

SILENT = Silent()


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
    from eosin.methods.discover import method as find_method
    from eosin.methods.discover import methods
    from eosin.recipe import validated
    from eosin.report.html import write_report

    resolved = load(recipe, overrides, {name: m.steps for name, m in methods().items()})
    kind = find_method(resolved.method)
    plan = validated(kind, resolved.options, f"options of {resolved.method}")
    fits = {step: resolved.fit_spec(step).model_dump(mode="json") for step in kind.steps}
    resolved = resolved.model_copy(update={"options": plan.model_dump(mode="json"), "fit": fits})
    out = out or Path("runs") / Path(recipe).stem
    before = out / "provenance.json"
    started = read_json(before)["started"] if before.exists() else datetime.now(UTC).isoformat(timespec="seconds")
    folder = data or _phantom(resolved, out, progress)
    dataset = Dataset.open(folder)
    _claim(out, resolved)
    if resolved.data.name not in ("", dataset.name):
        progress.say(f"this recipe was written for {resolved.data.name!r}; the data set is {dataset.name!r}")
    _say_known(dataset, progress)
    lab = EngineLab(Workplace(out, dataset, resolved, kind.supervision, progress, frozenset(redo)))
    final = plan.plan(lab)
    for split in [s for s in dataset.splits if s != "train"]:
        for step in lab.trained.values():
            lab.score(step, split)
    lab.export("export", final)
    write_text(out / "recipe.yaml", dump(resolved))  # only now: a stale run stopped before, and keeps its own
    write_json(out / "scores.json", lab.scores())
    write_json(out / "provenance.json", _provenance(lab, dataset, Path(recipe).stem, started))
    write_report(out)
    return out


def _say_known(dataset: Dataset, progress: Progress) -> None:
    for finding, reason in dataset.known.items():
        progress.say(f"{dataset.name} has a known defect, {finding.replace('_', ' ')}: {reason}")


def _claim(out: Path, recipe: Recipe) -> None:
    """Write the resolved recipe into a new run; refuse a run of another method."""
    path = out / "recipe.yaml"
    if not path.exists():
        write_text(path, dump(recipe))
    elif (before := load(str(path)).method) != recipe.method:
        raise Stale(f"{out}: holds a run of method {before!r}: choose another --out")


def _phantom(recipe: Recipe, out: Path, progress: Progress) -> Path:
    from eosin.data.phantom import REVISION, PhantomSpec, draw_dataset
    from eosin.recipe import validated

    if recipe.data.phantom is None:
        wanted = f" (it was written for {recipe.data.name!r})" if recipe.data.name else ""
        raise WrongUse(f"this recipe needs --data DIR{wanted}; 'eosin data import --help' shows how to make one")
    spec = validated(PhantomSpec, recipe.data.phantom, "data.phantom")
    folder = out.parent / "data" / f"phantom-{digest([spec, REVISION])[:10]}"
    if not folder.exists():
        draw_dataset(folder, spec, _counter(progress, "draw tissue"))
    return folder


def _counter(progress: Progress, what: str) -> Callable[[int, int], None]:
    """A (done, total) callback over a progress task."""
    advance: Callable[[int, str], None] | None = None
    seen = 0

    def count(done: int, total: int) -> None:
        nonlocal advance, seen
        advance = advance or progress.start(what, total)
        advance(done - seen, "")
        seen = done

    return count


def _provenance(lab: EngineLab, dataset: Dataset, name: str, started: str) -> dict[str, Any]:
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
        },
        "recipe": name,
        "recipe_digest": recipe.digest,
        "method": recipe.method,
        "steps": notes,
        "started": started,
        **lab.steps.times(),
    }


def _commit() -> str | None:
    """The commit of the source tree this package runs from, "+changes" if it was changed; None when installed."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    git = ["git", "-C", str(here)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False).stdout
    return (commit + ("+changes" if changes else "")) or None


def score(
    source: Path, data: Path, split: str = "test", protocol: str = "strict", progress: Progress = SILENT
) -> dict[str, Any]:
    """Score a run's exported model, or a model folder, on a split; always torch in float32.

    Args:
        source: a run's folder or a model folder.
        data: folder of a data set with the model's classes.
        split: which split.
        protocol: how it is scored.
        progress: is told what happens.

    Returns:
        The entry, as in ``scores.json``.

    Raises:
        EosinError: if the split has no truth, or the classes differ.
    """
    from eosin.data.dataset import Dataset
    from eosin.data.module import LabelledView
    from eosin.engine.evaluate import Tiling, count_view
    from eosin.metrics.protocols import Subject, find_protocol
    from eosin.predictor.predictor import Predictor

    predictor = Predictor.load(model_folder(source))
    dataset, card = Dataset.open(data), predictor.card
    if dataset.classes.names != card.classes.names:
        raise EosinError(
            f"{data}: its classes are {', '.join(dataset.classes.names)}, the model's {', '.join(card.classes.names)}"
        )
    _say_known(dataset, progress)
    truth = dataset.truth(split)
    if truth is None:
        raise EosinError(f"{data}: split {split!r} has no masks to score against")
    items, rule = dataset.items(split), find_protocol(protocol)(dataset.classes)
    advance = progress.start(f"score {split}", len(truth))
    index, counts = count_view(
        lambda tiles: predictor(tiles.permute(0, 2, 3, 1)),
        LabelledView(items, truth, dataset.classes.ignore),
        Tiling(card.tile, card.margin),
        rule,
        lambda item, prediction: advance(1, ""),
    )
    subject = Subject(dataset.name, split, "model", card.selection)
    return dict(rule.score_entry(subject, counts, items.patients[index]))


def model_folder(source: Path) -> Path:
    """The model folder of a run, or the folder itself if it is one.

    Raises:
        WrongUse: if it is neither.
    """
    for folder in (source / "model", source):
        if (folder / "card.json").is_file():
            return folder
    raise WrongUse(f"{source}: neither a finished run nor a model folder (no card.json)")


def predict(model: Path, images: Sequence[Path], out: Path, batch: int = 16, progress: Progress = SILENT) -> list[Any]:
    """Predict images of any size: class PNG, overlay with legend and a JSON per image. See ``eosin.wsi.run``."""
    from eosin.wsi.run import predict_images

    return list(predict_images(model_folder(model), images, out, batch=batch, progress=_counter(progress, "predict")))


def report(source: Path) -> Path:
    """Write ``report.html`` of a run anew; returns its path."""
    from eosin.report.html import write_report

    if not (source / "recipe.yaml").is_file():
        raise WrongUse(f"{source}: not a run (no recipe.yaml); give the folder that 'eosin run' wrote")
    return write_report(source)


def demo(out: Path = Path("runs/demo"), progress: Progress = SILENT) -> Path:
    """Drawn tissue, tags, training, scores, a predicted image and a report; returns the run's folder."""
    from eosin.data.dataset import Dataset

    run("cam-phantom", out=out, progress=progress)
    large = Dataset.open(read_json(out / "provenance.json")["dataset"]["folder"]).items("large")
    predict(out, [large.path(i) for i in range(len(large))], out / "predicted", progress=progress)
    return out


def import_data(form: str, source: Path, dest: Path, options: Sequence[str] = (), progress: Progress = SILENT) -> Path:
    """Turn data of a known format into a data set folder.

    Args:
        form: name of the format (``eosin list formats``).
        source: where the data lies.
        dest: the folder to write; must not exist.
        options: ``key=value`` of the format.
        progress: is told what happens.
    """
    from eosin.data.formats import import_dataset

    pairs = dict(option.partition("=")[::2] for option in options)
    settings = {key.replace("-", "_"): value for key, value in pairs.items()}
    import_dataset(form, source, dest, settings, _counter(progress, f"import {form}"))
    return dest


def check_data(folder: Path, progress: Progress = SILENT) -> list[Any]:
    """All findings about a data set; see ``eosin.data.check``."""
    from eosin.data.check import check

    return list(check(folder, _counter(progress, "check")))


def describe_data(folder: Path) -> dict[str, Any]:
    """Images, tags, patients and co-occurrence of a data set, ready for JSON."""
    from eosin.data.check import summary
    from eosin.data.dataset import Dataset

    return summary(Dataset.open(folder))


def doctor() -> tuple[dict[str, str], list[str]]:
    """What this machine offers, and what keeps eosin from working, each defect with its mend."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from eosin import __version__, _compat
    from eosin.engine.device import open_device

    defects = []
    facts = {"eosin": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in ("torch", "torchvision", "timm", "segmentation-models-pytorch", "accelerate"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            defects.append(f"{package} is not installed: pip install -c constraints.txt .")
    facts["torchvision binary"] = _compat.state()
    device = open_device("auto")
    facts["device"] = f"{device.name}, {torch.get_num_threads()} threads"
    facts["precision"] = f"{device.precision} (what fit.precision = auto takes here)"
    for extra, package in {"cpu": "openvino", "onnx": "onnxruntime", "ray": "ray"}.items():
        try:
            facts[f"extra {extra}"] = version(package)
        except PackageNotFoundError:
            facts[f"extra {extra}"] = "not installed"
    return facts, defects


def list_known(what: str) -> list[tuple[str, str]]:
    """Names and one-line descriptions of ``methods``, ``recipes``, ``formats``, ``protocols`` or ``parts``."""
    if what == "methods":
        from eosin.methods.discover import methods

        return [(name, (m.__doc__ or "").strip().splitlines()[0]) for name, m in methods().items()]
    if what == "recipes":
        from eosin.recipe import shipped

        return [(name, text.splitlines()[0].lstrip("# ")) for name, text in shipped().items()]
    if what == "formats":
        from eosin.data.formats import importers

        return [(name, importer.DESCRIPTION) for name, importer in importers().items()]
    if what == "protocols":
        from eosin.metrics.protocols import PROTOCOLS

        return [(name, (p.__doc__ or "").strip().splitlines()[0]) for name, p in PROTOCOLS.items()]
    if what == "parts":
        from importlib import import_module
        from pkgutil import walk_packages

        import eosin.parts

        found = [m.name for m in walk_packages(eosin.parts.__path__, "eosin.parts.") if not m.ispkg]
        return [(n.removeprefix("eosin.parts."), (import_module(n).__doc__ or "").splitlines()[0]) for n in found]
    raise WrongUse(f"cannot list {what!r}{nearest(what, ['methods', 'recipes', 'formats', 'protocols', 'parts'])}")
