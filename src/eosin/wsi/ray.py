"""Predicting slides on a Ray cluster. The unit of work is a slide, and every worker does just what a local one does.

Workers read the model and the slides, and write the results, by the same paths as the process that sends them: the
folders must be shared by all machines. Nothing but the names of files and a few lines of outcome is sent.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from eosin.core.errors import EosinError, WrongUse
from eosin.core.progress import SILENT, Progress
from eosin.predictor.predictor import Predictor
from eosin.wsi.inputs import Job, Outcome
from eosin.wsi.run import predict_slides
from eosin.wsi.settings import Model, Settings

_STORE = 200_000_000  # bytes for what is sent between workers, which is little


def predict_on_ray(
    model: Model, slides: Sequence[Job], out: Path, settings: Settings, progress: Progress, address: str | None = None
) -> list[Outcome]:
    """Predict slides as ``eosin.wsi.run.predict_slides`` does, by the workers of a cluster.

    A worker takes as many cores as torch takes in this process (``OMP_NUM_THREADS`` says how many).

    Args:
        model: the model folder, which every worker loads once.
        slides: as ``eosin.wsi.inputs.jobs`` gives them.
        out: folder of all results.
        settings: the user's choices.
        progress: is told which slides are done.
        address: of a cluster (``auto``, ``ray://...``, ``host:port``); None starts one on this machine.

    Returns:
        One outcome for each slide, in their order.

    Raises:
        EosinError: if Ray is not installed, the cluster cannot be reached, or a worker died.
        WrongUse: if the settings fit no slide.
    """
    ray = _library()
    cores = torch.get_num_threads()
    local = {"num_cpus": os.cpu_count(), "include_dashboard": False, "object_store_memory": _STORE}
    try:
        ray.init(address=address, log_to_driver=False, **({} if address else local))
    except (ConnectionError, ValueError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0]
        raise EosinError(f"--address {address}: no Ray cluster answers there ({line:.120})") from None
    try:
        worker = ray.remote(num_cpus=cores, max_retries=3)(work)
        paths = [_absolute(job) for job in slides]
        sent = (_folder(model), settings, out.resolve(), cores)
        running = {worker.remote(job, *sent): place for place, job in enumerate(paths)}
        outcomes: dict[int, Outcome] = {}
        advance = progress.start("slides", len(slides))
        while running:
            (done, *_), _ = ray.wait(list(running))
            place = running.pop(done)
            outcomes[place] = _outcome(slides[place], _answer(ray, done, slides[place]))
            advance(1, "")
    finally:
        ray.shutdown()
    return [outcomes[place] for place in range(len(slides))]


def work(job: Job, model: Model, settings: Settings, out: Path, cores: int) -> dict[str, Any]:
    """What a worker does: predict one slide, as a local process would.

    Returns:
        The outcome's fields; under ``wrong`` the line of a wrong use, which ends all.
    """
    torch.set_num_threads(cores)
    try:
        (outcome,) = predict_slides(_loaded(model), [job], out, settings, SILENT)
    except WrongUse as error:
        return {"wrong": str(error)}
    return asdict(outcome)


@lru_cache(maxsize=1)
def _loaded(model: Model) -> Predictor:
    """The model, once for a worker."""
    return model.load()


def _answer(ray: Any, done: Any, job: Job) -> dict[str, Any]:
    """What a worker answered.

    Raises:
        EosinError: if it died more often than it is started again.
    """
    try:
        answer: dict[str, Any] = ray.get(done)
    except ray.exceptions.RayError as error:
        line = str(error).strip().splitlines()[-1]
        raise EosinError(f"{job.source}: a Ray worker ended ({line:.120}); give the same command again") from None
    return answer


def _outcome(job: Job, answer: dict[str, Any]) -> Outcome:
    if "wrong" in answer:
        raise WrongUse(answer["wrong"])
    return Outcome(job.source, job.folder, answer["state"], answer["reason"], answer["seconds"])


def _absolute(job: Job) -> Job:
    return Job(job.source.resolve(), job.folder.resolve())


def _folder(model: Model) -> Model:
    return Model(model.folder.resolve(), model.precision, model.runtime)


def _library() -> Any:
    """Ray, which is told beforehand not to tell its makers that it is used.

    Raises:
        EosinError: if it is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise EosinError("--engine ray: Ray is not installed: pip install 'eosin[ray]'") from None
    return ray
