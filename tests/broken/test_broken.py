"""Each defect is told in its own line and brings no other error; all together bring all lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from broken.builders import DEFECTS, Defect, sound
from eosin.core.errors import EosinError
from eosin.data.check import check
from eosin.data.dataset import Dataset

NAMES = [defect.name for defect in DEFECTS]


def errors(folder: Path) -> list[str]:
    return [str(finding) for finding in check(folder) if finding.level == "error"]


def tells(line: str, defect: Defect) -> bool:
    return all(part in line for part in defect.says)


def test_a_sound_data_set_has_no_finding(tmp_path: Path) -> None:
    assert check(sound(tmp_path / "d").save()) == []


def test_there_are_enough_defects() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 16


@pytest.mark.parametrize("defect", DEFECTS, ids=NAMES)
def test_a_defect_gives_its_own_line_and_no_other(tmp_path: Path, defect: Defect) -> None:
    draft = sound(tmp_path / "d")
    defect.apply(draft)
    lines = errors(draft.save())
    assert len(lines) == 1 and tells(lines[0], defect), lines
    assert "\n" not in lines[0] and str(draft.folder) in lines[0]


def test_all_defects_at_once_give_all_lines(tmp_path: Path) -> None:
    draft = sound(tmp_path / "d")
    joined = [defect for defect in DEFECTS if defect.joins]
    for defect in joined:
        defect.apply(draft)
    lines = errors(draft.save())
    unsaid = [defect.name for defect in joined if sum(tells(line, defect) for line in lines) != 1]
    unexpected = [line for line in lines if not any(tells(line, defect) for defect in joined)]
    assert (unsaid, unexpected) == ([], [])


def test_opening_raises_the_first_line_and_counts_the_rest(tmp_path: Path) -> None:
    draft = sound(tmp_path / "d")
    draft.row("train-20")["tumour"] = "2"
    draft.row("train-21")["tumour"] = "yes"
    with pytest.raises(EosinError, match=r"items\.csv: line 22: tag '2' .* \(and 1 more: eosin data check .*d\)$"):
        Dataset.open(draft.save())
