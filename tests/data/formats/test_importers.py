"""Finding importers, their options, and what holds for each of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from eosin.core.errors import EosinError, WrongUse
from eosin.data.formats import import_dataset, importers


def test_formats_are_found_by_their_files() -> None:
    found = importers()
    releases = {"bcss", "camelyon", "digestpath", "ebhi", "glas", "luad", "prog", "wsss4luad"}
    assert releases | {"folder", "qupath"} == set(found)
    for importer in found.values():
        assert "\n" not in importer.DESCRIPTION and issubclass(importer.Options, BaseModel)
        assert all(field.description for field in importer.Options.model_fields.values())
        importer.Options()


def test_listing_formats_needs_no_torch() -> None:
    code = "import sys; from eosin.data.formats import importers; importers(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("gals", {}, r"no format 'gals' \(did you mean 'glas'\?\)"),
        ("glas", {"tiles": "112"}, r"glas: no option 'tiles' \(did you mean 'tile'\?\)"),
        ("glas", {"tile": "many"}, r"glas: tile: Input should be a valid integer.*\(it says 'many'\)"),
        ("glas", {"val_fraction": "1.5"}, r"glas: val_fraction: Input should be less than 1"),
        ("folder", {"patient": "("}, r"folder: patient: not a regular expression"),
    ],
)
def test_wrong_options_name_the_mend(tmp_path: Path, name: str, options: dict[str, str], says: str) -> None:
    with pytest.raises(WrongUse, match=says) as caught:
        import_dataset(name, tmp_path, tmp_path / "out", options)
    assert "\n" not in str(caught.value)


def test_source_must_exist_and_dest_must_not(tmp_path: Path) -> None:
    with pytest.raises(EosinError, match="nowhere: no such folder"):
        import_dataset("folder", tmp_path / "nowhere", tmp_path / "out", {})
    with pytest.raises(EosinError, match="exists already"):
        import_dataset("folder", tmp_path, tmp_path, {})
