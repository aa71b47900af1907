"""``eosin run``: what is refused before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import call
from eosin.data.phantom import PhantomSpec, draw_dataset


def test_a_missing_weight_file_of_a_later_step_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_dataset(tmp_path / "data", PhantomSpec(patches=6, val=2, test=2, large=0, size=48, patients=4))
    words = ("--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"), "--set", "options.seg_pretrained=no.pth")
    assert call("run", "cam-phantom", *words) == 2
    assert "'no.pth': no such weight file" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("steps/*"))
