"""The model section tells the terms that the model is bound by, and how near its forms are to it."""

from __future__ import annotations

from html import unescape
from pathlib import Path
from typing import Any

import pytest

from eosin.core.errors import EosinError
from eosin.data.formats.glas import LICENCE
from eosin.parts.backbones.known import NVIDIA
from eosin.report.html import write_report
from report.fake_run import CLASSES, make_run
from report.page import Page
from report.test_sections import section, words
from small_model import card

PARITY = {"max_difference": 3e-6, "argmax_agreement": 0.99987}


def told(place: Path, **changes: Any) -> str:
    """The words of the section of a run with such a model card."""
    run = make_run(place).run
    (run / "model").mkdir(exist_ok=True)
    card(classes=CLASSES, **changes).write(run / "model")
    return unescape(words(section(Page(write_report(run)), "model")))


def test_terms_of_data_and_weights_are_told_and_those_that_bind_stand_out(tmp_path: Path) -> None:
    lines = ("data glas: " + LICENCE, "seg_pretrained = imagenet (mit_b1): " + NVIDIA, "pretrained = x: <Apache> 2.0")
    said = told(tmp_path, licences=lines)
    assert f"Research only: {lines[0]}; {lines[1]}." in said
    assert all(line in said.split("terms", 1)[1] for line in lines)


def test_free_terms_bind_nobody(tmp_path: Path) -> None:
    said = told(tmp_path, licences=("data phantom: Apache-2.0 (drawn by eosin)",))
    assert "data phantom: Apache-2.0 (drawn by eosin)" in said and "Research only" not in said
    assert "use research use only" in said


def test_every_form_is_told_with_its_agreement(tmp_path: Path) -> None:
    exports = {form: {"files": {form: "0"}, "parity": PARITY} for form in ("onnx", "openvino-int8")}
    said = told(tmp_path, exports=exports, parity={"max_difference": 0, "argmax_agreement": 1})
    assert "program against network differs by 0 at most, agrees in 100.00% of the classes" in said
    for form in exports:
        assert f"{form} against program differs by 3e-06 at most, agrees in 99.99% of the classes" in said


def test_without_a_model_the_section_says_so(tmp_path: Path) -> None:
    assert "no model was written" in section(Page(write_report(make_run(tmp_path).run)), "model")


def test_a_broken_card_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path).run
    (run / "model").mkdir(exist_ok=True)
    (run / "model" / "card.json").write_text('{"schema": 1}')
    with pytest.raises(EosinError, match=r"card.json: classes: "):
        write_report(run)
