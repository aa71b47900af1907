"""What a finished run shows of its method: it learns, answers, survives a kill, exports, and never saw the truth."""

from __future__ import annotations

import copy
import json
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from contracts.runs import Run
from contracts.tissue import truth
from eosin.core.fingerprint import file_digest
from eosin.core.learner import Learner
from eosin.core.values import Batch, Clock
from eosin.data.dataset import Dataset
from eosin.parts.losses.swv import SWV
from eosin.predictor.predictor import Predictor
from eosin.slides.image import read_rgb

MOST_DIFFERENCE, LEAST_AGREEMENT = 1e-4, 0.999
ODD = (61, 47)  # primes: no stride divides them


# -- it learns -----------------------------------------------------------------------------------------------------


def the_loss_of_each_fit_falls(run: Run) -> None:
    """Over the training items, with everything of the fit's last moment switched on."""
    lab = run.replay()
    assert lab.names("fit"), f"{run.subject.name} trains nothing"
    for call in map(lab.call, lab.names("fit")):
        clock = run.last(call.name)
        batches = run.batches(call, clock.steps // clock.epochs)
        before, after = (mean_loss(learner, batches, clock) for learner in (run.first(call), run.trained(call)))
        assert after < before, (
            f"{run.subject.name}, {call.name}: the loss of the training items was {before:.6g} before the fit and is "
            f"{after:.6g} after it; it does not fall"
        )


def mean_loss(learner: Learner, batches: list[Batch], clock: Clock) -> float:
    """All terms together, as in training; the learner is not changed.

    Votes do not weigh here. Networks agree more and more as they learn, and a pixel at which they agree weighs more:
    the weighted loss of a first few steps rises while that of every pixel falls.
    """
    learner = copy.deepcopy(learner).train()
    for module in learner.modules():
        if isinstance(module, SWV):
            module.agreed = module.split = 1.0
    total = 0.0
    for number, batch in enumerate(batches):
        torch.manual_seed(number)
        with torch.no_grad():
            total += sum(float(term) for term in learner(batch, clock).values())
    return total / len(batches)


# -- it answers ----------------------------------------------------------------------------------------------------


def every_learner_predicts_probabilities(run: Run) -> None:
    """At the size of the items, at an odd one, and at that of a large image."""
    lab, classes = run.replay(), len(run.dataset.classes)
    tissue = images(run.dataset, "val")[:3]
    large = images(run.dataset, "large")[0]
    for call in map(lab.call, [*lab.names("fit"), *lab.names("keep")]):
        learner = run.trained(call)
        for image in (torch.stack(tissue), torch.stack(tissue)[:2, :, : ODD[0], : ODD[1]], large[None]):
            where = f"{run.subject.name}, {call.name}, images {list(image.shape)}"
            with torch.inference_mode():
                maps, scores = learner.predict(image), learner.tag_scores(image)
            _is(maps, (len(image), classes, *image.shape[2:]), f"{where}: predict")
            worst = float((maps.sum(1) - 1).abs().max())
            assert worst <= 1e-4, f"{where}: predict sums to 1 only within {worst:.2g}"
            _is(scores, (len(image), classes), f"{where}: tag_scores")


def _is(found: Tensor, shape: tuple[int, ...], what: str) -> None:
    assert tuple(found.shape) == shape, f"{what} has shape {list(found.shape)}, not {list(shape)}"
    assert found.dtype == torch.float32, f"{what} is {found.dtype}, not float32"
    assert bool(found.isfinite().all()), f"{what} is not finite"
    low, high = float(found.min()), float(found.max())
    assert low >= 0 and high <= 1 + 1e-6, f"{what} is in {low:.3g}..{high:.3g}, not in 0..1"


def images(dataset: Dataset, split: str) -> list[Tensor]:
    """The images of a split, float32 ``[3, H, W]`` in 0..1."""
    items = dataset.items(split)
    return [torch.from_numpy(read_rgb(items.path(i))).permute(2, 0, 1).float() / 255 for i in range(len(items))]


# -- it survives ---------------------------------------------------------------------------------------------------


def a_killed_run_goes_on_to_the_same_weights(whole: Run, torn: Run, kept: int, code: int) -> None:
    """``torn`` had a checkpoint after ``kept`` steps, was killed later, ended with ``code``, and was started again.

    That the same weights are exported to the same bytes is what the tests of the engine see to.
    """
    name = whole.subject.name
    assert code == -signal.SIGKILL, f"{name}: the first process was to be killed, but ended with {code}"
    planned, before, after = whole.steps(), torn.steps(0), torn.steps(1)
    assert before == planned[: len(before)] and len(before) < len(planned), f"{name}: killed, but not while training"
    assert after == planned[kept:], (
        f"{name}: the newest checkpoint is of {planned[kept - 1]}, but the second process began at {after[:1]}"
    )
    for path in sorted(whole.folder.glob("steps/*/weights.safetensors")):
        _same(whole, torn, path.relative_to(whole.folder))
    expected, found = ([_told(line) for line in journal(run)] for run in (whole, torn))
    assert [line[:2] for line in found] == [line[:2] for line in expected], (
        f"{name}: the journal has {[line[:2] for line in found]}, not {[line[:2] for line in expected]}"
    )
    assert found == expected, f"{name}: the journal of the killed run tells other numbers"


def _same(whole: Run, torn: Run, path: Path) -> None:
    assert (torn.folder / path).is_file(), f"{whole.subject.name}: the killed run has no {path}"
    assert file_digest(torn.folder / path) == file_digest(whole.folder / path), (
        f"{whole.subject.name}: {path} differs between the killed run and the uninterrupted one"
    )


def journal(run: Run) -> list[dict[str, Any]]:
    """The lines of a run's journal."""
    return [json.loads(line) for line in (run.folder / "journal.jsonl").read_text().splitlines()]


def _told(line: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(line[key] for key in ("step", "epoch", "losses", "lr", "val", "kept"))


# -- it exports ----------------------------------------------------------------------------------------------------


def the_exported_model_is_the_deployed_learner(run: Run) -> None:
    """On tissue and on noise, one tile and five at a time, in float32."""
    lab = run.replay()
    learner, predictor = run.trained(lab.call(lab.final.name)), Predictor.load(run.folder / "model")
    tile = predictor.card.tile
    tissue = torch.stack([image[:, :tile, :tile] for image in images(run.dataset, "val")[:5]])
    noise = torch.rand(tissue.shape, generator=torch.Generator().manual_seed(0))
    for kind, pixels in (("tissue", tissue), ("noise", noise)):
        tiles = (pixels * 255).round().to(torch.uint8)
        for batch in (1, 5):
            with torch.inference_mode():
                expected = learner.predict(tiles[:batch].float() / 255)
            found = predictor(tiles[:batch].permute(0, 2, 3, 1).contiguous())
            difference = float((found - expected).abs().max())
            agreement = float((found.argmax(1) == expected.argmax(1)).float().mean())
            assert difference <= MOST_DIFFERENCE and agreement >= LEAST_AGREEMENT, (
                f"{run.subject.name}: the model folder differs from {lab.final.name} by {difference:.2g} and agrees in "
                f"{agreement:.2%} of the pixels ({kind}, batch of {batch})"
            )


# -- it never saw the truth ----------------------------------------------------------------------------------------


def noise_for_truth_changes_nothing(run: Run, spoiled: Run) -> None:
    """``spoiled`` ran on the same data with noise for training and test masks; only an upper bound may notice."""
    paths = sorted(path.relative_to(run.folder) for path in run.folder.glob("steps/*/weights.safetensors"))
    changed = [
        path.parent.name for path in paths if file_digest(run.folder / path) != file_digest(spoiled.folder / path)
    ]
    name = run.subject.name
    if run.subject.kind.supervision == "tags":
        assert not changed, f"{name}: {', '.join(changed)} came out differently with noise for truth: truth leaks"
    else:
        assert changed, f"{name}: learns from truth, but noise for truth changed no weights: this check sees nothing"


def no_training_truth_is_opened(run: Run) -> None:
    """Neither by Python code in any process, nor, as far as the system can tell (Linux), by any other."""
    name, audited, linux = run.subject.name, run.audited, sys.platform == "linux"
    seen = run.seen if linux else {Path(path).name for path in audited}
    items, masks, others = run.dataset.items("train"), truth(run.data, "train"), truth(run.data, "test")
    readers = {process for i in range(len(items)) for process in audited.get(str(items.path(i)), ())}
    assert len(readers) > 1, f"{name}: the processes that load images were not audited"
    assert {path.name for path in others} <= seen, f"{name}: that test masks were opened to score them was not seen"
    by_python = [path.name for path in masks if str(path) in audited]
    by_anyone = [path.name for path in masks if path.name in seen]
    if run.subject.kind.supervision == "truth":
        assert by_python and by_anyone, f"{name}: learns from truth, but no witness saw that: this check sees nothing"
        return
    assert not by_python, f"{name}: {len(by_python)} training masks were opened, {by_python[0]} among them"
    assert not by_anyone, f"{name}: C code opened {len(by_anyone)} training masks, {by_anyone[0]} among them"
