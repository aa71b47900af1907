"""Nothing half-written ever gets a name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eosin.core.artifact import (
    Artifact,
    MaskSet,
    Trained,
    atomic_file,
    atomic_folder,
    read_json,
    write_json,
    write_text,
)
from eosin.core.errors import EosinError
from eosin.core.fingerprint import digest


class Interrupted(BaseException):
    """Like a keyboard interrupt."""


def entries(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "scores.json"
    with atomic_file(target) as temporary:
        temporary.write_bytes(b"half")
        assert not target.exists() and temporary.parent == target.parent
        temporary.write_bytes(b"whole")
    assert target.read_bytes() == b"whole" and entries(target.parent) == ["scores.json"]


@pytest.mark.parametrize("error", [ValueError, Interrupted])
def test_a_file_that_fails_leaves_nothing_and_keeps_the_old_one(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "scores.json"
    for before in ([], ["scores.json"]):
        with pytest.raises(error), atomic_file(target) as temporary:
            temporary.write_bytes(b"half")
            raise error
        assert entries(tmp_path) == before
        target.write_bytes(b"old")
    assert target.read_bytes() == b"old"


def test_a_file_that_was_never_written_is_an_error(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    with pytest.raises(FileNotFoundError), atomic_file(target):
        pass
    assert target.read_bytes() == b"old"


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "steps" / "classifier"
    with atomic_folder(target) as temporary:
        (temporary / "weights").write_bytes(b"w")
        assert not target.exists() and temporary.parent == target.parent
    assert entries(target) == ["weights"] and entries(target.parent) == ["classifier"]


@pytest.mark.parametrize("error", [ValueError, Interrupted])
def test_a_folder_that_fails_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), atomic_folder(tmp_path / "classifier") as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "weights").write_bytes(b"w")
        raise error
    assert entries(tmp_path) == []


def test_an_existing_folder_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "classifier"
    target.mkdir()
    (target / "weights").write_bytes(b"old")
    with pytest.raises(EosinError, match="another process"), atomic_folder(target) as temporary:
        (temporary / "weights").write_bytes(b"new")
    assert (target / "weights").read_bytes() == b"old" and entries(tmp_path) == ["classifier"]


def test_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="first"), atomic_folder(tmp_path / "a") as temporary:
        raise ValueError("first")
    temporary.mkdir()
    (temporary / "half").write_bytes(b"h")
    with atomic_folder(tmp_path / "a") as again:
        assert again == temporary and entries(again) == []
    assert entries(tmp_path) == ["a"]


def test_json_comes_back(tmp_path: Path) -> None:
    value = {"class": "größe", "iou": [0.1, None, 1e-300], "n": 3}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "größe" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_that_others_cannot_read_is_not_written(tmp_path: Path, number: float) -> None:
    write_text(tmp_path / "a.json", "{}")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"miou": number})
    assert read_json(tmp_path / "a.json") == {} and entries(tmp_path) == ["a.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"{'a': 1}", b"\xff\xfe{", None])
def test_unreadable_json_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "scores.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(EosinError) as caught:
        read_json(file)
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)


def test_artifacts_stand_for_what_made_them(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert digest(Trained("a", here, "f" * 64)) == digest(Artifact("b", there, "f" * 64))
    assert digest(Artifact("a", here, "f" * 64)) != digest(Artifact("a", here, "0" * 64))
    assert MaskSet("pseudo", here, "f").path("p_1.2-3") == here / "p_1.2-3.png"


def test_temporary_files_of_two_processes_differ(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a") as temporary:
        assert str(os.getpid()) in temporary.name
        temporary.touch()
