"""A finished run's model in other forms: ONNX, OpenVINO, WSInfer."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eosin.core.errors import WrongUse
from eosin.core.lock import sole
from eosin.core.progress import SILENT, Progress
from eosin.verbs.finished import finished
from eosin.verbs.models import model_folder

if TYPE_CHECKING:
    from eosin.core.learner import Learner

To = Literal["onnx", "openvino", "wsinfer"]


def export(
    source: Path, to: To, out: Path | None = None, int8: Path | None = None, progress: Progress = SILENT
) -> dict[str, Any]:
    """Write a model in another form, beside its program or into a folder of its own; see ``eosin.predictor.export``.

    Args:
        source: a finished run or a model folder; for ``wsinfer`` a run, since its tag classifier is not in the folder.
        to: ``onnx``, ``openvino`` or ``wsinfer``.
        out: a folder that gets the form and a card; by default the model folder does.
        int8: for ``openvino``: folder of a data set, on whose training images it is calibrated to 8 bits.
        progress: is told what happens.

    Returns:
        ``folder``, ``form``, ``files``, ``max_difference``, ``argmax_agreement``, ``made_with`` and ``research_only``:
        the terms of data and weights that allow research only.

    Raises:
        WrongUse: if the source is none of these, or the form cannot be had of it.
        EosinError: if the form differs from the model, or a library is missing; nothing is left then.
    """
    from eosin.predictor.spec import Card, restricted

    if int8 is not None and to != "openvino":
        raise WrongUse(f"--int8 goes with --to openvino, not with {to}")
    folder = model_folder(source)
    target = out or folder
    with sole(source) if folder != source else nullcontext():
        if to == "wsinfer":
            form, export = "wsinfer", _wsinfer(source, folder, target, progress)
        elif int8 is not None:
            progress.say(f"calibrating it on {int8}, and comparing it with the program")
            form, export = "openvino-int8", _int8(folder, target, int8)
        else:
            progress.say(f"writing it as {to}, and comparing it with the program")
            form, export = to, _program(folder, target, to)
    made = [export.made_with] if form == "openvino-int8" and export.made_with else []
    return {
        "folder": str(target),
        "form": form,
        "files": sorted(export.files),
        **export.parity.model_dump(),
        "made_with": export.made_with,
        "research_only": restricted([*Card.read(folder).licences, *made]),
    }


def _program(folder: Path, target: Path, to: Literal["onnx", "openvino"]) -> Any:
    from eosin.engine.export import tissue
    from eosin.predictor.export import export_program
    from eosin.predictor.spec import Card

    return export_program(folder, target, to, tissue(Card.read(folder).tile))


def _int8(folder: Path, target: Path, data: Path) -> Any:
    from eosin.data.dataset import Dataset
    from eosin.engine.export import calibration
    from eosin.predictor.export import export_int8
    from eosin.predictor.spec import Card

    dataset = Dataset.open(data)
    tiles, judged = calibration(dataset.items("train"), Card.read(folder).tile)
    return export_int8(folder, target, tiles, judged, f"data {dataset.name}: {dataset.licence}")


def _wsinfer(source: Path, folder: Path, target: Path, progress: Progress) -> Any:
    from eosin.engine.export import TagOdds, tag_probabilities, tissue
    from eosin.predictor.export import export_wsinfer
    from eosin.predictor.spec import Card

    if folder == source:
        raise WrongUse(f"{source}: a model folder has no tag classifier for WSInfer; give the run that it was made by")
    card = Card.read(folder)
    step, learner = _tagger(source, progress)
    progress.say(f"tags are answered by step {step!r}")
    odds = [TagOdds(learner, tag) for tag in range(len(card.classes))]
    return export_wsinfer(folder, target, odds, tag_probabilities(learner), tissue(card.tile), step)


def _tagger(source: Path, progress: Progress) -> tuple[str, Learner]:
    """The last trained step that has tag scores of its own, else the one that the plan ends with, and its learner."""
    from eosin.core.learner import Learner
    from eosin.engine.weights import load

    _, lab, final = finished(source, progress)
    learners = {name: load(lab.build_of(trained), trained) for name, trained in lab.trained.items()}
    own = [name for name, learner in learners.items() if type(learner).tag_scores is not Learner.tag_scores]
    name = own[-1] if own else final
    return name, learners[name]
