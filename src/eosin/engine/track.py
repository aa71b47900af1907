"""Experiment trackers that are told what a run's journal says: TensorBoard and MLflow, where they are asked for."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from eosin.core.artifact import read_json, write_json
from eosin.core.errors import EosinError, WrongUse, nearest
from eosin.recipe import Recipe, dump

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from torch.utils.tensorboard import SummaryWriter

HOME = "tracking"  # the folder in a run that all of this lies in
# MLflow's limits: characters of a parameter's value, parameters of one request
LONGEST_VALUE, MOST_PARAMS = 6000, 100
PLAIN = re.compile(r"[\w\- ]+")  # what the part of a parameter's name between two dots may be


class Tracker(ABC):
    """Tells a tracking program what the journal says; a context that ends with the run. A ``Listener``.

    A run that is refused must leave alone what an earlier one told. So nothing is told when the journal is opened, but
    with the first thing that happens to it, or at the good end of the run.

    Args:
        run: the run's folder.
        recipe: the resolved recipe.
    """

    def __init__(self, run: Path, recipe: Recipe) -> None:
        self.run, self.recipe = run, recipe
        self._opened: list[dict[str, Any]] | None = None  # what the journal said when it was opened
        self._told: list[dict[str, Any]] | None = None  # what was told since

    def replay(self, entries: list[dict[str, Any]]) -> None:
        """Take away what was told and tell these entries, if they are not the same."""
        if self._opened is None:
            self._opened = entries
        elif entries != self._told:
            self._anew(entries)

    def write(self, entry: dict[str, Any]) -> None:
        """Tell one more entry."""
        told = self._anew(self._opened or []) if self._told is None else self._told
        self._tell(entry)
        told.append(entry)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._told is None:
            self._anew(self._opened or [])
        self._end("FINISHED" if kind is None else "FAILED" if issubclass(kind, Exception) else "KILLED")

    def _anew(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self._begin()
        for entry in entries:
            self._tell(entry)
        self._told = list(entries)
        return self._told

    @abstractmethod
    def _begin(self) -> None:
        """Take away what this run told before, and tell the recipe."""

    @abstractmethod
    def _tell(self, entry: dict[str, Any]) -> None:
        """Tell the numbers of an entry."""

    @abstractmethod
    def _end(self, how: str) -> None:
        """Close what is open, if anything; ``how`` is FINISHED, FAILED or KILLED."""


class TensorBoard(Tracker):
    """Event files in ``RUN/tracking/tensorboard``."""

    SUFFIX = ".eosin"  # of our event files; others in the folder stay
    _writer: SummaryWriter | None = None

    def _begin(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._end("")
        folder = self.run / HOME / "tensorboard"
        for old in folder.glob(f"events.out.tfevents.*{self.SUFFIX}"):
            # A TensorBoard that is open meanwhile goes on to the next file only if the one it reads is still there,
            # and purge_step then makes it forget what it has read.
            if old.stat().st_size:
                old.write_bytes(b"")
            else:
                old.unlink()
        self._writer = SummaryWriter(str(folder), purge_step=0, filename_suffix=self.SUFFIX)
        self._writer.add_text("recipe", f"```yaml\n{dump(self.recipe)}```", 0)

    def _tell(self, entry: dict[str, Any]) -> None:
        assert self._writer is not None
        for name, value in numbers(entry).items():
            self._writer.add_scalar(name, value, entry["epoch"])
        self._writer.flush()

    def _end(self, how: str) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class MLflow(Tracker):
    """One MLflow run, on the server that ``MLFLOW_TRACKING_URI`` names or else in ``RUN/tracking/mlflow``.

    On a server, what this run told before is found by the tag ``eosin.run``, which is kept in
    ``RUN/tracking/mlflow.json`` before anything is told: no kill can part the two.
    """

    def __init__(self, run: Path, recipe: Recipe) -> None:
        super().__init__(run, recipe)
        self._store = run.resolve() / HOME / "mlflow"
        self._record = run / HOME / "mlflow.json"
        self._uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        self._experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "eosin") if self._uri else "eosin"
        self._client: MlflowClient | None = None
        self._id = ""
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when MLflow is imported
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # results go there
        if not self._uri:  # newer versions refuse a store of files unless it is allowed
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")

    def _begin(self) -> None:
        from mlflow import MlflowClient

        mark = self._mark()
        self._client = None  # the former run is no more
        with self._reached():
            client = MlflowClient(self._uri or self._store.as_uri())
            experiment = self._emptied(client, mark)
            made = client.create_run(experiment, tags={"eosin.run": mark}, run_name=self.run.resolve().name)
        self._client, self._id = client, made.info.run_id
        write_json(self._record, {"eosin_run": mark, "mlflow_run": self._id})
        self._log(params=flat(self.recipe.model_dump(exclude_none=True, mode="json")))

    def _tell(self, entry: dict[str, Any]) -> None:
        self._log(metrics=numbers(entry), step=entry["epoch"])

    def _end(self, how: str) -> None:
        if self._client is not None:
            with self._reached():
                self._client.set_terminated(self._id, how)
            self._client = None

    def _mark(self) -> str:
        """What tells this run from all others on a server."""
        if self._record.exists():
            return str(read_json(self._record)["eosin_run"])
        mark = uuid.uuid4().hex
        write_json(self._record, {"eosin_run": mark, "mlflow_run": None})
        return mark

    def _emptied(self, client: MlflowClient, mark: str) -> str:
        """The id of the experiment, in which nothing of this run is left."""
        found = client.get_experiment_by_name(self._experiment)
        if found is not None and not self._uri:  # all in this store is ours; MLflow itself would only hide it
            shutil.rmtree(self._store / found.experiment_id)
            found = None
        if found is None:
            return str(client.create_experiment(self._experiment))
        for former in client.search_runs([found.experiment_id], f"tags.`eosin.run` = '{mark}'"):
            client.delete_run(former.info.run_id)
        return str(found.experiment_id)

    def _log(
        self, metrics: Mapping[str, float] | None = None, params: Mapping[str, str] | None = None, step: int = 0
    ) -> None:
        from mlflow.entities import Metric, Param

        assert self._client is not None
        now = time.time_ns() // 1_000_000
        values = [Metric(name, value, now, step) for name, value in (metrics or {}).items()]
        texts = [Param(name, value) for name, value in (params or {}).items()]
        with self._reached():
            for first in range(0, max(len(texts), 1), MOST_PARAMS):
                self._client.log_batch(self._id, values, texts[first : first + MOST_PARAMS])

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Say in one line what MLflow refuses or why it cannot be reached."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            self._client = None  # no second attempt when the run ends
            why = _without_password(f"MLflow at {self._uri or self._store}: {error}")
            raise EosinError(
                f"{shorten(why, 700).rstrip('.')}: mend this or leave out --track mlflow; the run goes on where it was"
            ) from error


KNOWN: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow}  # each is its library's name, too


def trackers(names: Sequence[str], run: Path, recipe: Recipe) -> list[Tracker]:
    """The trackers of a run. Each is a context; nothing is written before the journal says something.

    Args:
        names: ``tensorboard``, ``mlflow``; naming one twice is naming it once.
        run: the run's folder.
        recipe: the resolved recipe.

    Raises:
        WrongUse: for an unknown name, or a library that is not installed.
    """
    for name in names:
        if name not in KNOWN:
            raise WrongUse(f"--track {name}: no such tracker{nearest(name, list(KNOWN))}")
        if find_spec(name) is None:
            raise WrongUse(f"--track {name}: {name} is not installed: pip install 'eosin[track]'")
    return [KNOWN[name](run, recipe) for name in dict.fromkeys(names)]


def numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a journal's entry as ``<step>/loss/<term>``, ``<step>/lr``, ``<step>/val/<name>`` and so on."""
    found = {f"loss/{term}": value for term, value in entry["losses"].items()}
    found |= {name: entry[name] for name in ("lr", "seconds", "images_per_s", "kept")}
    found |= {f"val/{name}": value for name, value in (entry["val"] or {}).items()}
    return {f"{entry['step']}/{name}": float(value) for name, value in found.items()}


def flat(values: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Nested settings by dotted names, as texts that MLflow takes.

    What is no text is written as JSON; so is a mapping with a key that cannot stand in a name. A text that is too long
    ends in three dots.
    """
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value and all(PLAIN.fullmatch(str(inner)) for inner in value):
            found |= flat(value, f"{before}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            found[f"{before}{key}"] = text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."
    return found


def _without_password(text: str) -> str:
    """The text with addresses that name no user."""
    return re.sub(r"//[^/\s]*@", "//", text)
