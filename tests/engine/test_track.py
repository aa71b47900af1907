"""Trackers tell what the journal says: no gap and no repeat, whatever happened to the run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from engine.toys import recipe
from eosin.core.errors import EosinError, WrongUse
from eosin.engine.journal import Journal
from eosin.engine.track import MLflow, TensorBoard, Tracker, trackers
from eosin.recipe import Recipe

TESTS = str(Path(__file__).resolve().parents[1])
BOTH = ("tensorboard", "mlflow")
SET = ("TRACKING_URI", "EXPERIMENT_NAME", "ALLOW_FILE_STORE", "DISABLE_TELEMETRY", "SUPPRESS_PRINTING_URL_TO_STDOUT")
Told = dict[str, list[tuple[int, float]]]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SET:
        monkeypatch.setenv(f"MLFLOW_{name}", "")  # so that what a tracker sets is taken back
        monkeypatch.delenv(f"MLFLOW_{name}")


def entry(step: str, epoch: int) -> dict[str, Any]:
    """A line as the loop writes it; every number tells step and epoch, and every second epoch is judged."""
    value = (1 if step == "a" else 2) + epoch / 8
    return {
        "step": step,
        "epoch": epoch,
        "epochs": 4,
        "losses": {"tags": value, "pixels": value / 2},
        "lr": value / 64,
        "seconds": value * 4,
        "images_per_s": value * 16,
        "selection": "masks",
        "val": {"miou": value / 4} if epoch % 2 == 0 else None,
        "kept": epoch == 0,
    }


def told_of(*entries: dict[str, Any]) -> Told:
    """What a tracker should have been told."""
    told: Told = {}
    for line in entries:
        values = {f"loss/{term}": line["losses"][term] for term in ("tags", "pixels")}
        values |= {name: float(line[name]) for name in ("lr", "seconds", "images_per_s", "kept")}
        values |= {"val/miou": line["val"]["miou"]} if line["val"] else {}
        for name, value in values.items():
            told.setdefault(f"{line['step']}/{name}", []).append((line["epoch"], value))
    return told


def events(run: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(run / "tracking" / "tensorboard")).Reload()


def read_tensorboard(run: Path) -> Told:
    found = events(run)
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def mlflow_runs(uri: str, experiment: str = "eosin") -> list[Any]:
    from mlflow import MlflowClient

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    return [] if found is None else list(client.search_runs([found.experiment_id]))


def store_of(run: Path) -> str:
    return (run / "tracking" / "mlflow").resolve().as_uri()


def read_mlflow(uri: str) -> Told:
    from mlflow import MlflowClient

    (found,) = mlflow_runs(uri)
    history = MlflowClient(uri).get_metric_history
    return {name: [(m.step, m.value) for m in history(found.info.run_id, name)] for name in found.data.metrics}


def both_say(run: Path, *entries: dict[str, Any]) -> None:
    assert Journal(run / "journal.jsonl").read() == list(entries)
    assert read_tensorboard(run) == told_of(*entries)  # all values are exact in float32
    assert read_mlflow(store_of(run)) == told_of(*entries)


def opened(run: Path, made: Recipe | None = None) -> tuple[Journal, list[Tracker]]:
    listeners = trackers(BOTH, run, made or recipe())
    return Journal(run / "journal.jsonl", listeners), listeners


def trained(run: Path, made: Recipe | None = None, steps: Sequence[str] = ("a", "b")) -> None:
    """A run to its end that trains steps of two epochs each; those that it does not train were finished before."""
    journal, listeners = opened(run, made)
    with ExitStack() as stack:
        for listener in listeners:
            stack.enter_context(listener)
        for step in steps:
            journal.forget(step)
            for epoch in (0, 1):
                journal.write(entry(step, epoch))


def alone(code: str, run: Path, ends: int = 0) -> str:
    """What a fresh interpreter prints in which nothing says that it is a test."""
    hidden = ("PYTEST", "MLFLOW", "CI", "GITHUB")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    head = f"import sys\nfrom pathlib import Path\nsys.path.insert(0, {TESTS!r})\nrun = Path(sys.argv[1])\n"
    done = subprocess.run([sys.executable, "-c", head + code, str(run)], capture_output=True, text=True, env=kept)
    assert done.returncode == ends, done.stderr
    return done.stdout.strip()


WHOLE = [entry("a", 0), entry("a", 1), entry("b", 0), entry("b", 1)]


def test_every_number_of_the_journal_is_told_at_its_epoch(tmp_path: Path) -> None:
    run = tmp_path / "a run"
    trained(run)
    both_say(run, *WHOLE)


def test_after_a_kill_the_run_goes_on_without_gap_or_repeat(tmp_path: Path) -> None:
    code = """
import os, signal
from engine.test_track import entry, opened
journal, _ = opened(run)
for epoch in range(3):
    journal.write(entry("a", epoch))
os.kill(os.getpid(), signal.SIGKILL)
"""
    alone(code, tmp_path, ends=-signal.SIGKILL)
    both_say(tmp_path, *(entry("a", e) for e in range(3)))

    journal, _ = opened(tmp_path)
    journal.forget("a", since=2)  # the last checkpoint was older than the last entry
    both_say(tmp_path, entry("a", 0), entry("a", 1))
    journal.write(entry("a", 2))
    journal.write(entry("a", 3))
    both_say(tmp_path, *(entry("a", e) for e in range(4)))


def test_a_step_that_is_done_again_is_told_once_and_behind_the_others(tmp_path: Path) -> None:
    trained(tmp_path)
    journal, _ = opened(tmp_path)
    journal.forget("a")
    both_say(tmp_path, *WHOLE[2:])
    again = {**entry("a", 0), "lr": 0.125}
    journal.write(again)
    both_say(tmp_path, *WHOLE[2:], again)


def test_a_second_run_that_finds_all_finished_tells_the_same_once(tmp_path: Path) -> None:
    trained(tmp_path)
    trained(tmp_path, steps=())
    trained(tmp_path, steps=())
    both_say(tmp_path, *WHOLE)
    folders = [path.parent for path in (tmp_path / "tracking" / "mlflow").glob("*/*/params")]
    assert len(folders) == 1  # not even one that is only marked as deleted


def test_a_run_that_was_trained_without_trackers_is_told_whole(tmp_path: Path) -> None:
    untold = Journal(tmp_path / "journal.jsonl")
    for line in WHOLE:
        untold.write(line)
    trained(tmp_path, steps=())
    both_say(tmp_path, *WHOLE)


def test_a_refused_run_leaves_what_was_told_with_its_recipe(tmp_path: Path) -> None:
    trained(tmp_path, recipe(lr=0.5))
    before = mlflow_runs(store_of(tmp_path))[0]
    _, listeners = opened(tmp_path, recipe(lr=0.25))
    for listener in listeners:
        with pytest.raises(EosinError, match="stale"), listener:
            raise EosinError("stale")
    both_say(tmp_path, *WHOLE)
    (after,) = mlflow_runs(store_of(tmp_path))
    assert (after.info.run_id, after.info.status) == (before.info.run_id, "FINISHED")
    assert after.data.params["fit.lr"] == "0.5"
    trained(tmp_path, recipe(lr=0.25))
    assert mlflow_runs(store_of(tmp_path))[0].data.params["fit.lr"] == "0.25"


def test_steps_that_begin_with_nothing_to_forget_start_no_new_run(tmp_path: Path) -> None:
    journal, _ = opened(tmp_path)
    journal.write(entry("a", 0))
    first = json.loads((tmp_path / "tracking" / "mlflow.json").read_text())
    journal.forget("b")
    journal.write(entry("b", 0))
    assert json.loads((tmp_path / "tracking" / "mlflow.json").read_text()) == first
    (run,) = mlflow_runs(store_of(tmp_path))
    assert run.info.run_id == first["mlflow_run"]
    assert run.data.tags["eosin.run"] == first["eosin_run"]
    assert run.info.run_name == tmp_path.name


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (EosinError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_mlflow_says_how_the_run_ended(tmp_path: Path, error: BaseException | None, status: str) -> None:
    tracker = MLflow(tmp_path, recipe())
    journal = Journal(tmp_path / "journal.jsonl", [tracker])
    with suppress(EosinError, KeyboardInterrupt), tracker:
        journal.write(entry("a", 0))
        assert mlflow_runs(store_of(tmp_path))[0].info.status == "RUNNING"
        if error is not None:
            raise error
    assert mlflow_runs(store_of(tmp_path))[0].info.status == status


def test_only_event_files_of_ours_are_taken_away(tmp_path: Path) -> None:
    folder = tmp_path / "tracking" / "tensorboard"
    folder.mkdir(parents=True)
    others = [folder / "events.out.tfevents.1.elsewhere", folder / "notes.txt"]
    for other in others:
        other.write_bytes(b"")
    trained(tmp_path)
    trained(tmp_path)
    assert all(other.exists() for other in others)
    trained(tmp_path)
    assert len([own for own in folder.glob("events.out.tfevents.*.eosin") if own.stat().st_size]) == 1
    assert len(list(folder.iterdir())) <= 4  # an empty one stays until the next time


def test_a_reader_that_saw_the_former_events_drops_them(tmp_path: Path) -> None:
    tracker = TensorBoard(tmp_path, recipe())
    journal = Journal(tmp_path / "journal.jsonl", [tracker])
    journal.write(entry("a", 0))
    reader = events(tmp_path)
    assert reader.Tags()["scalars"]
    time.sleep(1.1)  # files are read in the order of their names, which hold the second
    journal.forget("a")
    journal.write(entry("b", 0))
    reader.Reload()
    assert {tag for tag in reader.Tags()["scalars"] if reader.Scalars(tag)} == set(told_of(entry("b", 0)))


def test_both_show_the_recipe(tmp_path: Path) -> None:
    trained(tmp_path, recipe(lr=0.5, augment={"stain": 0.25}))
    (text,) = events(tmp_path).Tensors("recipe/text_summary")[0].tensor_proto.string_val
    assert "method: toy" in text.decode()
    assert "    stain: 0.25" in text.decode()
    params = mlflow_runs(store_of(tmp_path))[0].data.params
    assert params["method"] == "toy"
    assert params["fit.augment.stain"] == "0.25"
    assert params["options"] == "{}"
    assert params["seed"] == "0"


def test_mlflow_takes_every_setting_however_long_many_or_odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    sizes: list[int] = []
    log_batch = MlflowClient.log_batch

    def counted(self: Any, run_id: str, metrics: list[Any], params: list[Any]) -> None:
        sizes.append(len(params))
        log_batch(self, run_id, metrics, params)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    options = {
        "long": "x" * 7000,
        "list": [1, None, "ü"],
        "classes": {"stroma/fat (loose)": 1},
        "inner": {"ö": 2},
        **{f"k{i}": i for i in range(150)},
    }
    trained(tmp_path, Recipe(method="toy", options=options))
    params = mlflow_runs(store_of(tmp_path))[0].data.params
    assert params["options.long"] == "x" * 5997 + "..."
    assert params["options.list"] == '[1, null, "ü"]'
    assert params["options.classes"] == '{"stroma/fat (loose)": 1}'
    assert params["options.inner.ö"] == "2"
    assert [params[f"options.k{i}"] for i in range(150)] == [str(i) for i in range(150)]
    assert max(sizes) == 100  # what a server takes at once, though files take more


def test_on_the_users_server_only_what_this_run_told_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = (tmp_path / "shared").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "glands")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # theirs to allow
    for name in ("one", "two"):
        trained(tmp_path / name)
    others = {run.info.run_id for run in mlflow_runs(uri, "glands") if run.info.run_name == "two"}
    trained(tmp_path / "one")

    runs = mlflow_runs(uri, "glands")
    assert sorted(run.info.run_name for run in runs) == ["one", "two"]
    assert {run.info.run_id for run in runs if run.info.run_name == "two"} == others
    assert not (tmp_path / "one" / "tracking" / "mlflow").exists()


def test_a_server_that_does_not_answer_is_one_line_without_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracker = MLflow(tmp_path, recipe())
    journal = Journal(tmp_path / "journal.jsonl", [tracker])
    with pytest.raises(EosinError) as caught, tracker:
        journal.write(entry("a", 0))
    said = str(caught.value)
    assert f"http://127.0.0.1:{port}" in said
    assert "secret" not in said
    assert "\n" not in said
    assert "--track mlflow" in said
    assert journal.read() == [entry("a", 0)]  # nothing of the run is lost
    assert "secret" not in (tmp_path / "tracking" / "mlflow.json").read_text()


def test_a_server_that_is_lost_on_the_way_is_not_waited_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    asked: list[str] = []

    def lost(self: Any, run_id: str, *more: Any) -> None:
        asked.append(run_id)
        raise MlflowException("gone")

    tracker = MLflow(tmp_path, recipe())
    journal = Journal(tmp_path / "journal.jsonl", [tracker])
    journal.write(entry("a", 0))
    monkeypatch.setattr(MlflowClient, "log_batch", lost)
    monkeypatch.setattr(MlflowClient, "set_terminated", lost)
    with pytest.raises(EosinError, match="gone"), tracker:
        journal.write(entry("a", 1))
    assert len(asked) == 1


def test_a_store_of_files_that_mlflow_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "shared").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "false")
    journal = Journal(tmp_path / "journal.jsonl", [MLflow(tmp_path, recipe())])
    with pytest.raises(EosinError, match=r"MLFLOW_ALLOW_FILE_STORE=true"):
        journal.write(entry("a", 0))


def test_names_are_checked_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WrongUse, match=r"--track tensorbord: no such tracker.*did you mean 'tensorboard'"):
        trackers(["mlflow", "tensorbord"], tmp_path, recipe())
    assert [type(t) for t in trackers(["mlflow", "mlflow"], tmp_path, recipe())] == [MLflow]
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(WrongUse, match=r"--track mlflow: .* not installed: pip install 'eosin\[track\]'"):
        trackers(["tensorboard", "mlflow"], tmp_path, recipe())
    assert not list(tmp_path.iterdir())


def test_training_imports_no_tracker_that_nobody_asked_for(tmp_path: Path) -> None:
    code = """
import eosin.engine.lab
from eosin.engine.track import trackers
from engine.toys import recipe
assert trackers([], run, recipe()) == []
print({name.partition(".")[0] for name in sys.modules} & {"tensorboard", "mlflow"})
"""
    assert alone(code, tmp_path) == "set()"


def test_nothing_is_asked_of_the_network_and_nothing_printed(tmp_path: Path) -> None:
    code = """
import socket
asked = []
socket.socket.connect = lambda self, address: asked.append(address)
socket.getaddrinfo = lambda *address, **more: asked.append(address) or []
from engine.test_track import trained
trained(run)
from mlflow.telemetry import get_telemetry_client
print(asked, get_telemetry_client())
"""
    assert alone(code, tmp_path) == "[] None"
