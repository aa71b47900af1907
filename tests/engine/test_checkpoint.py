"""Checkpoints: whole or not there, read only if they are what was written, and a fit that goes on from them."""

from __future__ import annotations

import errno
import json
import os
import pickle
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from command_line import call
from engine.toys import Toy, recipe, write_toys
from eosin.core.errors import EosinError, Stale, WrongUse
from eosin.core.fingerprint import file_digest
from eosin.core.progress import Silent
from eosin.data.dataset import Dataset
from eosin.engine import checkpoint, loop
from eosin.engine.checkpoint import Checkpoints
from eosin.engine.lab import EngineLab
from eosin.engine.workplace import Workplace
from eosin.recipe import Recipe


class Killed(BaseException):
    """What nobody catches."""


class Told(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_toys(tmp_path / "data")


@pytest.fixture(autouse=True)
def after_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)
    monkeypatch.setattr(checkpoint, "COST", 1e9)


def fit(run: Path, data: Path, made: Recipe | None = None, told: Told | None = None, **again: Any) -> str:
    """Train one step; the SHA-256 of its weights."""
    lab = EngineLab(Workplace(run, Dataset.open(data), made or recipe(), "tags", told or Told(), **again))
    return file_digest(lab.fit("a", partial(Toy)).folder / "weights.safetensors")


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException) -> None:
    """Let a fit end at the beginning of a step, once."""
    usual = loop.Fit._step

    def struck(self: loop.Fit, now: Any, *others: Any) -> bool:
        if now.step == step:
            monkeypatch.setattr(loop.Fit, "_step", usual)
            raise error
        return usual(self, now, *others)

    monkeypatch.setattr(loop.Fit, "_step", struck)


def saved(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "steps" / ".a.making" / ".checkpoints").iterdir())


def test_what_is_saved_is_what_is_read_and_the_newest_two_are_kept(tmp_path: Path) -> None:
    saves = Checkpoints(tmp_path / "c")
    assert saves.newest() is None
    for step in (3, 10, 200):
        saves.save(step, {"step": step, "weights": torch.full((2,), float(step)), "none": None, "sums": {"a": 0.1}})
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["000000010.ckpt", "000000200.ckpt"]
    state = saves.newest()
    assert state is not None and state["step"] == 200 and state["sums"] == {"a": 0.1} and state["none"] is None
    assert torch.equal(state["weights"], torch.tensor([200.0, 200.0]))


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:50] + b"?" + b[51:], lambda b: b"", lambda b: b + b"0"]
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_taken(
    tmp_path: Path, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    saves = Checkpoints(tmp_path / "c")
    saves.save(1, {"step": 1})
    saves.save(2, {"step": 2})
    newest = tmp_path / "c" / "000000002.ckpt"
    newest.write_bytes(damage(newest.read_bytes()))
    assert Checkpoints(tmp_path / "c").newest() == {"step": 1}
    (record,) = caplog.records  # a warning is shown with --json too
    assert "000000002.ckpt: a damaged checkpoint" in record.message and record.levelname == "WARNING"
    oldest = tmp_path / "c" / "000000001.ckpt"
    oldest.write_bytes(damage(oldest.read_bytes()))
    with pytest.raises(EosinError, match=r"000000002.ckpt: no checkpoint of this step is whole; remove .*c to begin"):
        saves.newest()


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    import hashlib

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    content = pickle.dumps(Evil())
    (tmp_path / "1.ckpt").write_bytes(checkpoint._HEAD + hashlib.sha256(content).digest() + content)
    with pytest.raises(EosinError, match="no checkpoint"):
        Checkpoints(tmp_path).newest()
    assert not (tmp_path / "ran").exists()


def test_after_a_damaged_one_the_good_one_stays_until_another_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Checkpoints(tmp_path)
    first.save(4, {"step": 4})
    first.save(5, {"step": 5})
    (tmp_path / "000000005.ckpt").write_bytes(b"torn")
    second = Checkpoints(tmp_path)
    assert second.newest() == {"step": 4}
    monkeypatch.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        second.save(5, {"step": 5})
    assert Checkpoints(tmp_path).newest() == {"step": 4}


def test_a_checkpoint_of_another_version_is_called_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "1.ckpt").write_bytes(b"eosin checkpoint 7\n" + bytes(64))
    with pytest.raises(EosinError, match="no checkpoint"):
        Checkpoints(tmp_path).newest()
    assert "of another version" in caplog.records[0].message


def test_a_second_signal_keeps_nothing_of_the_step_it_cuts(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(tmp_path / "whole", data)
    usual = Toy.after_step

    def twice(self: Toy, clock: Any) -> None:
        if clock.step == 3:  # the optimizer has stepped, the average and the count of steps have not
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Toy, "after_step", twice)
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(tmp_path / "run", data)
    assert type(caught.value) is KeyboardInterrupt and saved(tmp_path / "run")[-1] == "000000003.ckpt"
    monkeypatch.setattr(Toy, "after_step", usual)
    assert fit(tmp_path / "run", data) == whole


def test_an_interrupted_redo_goes_on_when_the_same_is_asked_again(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(tmp_path / "run", data)
    again = frozenset({"a"})
    stop_at(monkeypatch, 4, Killed())
    with pytest.raises(Killed):
        fit(tmp_path / "run", data, again=again)
    usual, begun = loop.Fit._step, []
    monkeypatch.setattr(loop.Fit, "_step", lambda self, now, *o: (begun.append(now.step), usual(self, now, *o))[1])
    assert fit(tmp_path / "run", data, again=again) == whole and begun == [4, 5]
    lab = EngineLab(Workplace(tmp_path / "run", Dataset.open(data), recipe(), "tags", Told(), again))
    lab.steps.end()
    begun.clear()
    assert fit(tmp_path / "run", data, again=again) == whole and begun == [0, 1, 2, 3, 4, 5], "a new redo is a new one"


def test_a_redo_that_cannot_remove_the_step_fails(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(tmp_path / "run", data)
    monkeypatch.setattr(Path, "rename", lambda self, to: (_ for _ in ()).throw(PermissionError(13, "no", str(self))))
    with pytest.raises(PermissionError):
        fit(tmp_path / "run", data, again=frozenset({"a"}))


def test_weights_lost_in_the_last_step_are_not_kept(tmp_path: Path, data: Path) -> None:
    lab = EngineLab(Workplace(tmp_path / "run", Dataset.open(data), recipe(), "tags", Told()))
    with pytest.raises(EosinError, match="a: weights are not finite at the end of epoch 2"):
        lab.fit("a", partial(Spoilt, at=5))


def test_saving_takes_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(checkpoint.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(checkpoint, "EVERY_S", 30.0)
    monkeypatch.setattr(checkpoint, "COST", 0.02)
    saves = Checkpoints(tmp_path)
    assert not saves.due()
    now[0] += 30
    assert saves.due()
    write, path = checkpoint.torch.save, checkpoint.torch
    monkeypatch.setattr(path, "save", lambda *a: (write(*a), now.__setitem__(0, now[0] + 3)))  # three seconds
    saves.save(1, {})
    now[0] += 149
    assert not saves.due(), "fifty times as long as it took"
    now[0] += 1
    assert saves.due()


@pytest.mark.parametrize(
    "settings", [{}, {"ema": 0.9}, {"optimizer": "sgd", "schedule": "cosine"}, {"precision": "fp16"}]
)
def test_a_fit_goes_on_to_the_same_weights(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    made = recipe(epochs=3, augment={"stain": 0.3}, **settings)
    whole = fit(tmp_path / "whole", data, made)
    for step in (2, 5, 7):
        stop_at(monkeypatch, step, Killed())
        with pytest.raises(Killed):
            fit(tmp_path / "run", data, made)
        assert saved(tmp_path / "run")[-1] == f"{step:09d}.ckpt"
    assert fit(tmp_path / "run", data, made) == whole
    assert sorted(p.name for p in (tmp_path / "run" / "steps").iterdir()) == ["a"]


def test_a_checkpoint_is_used(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at(monkeypatch, 4, Killed())
    with pytest.raises(Killed):
        fit(tmp_path / "run", data)
    usual, begun = loop.Fit._step, []
    monkeypatch.setattr(loop.Fit, "_step", lambda self, now, *o: (begun.append(now.step), usual(self, now, *o))[1])
    fit(tmp_path / "run", data)
    assert begun == [4, 5]


def test_half_made_with_other_settings_is_stale_and_redo_clears_it(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(monkeypatch, 4, Killed())
    with pytest.raises(Killed):
        fit(tmp_path / "run", data)
    before = saved(tmp_path / "run")
    other = recipe(lr=0.06)
    with pytest.raises(
        Stale, match=r"\.a\.making: half made with other settings \(spec\.lr: 0\.05 -> 0\.06\): add --redo a"
    ):
        fit(tmp_path / "run", data, other)
    assert saved(tmp_path / "run") == before
    with pytest.raises(WrongUse, match="--redo b: not a step of"):
        fit(tmp_path / "run", data, other, again=frozenset({"b"}))
    assert fit(tmp_path / "run", data, other, again=frozenset({"a"})) == fit(tmp_path / "new", data, other)


def test_a_step_that_failed_before_it_had_anything_is_not_stale(tmp_path: Path, data: Path) -> None:
    with pytest.raises(WrongUse, match="select"):
        fit(tmp_path / "run", write_toys(tmp_path / "bare", masks=False, vary=False), recipe(select="masks"))
    assert fit(tmp_path / "run", data)


def test_a_step_that_was_whole_but_for_its_name_is_not_made_again(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eosin.engine import steps

    usual = steps._name
    monkeypatch.setattr(steps, "_name", lambda making, place: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        fit(tmp_path / "run", data)
    monkeypatch.setattr(steps, "_name", usual)
    stop_at(monkeypatch, 0, Killed())
    assert fit(tmp_path / "run", data)


def test_a_full_disk_loses_nothing(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = fit(tmp_path / "whole", data)
    usual, files = os.fsync, []

    def full(file: int) -> None:
        files.append(file)
        if len(files) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        usual(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        fit(tmp_path / "run", data)
    monkeypatch.setattr(os, "fsync", usual)
    assert saved(tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.tmp"))
    assert fit(tmp_path / "run", data) == whole


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*words: Any, **named: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/x/1.ckpt")

    monkeypatch.setattr("eosin.verbs.run", full)
    assert call("run", "cam-phantom") == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("eosin: runs/x/1.ckpt: no space left; free some and give the same command again")


def test_a_loss_that_is_not_finite_keeps_the_checkpoint_and_names_the_batch(tmp_path: Path, data: Path) -> None:
    lab = EngineLab(Workplace(tmp_path / "run", Dataset.open(data), recipe(), "tags", Told()))
    with pytest.raises(
        EosinError, match=r"a: loss 'bad' is nan at step 1 \(items (train_\d+(, )?){4}\): lower"
    ) as caught:
        lab.fit("a", partial(Toy, poison=1.0))
    assert "\n" not in str(caught.value)
    assert saved(tmp_path / "run") == ["000000001.ckpt"]
    told = json.loads((tmp_path / "run" / "steps" / ".a.making" / ".not-finite.json").read_text())
    assert told["step"] == 1 and told["losses"] == {"bad": "nan"} and len(told["items"]) == 4
    assert all(item in str(caught.value) for item in told["items"])


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, data: Path) -> None:
    lab = EngineLab(Workplace(tmp_path / "run", Dataset.open(data), recipe(), "tags", Told()))
    with pytest.raises(EosinError, match=r"a: loss 'tags' is nan at step 2"):
        lab.fit("a", partial(Spoilt))
    assert saved(tmp_path / "run")[-1] == "000000001.ckpt"


class Spoilt(Toy):
    """Its weights are lost in a step."""

    def __init__(self, at: int = 1) -> None:
        super().__init__()
        self.at = at

    def after_step(self, clock: Any) -> None:
        if clock.step == self.at:
            with torch.no_grad():
                self.head.weight.fill_(torch.nan)


def test_the_journal_has_neither_gaps_nor_repeats(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 3, 4, 6):
        stop_at(monkeypatch, step, Killed())
        with pytest.raises(Killed):
            fit(tmp_path / "run", data, recipe(epochs=3))
    fit(tmp_path / "run", data, recipe(epochs=3))
    fit(tmp_path / "whole", data, recipe(epochs=3))
    found, expected = (
        [(e["epoch"], e["losses"], e["val"]) for e in map(json.loads, (tmp_path / run / "journal.jsonl").open())]
        for run in ("run", "whole")
    )
    assert found == expected and [epoch for epoch, *_ in found] == [0, 1, 2]


def test_the_time_of_earlier_sittings_counts(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = loop._State.dump
    monkeypatch.setattr(loop._State, "dump", lambda self: {**usual(self), "wall_s": 100.0, "cpu_s": 50.0})
    stop_at(monkeypatch, 4, Killed())
    with pytest.raises(Killed):
        fit(tmp_path / "run", data)
    monkeypatch.setattr(loop._State, "dump", usual)
    fit(tmp_path / "run", data)
    notes = json.loads((tmp_path / "run" / "steps" / "a" / "step.json").read_text())["notes"]
    assert 100 <= notes["wall_s"] < 160 and 50 <= notes["cpu_s"] < 110 and "earlier" not in notes
