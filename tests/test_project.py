"""What holds for the repository as a whole: one version, package data, short files, no traces of one machine, CI."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder

import eosin

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
PINS = [line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]


def tracked(pattern: str = "*") -> list[Path]:
    """The files of the repository: what git knows or would add; without git, what is not hidden or made."""
    if (REPOSITORY / ".git").exists() and shutil.which("git"):
        command = ["git", "-C", REPOSITORY, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
        files = [REPOSITORY / name for name in names if name]
    else:
        files = [f for folder in ("src", "tests", "docs", "benchmarks") for f in (REPOSITORY / folder).rglob("*")]
    return [f for f in files if f.is_file() and f.match(pattern) and "__pycache__" not in f.parts]


def test_the_version_is_said_once() -> None:
    assert WheelBuilder(str(REPOSITORY)).metadata.version == eosin.__version__
    assert yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())["version"] == eosin.__version__
    assert PROJECT["dynamic"] == ["version"]
    assert re.search(
        rf"^## \[(Unreleased|{re.escape(eosin.__version__)})\]", (REPOSITORY / "CHANGELOG.md").read_text(), re.M
    )


def test_the_licence_is_apache() -> None:
    text = (REPOSITORY / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["license"] == yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())["license"] == "Apache-2.0"


def test_every_dependency_is_pinned_and_every_pin_is_plain() -> None:
    assert all(re.fullmatch(r"[a-z0-9.-]+==[0-9][0-9.]*([a-z]+[0-9]+)?(\.post[0-9]+)?", pin) for pin in PINS), PINS
    assert sorted(PINS) == PINS
    pinned = {pin.split("==")[0] for pin in PINS}
    extras = PROJECT["optional-dependencies"]
    tried = ("onnx", "ray", "test", "dev", "bench")
    needed = [*PROJECT["dependencies"], *(requirement for extra in tried for requirement in extras[extra])]
    names = {re.split(r"[><=\[]", requirement)[0].lower() for requirement in needed} - {"eosin"}
    assert names <= pinned, names - pinned
    assert all(re.fullmatch(r"[A-Za-z0-9.-]+(\[[a-z]+\])?(>=[0-9.]+)?", requirement) for requirement in needed)


def test_recipes_are_package_data() -> None:
    """The files hatchling puts into a wheel hold every recipe and the typing marker."""
    packed = {file.distribution_path for file in WheelBuilder(str(REPOSITORY)).recurse_included_files()}
    wanted = {str(f.relative_to(REPOSITORY / "src")) for f in tracked() if f.is_relative_to(REPOSITORY / "src")}
    assert wanted <= packed, wanted - packed
    assert "eosin/py.typed" in packed
    assert any(re.fullmatch(r"eosin/recipes/[a-z0-9-]+\.yaml", name) for name in packed)


def test_no_source_file_is_long() -> None:
    long = {f.name: n for f in tracked("*.py") if "src" in f.parts and (n := len(f.read_text().splitlines())) > 400}
    assert not long


def test_no_file_names_a_path_of_one_machine() -> None:
    homes = "work|farm|root|home|Users|mnt|opt|tmp"
    path = re.compile(rf"(?<![A-Za-z0-9_.>)}}\]/~*-])/({homes})/[A-Za-z0-9_]")
    found = []
    for file in tracked():
        if file.suffix in (".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".cff", ".cfg", "") and file != Path(
            __file__
        ):
            lines = file.read_text(encoding="utf-8").splitlines()
            found += [f"{file.relative_to(REPOSITORY)}: {line.strip()}" for line in lines if path.search(line)]
    assert not found


def test_no_large_file() -> None:
    assert not [f.name for f in tracked() if f.stat().st_size > 1_000_000]


def test_the_readme_names_both_commands_and_the_use() -> None:
    first_screen = "\n".join((REPOSITORY / "README.md").read_text().splitlines()[:45]).lower()
    assert "make demo" in first_screen and "make test" in first_screen
    assert "research use only" in first_screen
    assert re.search(r"!\[.*\]\(.+\)|<img ", first_screen)


def test_the_public_names_are_there_and_no_package_hides_one() -> None:
    for name in eosin.__all__:
        assert callable(getattr(eosin, name)), name
        assert find_spec(f"eosin.{name}") is None, (
            f"eosin.{name} is also a module: importing it would hide the function"
        )


SKIPPING = {
    "test_fine": "def test_fine():\n    pass",
    "test_library": "import pytest\ndef test_library():\n    pytest.importorskip('no_such_library')",
    "test_file": "import pytest\npytest.importorskip('no_such_library')\ndef test_file():\n    pass",
    "test_data": "def test_data(real_data):\n    pass",
    "test_known": "import pytest\n@pytest.mark.xfail(reason='known')\ndef test_known():\n    assert False",
}


@pytest.mark.parametrize(("ci", "failed"), [("", set()), ("true", {"test_library", "test_file"})])
def test_a_library_that_is_missing_fails_in_ci_only(ci: str, failed: set[str], tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "tests" / "conftest.py", tmp_path)
    for name, code in SKIPPING.items():
        (tmp_path / f"{name}.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "-rA", "-p", "no:cacheprovider", "-p", "no:xdist"]
    environment = {**os.environ, "CI": ci, "EOSIN_DATA": str(tmp_path / "absent")}
    ended = subprocess.run(
        [*command, "--continue-on-collection-errors", tmp_path], capture_output=True, text=True, env=environment
    )
    said = ended.stdout
    assert set(re.findall(r"^(?:FAILED|ERROR) .*?(test_\w+)\.py", said, re.MULTILINE)) == failed, said
    assert ended.returncode == bool(failed), said
